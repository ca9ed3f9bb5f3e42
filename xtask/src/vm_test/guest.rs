//! What runs inside a machine: its first root file system, and the script that does everything and switches it off.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::kernels::{Kernel, Module};
use super::newc::Archive;
use crate::{process, setup};

/// How a line of the script's own begins, among those of the kernel and of what the script runs.
pub(super) const SIGN: &str = "vm-test: ";

/// Programs of this machine that the tests call; busybox has too little of them.
const PROGRAMS: [&str; 7] = ["bash", "ip", "mount", "nft", "ss", "tc", "umount"];
/// Modules that the tests need, where they are not built in: interfaces and classifiers, the list of sockets, and the
/// translation of addresses, whose checksum is a module that no other one names.
const MODULES: [&str; 9] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "tcp_diag",
    "crc32c_generic",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
];

/// One command of the script, and what must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// What the table and the script call it.
    pub(super) name: String,
    /// A line of shell.
    pub(super) command: String,
    /// The code that it must end with.
    pub(super) code: u8,
    /// What it must print.
    pub(super) prints: &'static str,
}

/// Something of this machine that every other one gets under `/tests`, with the libraries that it needs.
pub(super) struct Binary {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// Where a binary is inside.
pub(super) fn place(name: &str) -> String {
    format!("/tests/{name}")
}

/// The part of the root file system that all machines share: programs, libraries, what is to be tested.
pub(super) fn common(binaries: &[Binary]) -> Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    for folder in ["/proc", "/sys", "/dev", "/run", "/tmp", "/bin", "/root"] {
        archive.folder(folder)?;
    }
    archive.device("/dev/console", 5, 1)?;
    let mut libraries = BTreeSet::new();
    let mut add = |path: &Path, inside: &str| -> Result<()> {
        libraries.extend(needed_libraries(path)?);
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(archive.file(inside, &bytes)?)
    };
    add(&program("busybox")?, "/bin/busybox")?;
    for name in PROGRAMS {
        add(&program(name)?, &format!("/tools/{name}"))?;
    }
    for binary in binaries {
        add(&binary.path, &place(&binary.name))?;
    }
    for library in libraries {
        archive.file(&library, &fs::read(&library).with_context(|| format!("read {library}"))?)?;
    }
    Ok(archive.finish()?)
}

/// Writes the root file system of one machine.
pub(super) fn write(file: &Path, common: &[u8], kernel: &Kernel, steps: &[Step]) -> Result<()> {
    let modules = kernel.modules(&MODULES)?;
    let out = File::create(file).with_context(|| format!("write {}", file.display()))?;
    let mut out = BufWriter::new(out);
    out.write_all(common)?;
    let mut archive = Archive::new(out);
    for Module { name, bytes } in &modules {
        archive.file(&format!("/modules/{name}.ko"), bytes)?;
    }
    let modules: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    archive.file("/init", script(&modules, steps).as_bytes())?;
    Ok(archive.finish()?.flush()?)
}

/// What the kernel starts, and waits for.
fn script(modules: &[&str], steps: &[Step]) -> String {
    let mut script = String::from(
        "#!/bin/busybox sh\n\
         export PATH=/tools:/bin HOME=/root RUST_BACKTRACE=0 NO_COLOR=1\n\
         export THROTTLE_BIN=/tests/throttle\n\
         /bin/busybox --install -s /bin\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs devtmpfs /dev\n\
         mount -t tmpfs tmpfs /run\n\
         mount -t tmpfs tmpfs /tmp\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mount -t debugfs debugfs /sys/kernel/debug\n\
         ip link set lo up\n",
    );
    let mut say = |what: &str| _ = writeln!(script, "{what}");
    for module in modules {
        say(&format!("insmod /modules/{module}.ko"));
    }
    say(&format!("echo \"{SIGN}kernel $(uname -r) $(uname -v)\""));
    for Step { name, command, .. } in steps {
        say(&format!("echo '{SIGN}begin {name}'\n{command}\necho \"{SIGN}end {name} $?\""));
    }
    say(&format!("echo '{SIGN}over'\npoweroff -f"));
    script
}

fn program(name: &str) -> Result<PathBuf> {
    setup::find(name).with_context(|| format!("{name} not found: run `cargo xtask setup`"))
}

/// The shared libraries of a program, and what loads them.
fn needed_libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("run `ldd`, which comes with the C library")?;
    // A program that needs none is not "dynamic" to it, which it ends with 1 for.
    let said = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = said.lines().find(|line| line.contains("not found")) {
        anyhow::bail!("{} cannot run here: {}", program.display(), missing.trim());
    }
    Ok(libraries(&said))
}

/// The paths in what ldd(1) prints: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the loader.
fn libraries(said: &str) -> Vec<String> {
    let path = |line: &str| {
        let line = line.split_once("=>").map_or(line, |(_, path)| path);
        line.split_whitespace().next().filter(|word| word.starts_with('/')).map(str::to_owned)
    };
    said.lines().filter_map(path).collect()
}

/// Removes what only debuggers read: the machine unpacks everything into memory.
pub(super) fn strip(binary: &Path, into: &Path) -> Result<()> {
    process::run(Command::new("strip").arg("--strip-debug").arg("-o").arg(into).arg(binary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(libraries(said), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn the_script_runs_every_step_between_two_lines_and_ends_the_machine() {
        let step = |name: &str, command: &str| Step {
            name: name.to_owned(),
            command: command.to_owned(),
            code: 0,
            prints: "",
        };
        let script = script(&["veth"], &[step("one", "/tests/one"), step("two", "/tests/two --some")]);
        let expected = "insmod /modules/veth.ko\n\
                        echo \"vm-test: kernel $(uname -r) $(uname -v)\"\n\
                        echo 'vm-test: begin one'\n/tests/one\necho \"vm-test: end one $?\"\n\
                        echo 'vm-test: begin two'\n/tests/two --some\necho \"vm-test: end two $?\"\n\
                        echo 'vm-test: over'\npoweroff -f\n";
        assert!(script.ends_with(expected), "{script}");
    }
}
