//! The `throttle` command: the agent (`throttle run`) and everything that asks it.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
