use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread starts; the real environment wins over the file.
    if let Err(error) = dotenvy::dotenv_override_check() {
        eprintln!("waypost: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
