//! Builds a kernel program: shared by the build scripts of every package that carries one.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the binary `name` of the package `package`, whose folder is given from the package that is being built, and
/// gives the path of the object.
///
/// The toolchain is the one that runs this build; `RUSTC_BOOTSTRAP` lets it build `core` for the kernel. `cpu=v3` has
/// the atomics that return a value.
pub(crate) fn build(folder: &str, package: &str, name: &str) -> PathBuf {
    // Asked when this runs: what the compiler knew is where this was compiled, and a target directory may be copied
    // to another checkout, whose sources it is then to watch and to build.
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let workspace = here.parent().expect("every package lies in the workspace");
    let linker = linker(workspace);
    for watched in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={folder}/{watched}");
    }
    // Relative for the same reason. The shared package takes its version and its dependencies from the workspace.
    for watched in ["throttle-common/src", "throttle-common/Cargo.toml", "Cargo.toml"] {
        println!("cargo::rerun-if-changed=../{watched}");
    }
    println!("cargo::rerun-if-changed={}", linker.display());
    println!("cargo::rerun-if-env-changed=THROTTLE_BPF_LINKER");

    let out = PathBuf::from(variable("OUT_DIR"));
    // TARGET/PROFILE/build/PACKAGE/out. One place for all profiles and packages: most of the time goes to `core`, which is
    // the same for all.
    let builds = out.ancestors().nth(2).filter(|folder| folder.ends_with("build")).expect("OUT_DIR is as cargo's are");
    let target_dir = builds.join("../../kernel");
    fs::create_dir_all(&target_dir).expect("a folder in cargo's can be made");
    let lock = File::create(target_dir.join("lock")).expect("a file in our folder can be made");
    lock.lock().expect("a file of ours can be locked");
    let arch = variable("CARGO_CFG_TARGET_ARCH").into_string().expect("the name of an architecture is text");
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Ctarget-cpu=v3".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(variable("CARGO"));
        command
            .current_dir(here.join(folder))
            .args(arguments)
            .args(["--release", "--target", TARGET, "--target-dir"])
            .arg(&target_dir)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            // What cargo and clippy set for the host's build is not meant for the kernel's.
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("RUSTFLAGS");
        let status = command.status().expect("cargo runs, since it runs this");
        assert!(status.success(), "building the kernel program in {folder} failed: {command:?}: {status}");
    };
    // This runs because something changed, and it need not be what the cargo below would notice: the linker, or a
    // source that is older than what was built of another.
    if target_dir.join(TARGET).exists() {
        cargo(&["clean", "--quiet", "--package", package, "--package", "throttle-common"]);
    }
    cargo(&["build", "-Z", "build-std=core", "--bin", name]);
    // What another build makes there later is none of this one's.
    let object = out.join(name);
    fs::copy(target_dir.join(TARGET).join("release").join(name), &object).expect("what was built can be copied");
    object
}

/// What cargo tells every build script.
fn variable(name: &str) -> std::ffi::OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"))
}

/// The linker for kernel programs: the one named, the workspace's own, or the one on PATH.
fn linker(workspace: &Path) -> PathBuf {
    if let Some(named) = env::var_os("THROTTLE_BPF_LINKER") {
        return named.into();
    }
    let own = workspace.join("target/tools/bin/bpf-linker");
    let search = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&search).map(|folder| folder.join("bpf-linker"));
    std::iter::once(own).chain(on_path).find(|candidate| candidate.is_file()).unwrap_or_else(|| {
        panic!(
            "bpf-linker is neither in target/tools/bin nor on PATH; run `cargo xtask setup`, or name one in \
             THROTTLE_BPF_LINKER"
        )
    })
}
