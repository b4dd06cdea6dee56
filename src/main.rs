//! The command `artifactfs`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
