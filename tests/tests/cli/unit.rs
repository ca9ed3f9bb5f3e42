//! The systemd unit as it is shipped, under a real systemd: the first process of namespaces of its own, which vanish
//! with it. There bpffs, `/run` and `/var/lib` are new, and what is written to `/etc` and `/usr/bin` stays in memory.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use throttle_tests::{agent::binary, needs_root, say};

const SYSTEMD: &str = "/lib/systemd/systemd";
const UNIT: &str = "../throttle-agent/packaging/throttle.service";
/// How long a change of state is awaited.
const PATIENCE: Duration = Duration::from_secs(90);

/// Installs as the README says, and becomes systemd. Nothing of the host's own units is started.
const BOOT: &str = r#"
set -e
export container=throttle-tests
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mount -t bpf bpf /sys/fs/bpf
for folder in etc usr/bin; do
    mkdir -p /run/over/$folder/upper /run/over/$folder/work
    mount -t overlay -o lowerdir=/$folder,upperdir=/run/over/$folder/upper,workdir=/run/over/$folder/work overlay /$folder
done
umount -R /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up && ip link add near type veth peer name far && ip link set near up && ip link set far up
touch /usr/bin/throttle && mount --bind "$BINARY" /usr/bin/throttle
cp "$UNIT" /etc/systemd/system/throttle.service
echo 'THROTTLE_ARGS="--interface far"' > /etc/default/throttle
mkdir -p /run/systemd/system/throttle.service.d
printf '[Unit]\nDefaultDependencies=no\n' > /run/systemd/system/throttle.service.d/test.conf
printf '[Unit]\nDefaultDependencies=no\nWants=throttle.service\n' > /run/systemd/system/test.target
exec "$SYSTEMD" --system --unit=test.target --log-target=null
"#;

/// A machine within the machine.
struct Machine(Child);

impl Machine {
    fn boot() -> Result<Self> {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join(UNIT).canonicalize()?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--fork", "--kill-child=KILL", "--pid", "--mount", "--mount-proc", "--propagation", "private"]);
        unshare.args(["--net", "--uts", "--ipc", "--cgroup", "bash", "-c", BOOT]);
        unshare.env("BINARY", binary()?.canonicalize()?).env("UNIT", unit).env("SYSTEMD", SYSTEMD);
        let child = unshare.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        Ok(Self(child.context("start `unshare`")?))
    }

    /// Runs a line of shell inside.
    fn sh(&self, line: &str) -> Result<Output> {
        let unshare = self.0.id();
        let first = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
        let first = first.split_whitespace().next().context("the machine inside has ended")?;
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", first, "--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup", "sh", "-c", line]);
        Ok(nsenter.stdin(Stdio::null()).output()?)
    }

    /// What a line of shell prints inside.
    fn say(&self, line: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.sh(line)?.stdout).trim().to_owned())
    }

    /// Waits until a line of shell succeeds inside.
    fn until(&self, line: &str) -> Result<()> {
        let start = Instant::now();
        while !self.sh(line).is_ok_and(|output| output.status.success()) {
            if start.elapsed() > PATIENCE {
                let state = self.say("systemctl status throttle --no-pager; throttle status 2>&1")?;
                anyhow::bail!("`{line}` does not succeed:\n{state}");
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_unit_starts_the_agent_brings_it_back_and_leaves_enforcement_when_it_is_stopped() -> Result<()> {
    needs_root!();
    let overlay = fs::read_to_string("/proc/filesystems")?.contains("overlay");
    if !Path::new(SYSTEMD).exists() || !overlay {
        say!("skipped the_unit_starts_the_agent: needs {SYSTEMD} and overlayfs");
        return Ok(());
    }
    let machine = Machine::boot()?;
    // Type=notify: active is ready.
    machine.until("systemctl is-active throttle && throttle status")?;
    let main = "$(systemctl show --property MainPID --value throttle)";
    let held = machine.say(&format!("grep CapBnd /proc/{main}/status"))?;
    // CAP_NET_ADMIN (12), CAP_PERFMON (38), CAP_BPF (39).
    ensure!(held.ends_with("000000c000001000"), "the agent may do more than it needs: {held}");
    machine.until("throttle limit set few --unit packets --rate 1/s && throttle mode enforce")?;

    machine.until(&format!("kill -KILL {main}"))?;
    machine.until("systemctl show --property NRestarts throttle | grep -x NRestarts=1")?;
    machine.until("throttle status")?;
    ensure!(machine.say("throttle status")?.contains("enforcing, revision 2"), "the policy is in force again");

    machine.until("systemctl stop throttle")?;
    ensure!(machine.say("ip link show far")?.contains("name throttle"), "a stop takes nothing off");
    machine.until("throttle detach")?;
    ensure!(!machine.say("ip link show far")?.contains("name throttle"), "detach takes everything off");
    Ok(())
}
