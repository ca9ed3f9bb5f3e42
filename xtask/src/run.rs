//! `cargo xtask run`: the agent in the foreground, on given interfaces or in a playground.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

use crate::playground::{self, Playground, SERVER};
use crate::workspace::Agent;
use crate::{process, setup};

/// What `run` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Attach to this interface of the host; may be repeated. Without any, a playground is made
    #[arg(long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// What else to tell `throttle run`
    #[arg(last = true, value_name = "AGENT ARGS")]
    agent: Vec<String>,
}

/// Runs the agent until it or a signal ends it, and ends as it did.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.interfaces.is_empty() {
        return in_playground(&args.agent);
    }
    setup::root("run", "to attach to the host's interfaces")?;
    setup::kernel_toolchain()?;
    let throttle = Agent::Release.build()?;
    eprintln!(
        "In a second terminal, as root: alias throttle={0}\nCtrl-C ends the agent; what is in force stays in force until \
         `throttle detach`.",
        throttle.display()
    );
    let mut agent = Command::new(throttle);
    agent.arg("run");
    for interface in &args.interfaces {
        agent.args(["--interface", interface]);
    }
    foreground(agent.args(&args.agent))
}

fn in_playground(args: &[String]) -> Result<ExitCode> {
    playground::prepare("run", &["curl", "wrk"])?;
    let playground = process::step("make a playground", || Playground::new(1, 8))?;
    eprintln!("{}", instructions(&playground));
    let ended = foreground(playground.agent().args(args));
    drop(playground);
    eprintln!("The playground is removed, and with it all that the agent left in the kernel.");
    ended
}

/// Runs the agent in a process group of its own, so that a Ctrl-C reaches it once: passed on by us.
fn foreground(agent: &mut Command) -> Result<ExitCode> {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    eprintln!("==> {}", process::words(agent));
    let status = process::wait(&mut process::spawn(agent.stdin(Stdio::null()).process_group(0))?)?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn instructions(playground: &Playground) -> String {
    let client = &playground.clients[0];
    let inside = format!("ip netns exec {}", client.namespace.name);
    let exports: Vec<String> =
        playground.agent_environment().map(|(name, path)| format!("    export {name}={}", path.display())).into();
    let exports = exports.join("\n");
    let throttle = playground::AGENT.path();
    let throttle = throttle.display();
    let (v4, v6) = SERVER;
    let ((first, first_v6), (last, last_v6)) = (client.addresses[0], client.addresses[client.addresses.len() - 1]);
    let (other, _) = client.addresses[1];
    let (third, _) = client.addresses[2];
    format!(
        "
A web server at {v4} and {v6}; a client with the addresses {first} to {last}, {first_v6} to {last_v6}.
In a second terminal, as root:

{exports}
    alias throttle={throttle}
    alias client='{inside}'

    client wrk -c 16 -d 5 -H 'Connection: close' http://{v4}/     # unthrottled
    throttle service set web --protocol tcp --port 80
    throttle limit set per-source --service web --unit connections --rate 50/s --burst 100
    client wrk -c 16 -d 5 -H 'Connection: close' http://{v4}/     # as before: the host only observes...
    throttle limit list                                           # ...and counts what it would have refused
    throttle mode enforce
    client wrk -c 16 -d 5 -H 'Connection: close' http://{v4}/     # 50 requests a second after a burst of 100
    client curl --interface {other} http://{v4}/     # another source has a bucket of its own
    throttle events --source {first}      # why was it refused?
    throttle explain {first} --port 80    # would it be refused now, by what, and until when?
    throttle top      # who talks, live; q ends it

    throttle block add {third} --for 10m --reason 'a test'
    client curl -m 3 --interface {third} http://{v4}/     # dropped without a word: a time-out
    throttle block list --contains {third}      # why?

    throttle limit set few --service web --unit connections --rate 1/min --burst 2 --action reject
    client sh -c 'for i in 1 2 3; do curl -s --interface {last} http://{v4}/ || echo refused at once; done'
    throttle limit delete few
    throttle limit delete per-source
    throttle limit set open --service web --concurrent 4 --action reject
    client wrk -c 16 -d 5 http://{v4}/     # four connections at once, the others refused
    throttle status
    throttle upgrade --check      # what another build would find, and what would be lost

Ctrl-C ends the agent and removes all of it.
"
    )
}
