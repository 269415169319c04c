/// Many small pieces are allocated on one thread and freed on another; glibc's allocator pays for
/// each of those with a lock and keeps what they leave.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    waypost::cli::main()
}
