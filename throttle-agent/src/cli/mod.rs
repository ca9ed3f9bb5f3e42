//! The command line: each command is a client of the agent's API, and a few work without an agent.
//!
//! Arguments come in, a request goes out, its answer is rendered on one screen: problems first, units as people read
//! them. With `--json` the answer is printed as it came. A command file holds its arguments (clap), what it asks
//! (pure, tested) and how it shows the answer (pure, tested against strings); [`client`] is the only road to the agent,
//! [`failure::Failure`] the only way out that is not success.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

mod alike;
mod backend;
mod blocks;
mod breaker;
mod check;
mod client;
mod conflicts;
mod detach;
mod doctor;
mod entries;
mod events;
mod explain;
mod failure;
#[cfg(test)]
mod fixtures;
mod following;
mod health;
mod health_line;
mod limit;
mod limit_views;
mod mode;
mod output;
mod overriding;
mod paging;
mod penalising;
mod policy;
mod prefixes;
mod problem;
mod quantity;
mod run;
mod service;
mod service_views;
mod session;
mod speed;
mod stamp;
mod status;
mod table;
mod tenant;
mod top;
mod upgrade;
mod walk;
mod words;
mod writing;

use client::Client;
use failure::{EXIT_CODES, Failure};
use output::{Color, Output};

/// Throttles what each source may send to this host, in the kernel, before the network stack sees it.
#[derive(Debug, Parser)]
#[command(name = "throttle", version, after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The agent's socket
    #[arg(long, global = true, env = "THROTTLE_SOCKET", default_value = "/run/throttle/api.sock", value_name = "PATH")]
    #[arg(hide_env_values = true, help_heading = "Global options")]
    pub(crate) socket: PathBuf,
    /// Answer in JSON on stdout, fail in JSON on stderr, for programs
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// When to use colour: auto (heeds NO_COLOR), always or never
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = "Global options")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub(crate) color: Color,
}

/// Sets of the table of buckets, where nobody asks for another number.
const DEFAULT_SETS: u32 = 1 << 20;

/// Where the agent pins, for those commands that look there.
#[derive(Clone, Debug, Args)]
pub(crate) struct Pins {
    /// Where programs, links and maps are pinned; below a mounted bpffs
    #[arg(long, env = "THROTTLE_PIN_DIR", default_value = "/sys/fs/bpf/throttle", value_name = "DIR")]
    #[arg(hide_env_values = true)]
    pub(crate) pin_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent: attach to interfaces, hold the policy, answer the other commands
    Run(Box<run::Run>),
    /// Show what is enforced where, and what is wrong
    Status(status::StatusArgs),
    /// Enforce on this host, or only observe
    Mode(mode::ModeArgs),
    /// Set, list and delete limits
    #[command(subcommand)]
    Limit(limit::LimitCommand),
    /// Name services, so that limits can be theirs, and follow their health
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Name backends: who answers for a service, and how it is asked whether it is well
    #[command(subcommand)]
    Backend(backend::BackendCommand),
    /// Name tenants: groups of sources that share limits
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Have the clocks of limits run slower: a share of every rate, of all sources at once
    Speed(speed::SpeedArgs),
    /// Show the health of services and backends, and what follows from it
    Health(health::HealthArgs),
    /// Hold the breaker of a service or backend open or closed, or leave it to itself
    #[command(subcommand)]
    Breaker(breaker::BreakerCommand),
    /// Show the stamp that this host is in, and make the keys of one
    #[command(subcommand)]
    Stamp(stamp::StampCommand),
    /// Refuse sources, for a time or for ever
    #[command(subcommand)]
    Block(blocks::BlockCommand),
    /// Sources that no block and no limit touches
    #[command(subcommand)]
    Allow(prefixes::PrefixCommand),
    /// Sources known to be genuine: a flood of others cannot take their place
    #[command(subcommand)]
    Known(prefixes::PrefixCommand),
    /// Show sampled refusals, past and as they happen
    Events(events::EventsArgs),
    /// Say what would become of a source's next packet, why, and when that changes
    Explain(explain::ExplainArgs),
    /// Show live who talks, which limits act, why packets are refused, and what health decides
    Top(top::TopArgs),
    /// Check, compare, apply and take back whole policies
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Stop throttling: take the programs off the interfaces; works without an agent
    Detach(detach::Detach),
    /// Say what this build would take over from the one in force, and what would be lost; works without an agent
    Upgrade(upgrade::Upgrade),
    /// Examine what this host lacks, and say what helps; works without an agent
    Doctor(doctor::Doctor),
    /// Print the completions for a shell
    #[command(after_help = "Examples:\n  throttle completions bash > /etc/bash_completion.d/throttle")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the OpenAPI document of the agent's API
    Openapi,
}

/// What a command works with.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) output: Output,
}

impl Context {
    /// The road to the agent.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.global.socket)
    }
}

/// Parses the arguments, does what they ask, and gives the exit code.
pub(crate) fn main() -> ExitCode {
    let Cli { global, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && asks_for_json(std::env::args_os()) => {
            return Failure::Usage(in_words(&error)).report(Output::new(true, Color::Never));
        }
        Err(error) => error.exit(),
    };
    let output = Output::new(global.json, global.color);
    match obey(&Context { global, output }, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(output),
    }
}

/// Whether a command line that cannot be read asks for JSON all the same.
fn asks_for_json(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.by_ref().take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// What is wrong with a command line, on one line and without the usage below it.
fn in_words(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim);
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

fn obey(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(run) => run.obey(context),
        Command::Status(status) => status.obey(context),
        Command::Mode(mode) => mode.obey(context),
        Command::Limit(command) => command.obey(context),
        Command::Service(command) => command.obey(context),
        Command::Backend(command) => command.obey(context),
        Command::Tenant(command) => command.obey(context),
        Command::Speed(speed) => speed.obey(context),
        Command::Health(health) => health.obey(context),
        Command::Breaker(command) => command.obey(context),
        Command::Stamp(command) => command.obey(context),
        Command::Block(command) => command.obey(context),
        Command::Allow(command) => command.obey(context, &prefixes::ALLOWED),
        Command::Known(command) => command.obey(context, &prefixes::KNOWN),
        Command::Events(events) => events.obey(context),
        Command::Explain(explain) => explain.obey(context),
        Command::Top(top) => top.obey(context),
        Command::Policy(command) => command.obey(context),
        Command::Detach(detach) => detach.obey(context),
        Command::Upgrade(upgrade) => upgrade.obey(context),
        Command::Doctor(doctor) => doctor.obey(context),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "throttle", &mut script);
            output::data(&String::from_utf8_lossy(&script))
        }
        Command::Openapi => output::data(&throttle_agent::api::openapi_document()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_line_that_cannot_be_read_is_told_in_one_line() {
        let error =
            Cli::try_parse_from(["throttle", "limit", "set", "web", "--unit", "packtes", "--json"]).unwrap_err();
        let text = in_words(&error);
        assert!(text.starts_with("invalid value 'packtes' for '--unit <UNIT>'") && !text.contains('\n'), "{text}");
        let asks = |line: &str| asks_for_json(line.split(' ').map(OsString::from));
        assert!(asks("throttle nonsense --json") && !asks("throttle block add -- --json"));
    }

    #[test]
    fn a_value_may_begin_with_a_dash_and_is_then_told_what_is_wrong_with_it() {
        for line in [
            "limit set web --rate -5/s",
            "limit set web --burst -5",
            "limit set web --sources -5",
            "service set web --protocol tcp --port -80",
            "service set web --objective -5ms",
            "service set web --least -5",
            "backend set web-1 --interval -5ms",
            "block add 192.0.2.1 --for -5m",
            "mode enforce --confirm-within -5s",
            "policy check p.toml --flood -1",
            "speed set -0.5",
            "speed set 0.5 --for -5m",
        ] {
            let text = Cli::try_parse_from(["throttle"].into_iter().chain(line.split(' '))).unwrap_err().to_string();
            assert!(text.contains("negative"), "{line}: {text}");
        }
    }
}
