//! Debian packages, by the program that is wanted of them.
//!
//! A package that brings a service neither starts it now (a `policy-rc.d` that says no lies in place while apt
//! runs) nor at the next boot (its unit is disabled), and what stood there before is put back.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{find, is_root};
use crate::process;

/// A program, the Debian package that has it, and the service that comes with the package, if any.
pub(crate) struct Package {
    pub(crate) program: &'static str,
    pub(crate) name: &'static str,
    service: Option<&'static str>,
}

/// Every package that some command uses on this machine's own kernel.
pub(crate) const PACKAGES: [Package; 11] = [
    Package { program: "curl", name: "curl", service: None },
    Package { program: "ethtool", name: "ethtool", service: None },
    Package { program: "ip", name: "iproute2", service: None },
    Package { program: "iptables", name: "iptables", service: None },
    Package { program: "nft", name: "nftables", service: Some("nftables.service") },
    Package { program: "nginx", name: "nginx", service: Some("nginx.service") },
    Package { program: "openssl", name: "openssl", service: None },
    Package { program: "python3", name: "python3", service: None },
    Package { program: "setpriv", name: "util-linux", service: None },
    Package { program: "tshark", name: "tshark", service: None },
    Package { program: "wrk", name: "wrk", service: None },
];

/// What virtual machines with other kernels need: `vm-test` alone asks for these.
const MACHINE_PACKAGES: [Package; 5] = [
    Package { program: "busybox", name: "busybox-static", service: None },
    Package { program: "mount", name: "mount", service: None },
    Package { program: "qemu-system-x86_64", name: "qemu-system-x86", service: None },
    Package { program: "strip", name: "binutils", service: None },
    Package { program: "xz", name: "xz-utils", service: None },
];

/// Which programs a command is about to use.
pub(crate) enum Programs {
    /// All of [`PACKAGES`].
    All,
    /// These, of both lists.
    Only(&'static [&'static str]),
}

impl Programs {
    /// Installs the packages of those programs that are missing.
    pub(crate) fn install(&self) -> Result<()> {
        let missing: Vec<&Package> = PACKAGES
            .iter()
            .chain(&MACHINE_PACKAGES)
            .filter(|package| match self {
                Self::All => PACKAGES.iter().any(|other| other.program == package.program),
                Self::Only(programs) => programs.contains(&package.program),
            })
            .filter(|package| find(package.program).is_none())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
        let names = names.join(" ");
        if !is_root() || find("apt-get").is_none() {
            let programs: Vec<&str> = missing.iter().map(|package| package.program).collect();
            bail!("{} not found: run `sudo apt-get install {names}`", programs.join(", "));
        }
        process::step(&format!("install Debian packages: {names}"), || install(&missing))
    }
}

fn install(packages: &[&Package]) -> Result<()> {
    let _refusal = ServiceRefusal::new(Path::new("/usr/sbin/policy-rc.d"))?;
    process::run(apt_get().arg("update")).context("read the package lists: is there a network?")?;
    process::run(
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages.iter().map(|package| package.name)),
    )?;
    for service in packages.iter().filter_map(|package| package.service) {
        if find("systemctl").is_some() {
            process::run(Command::new("systemctl").args(["disable", "--quiet", service]))?;
        }
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.arg("--quiet=2").env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    apt_get
}

/// Keeps Debian's maintainer scripts from starting services for as long as it lives.
struct ServiceRefusal {
    policy: PathBuf,
    saved: PathBuf,
}

impl ServiceRefusal {
    fn new(policy: &Path) -> Result<Self> {
        let refusal = Self { policy: policy.to_owned(), saved: policy.with_extension("d.before-throttle") };
        // A killed run left its own refusal in place: what was set aside then is still the one to restore.
        if !refusal.saved.exists() {
            match fs::rename(policy, &refusal.saved) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                moved => moved.with_context(|| format!("set {} aside", policy.display()))?,
            }
        }
        // 101 is "action forbidden by policy"; see invoke-rc.d(8).
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        Ok(refusal)
    }
}

impl Drop for ServiceRefusal {
    fn drop(&mut self) {
        let restored = match fs::rename(&self.saved, &self.policy) {
            Err(error) if error.kind() == ErrorKind::NotFound => fs::remove_file(&self.policy),
            moved => moved,
        };
        if let Err(error) = restored {
            let (policy, saved) = (self.policy.display(), self.saved.display());
            eprintln!("{policy} still forbids services to start ({error}): move {saved} back or remove it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_refused_for_a_time_and_what_stood_there_comes_back() {
        let folder = std::env::temp_dir().join(format!("throttle-policy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let policy = folder.join("policy-rc.d");

        let refusal = ServiceRefusal::new(&policy).unwrap();
        assert!(!Command::new(&policy).status().unwrap().success());
        drop(refusal);
        assert!(!policy.exists(), "nothing stood there before");

        fs::write(&policy, "the operator's own").unwrap();
        let refusal = ServiceRefusal::new(&policy).unwrap();
        assert_ne!(fs::read_to_string(&policy).unwrap(), "the operator's own");
        drop(refusal);
        assert_eq!(fs::read_to_string(&policy).unwrap(), "the operator's own");

        fs::remove_dir_all(&folder).unwrap();
    }
}
