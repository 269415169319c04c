//! The commands, one file each.

use std::{fmt, io, path::Path, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};

use crate::{
    printable::escaped,
    routing::{self, Table},
    settings::{self, Flags, Settings},
};

mod check;
mod client;
mod dead_letters;
pub mod explain;
mod input;
mod journal;
mod operator;
mod reload;
mod run;
mod sample;
mod schema;
mod send;
mod sonzai;
mod status;
mod stored;
mod tail;

const EXAMPLES: &str = "\
Examples:
  waypost run                                    receive, journal and publish, as routes.yaml says
  waypost check                                  what is wrong with routes.yaml
  waypost send                                   send a signed sample to the running daemon
  waypost send miibo function_calling            another source, another sample
  waypost send sonzai --type agent.message --file body.json
  waypost explain --sample agent.message         what would become of it, and why
  waypost tail                                   watch what comes out
  waypost reload                                 put a changed routes.yaml in force, or say why not
  waypost status                                 how the daemon and its brokers are doing
  waypost dead-letters list                      what was given up on, and why
  waypost journal verify                         whether what is on disk can be read
  waypost sonzai webhooks sync                   what to register at Sonzai, from routes.yaml
  waypost sonzai repair --since 2h               fetch what an outage lost
  waypost sonzai stub                            a stand-in for Sonzai's API, to try things out

Secrets are read from the environment and from .env in the working directory; settings from
waypost.toml, WAYPOST_* and flags.";

/// Turns signed webhooks into broker messages and loses nothing on the way.
#[derive(Parser)]
#[command(name = "waypost", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Schema(schema::Arguments),
    Explain(explain::Arguments),
    Reload(reload::Arguments),
    Send(send::Arguments),
    Tail(tail::Arguments),
    Status(status::Arguments),
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    #[command(subcommand)]
    Journal(journal::Command),
    #[command(subcommand)]
    Sonzai(sonzai::Command),
}

/// What went wrong, in words for people: what, and what to do next.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error {
    fn new(error: impl fmt::Display) -> Error {
        Error(error.to_string())
    }
}

/// Parses the arguments and runs the command; what went wrong goes to standard error.
pub fn main() -> ExitCode {
    match execute() {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("waypost: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn execute() -> Result<ExitCode, Error> {
    read_dotenv()?;
    let Arguments { command, flags } = Arguments::parse();
    let settings = Settings::load(Path::new(settings::FILE), &flags).map_err(Error::new)?;
    match command {
        Command::Check(arguments) => return check::main(arguments, &settings),
        Command::Schema(arguments) => schema::main(arguments)?,
        Command::Explain(arguments) => return explain::main(arguments, &settings),
        Command::Run(arguments) => {
            let load = move || Settings::load(Path::new(settings::FILE), &flags);
            let read_again = Arc::new(move || load().map_err(|error| error.to_string()));
            return run::main(arguments, settings, read_again);
        }
        Command::Reload(arguments) => return reload::main(arguments, &settings),
        Command::Send(arguments) => send::main(arguments, &settings)?,
        Command::Tail(arguments) => tail::main(arguments, &settings)?,
        Command::Status(arguments) => return status::main(arguments, &settings),
        Command::DeadLetters(command) => dead_letters::main(command, &settings)?,
        Command::Journal(command) => return journal::main(command, &settings),
        Command::Sonzai(command) => return sonzai::main(command, &settings),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads `.env` before any thread starts. The real environment wins.
fn read_dotenv() -> Result<(), Error> {
    match dotenvy::from_path(".env") {
        // The library's words repeat the line, secret and all.
        Err(dotenvy::Error::LineParse(..)) => Err(Error(
            "cannot read .env: a line does not parse; write NAME=value, and quote values with spaces"
                .into(),
        )),
        Err(error) if !error.not_found() => Err(Error(format!("cannot read .env: {error}"))),
        _ => Ok(()),
    }
}

/// Reads the routing table, which may be no text.
fn read_routes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|cause| {
        let hint = "name another with --routes";
        Error::new(format!("cannot read the routing table {}: {cause}; {hint}", path.display()))
    })
}

/// Reads the text of the routing table.
fn read_routes_text(path: &Path) -> Result<String, Error> {
    routing::text(&path.display().to_string(), read_routes(path)?).map_err(Error::new)
}

/// Reads and compiles the routing table.
fn read_table(path: &Path) -> Result<Table, Error> {
    let text = read_routes_text(path)?;
    let table = routing::compile(&path.display().to_string(), &text, &environment);
    table.map_err(Error::new)
}

/// What a reference in the routing table stands for.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs a command that talks to a daemon.
fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::new)?.block_on(work)
}

/// Writes to standard output; whether anybody still reads it. A reader that went away (`| head`) is no
/// error, and changes nothing about what a command ends with.
fn print(text: &str) -> Result<bool, Error> {
    use io::Write;
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error(format!("cannot write to standard output: {error}"))),
    }
}

/// Writes a line to standard error, which whoever called may have closed: then nobody is left to be told.
fn tell(line: &str) {
    use io::Write;
    io::stderr().write_all(format!("{line}\n").as_bytes()).ok();
}

/// Payload text for a terminal: control characters escaped, cut at a length.
fn printable(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => escaped(&text[..end]) + "…",
        None => escaped(text),
    }
}
