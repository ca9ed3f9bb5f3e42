//! Builds a kernel program: shared by the build scripts of every package that carries one.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the binary `name` of the package in `directory` and gives the path of the object.
///
/// The toolchain is the one that runs this build; `RUSTC_BOOTSTRAP` lets it build `core` for the kernel. `cpu=v3` has
/// the atomics that return a value.
pub(crate) fn build(directory: &Path, name: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("every package lies in the workspace");
    for watched in [directory, &workspace.join("throttle-common")] {
        println!("cargo::rerun-if-changed={}", watched.join("src").display());
        println!("cargo::rerun-if-changed={}", watched.join("Cargo.toml").display());
    }
    println!("cargo::rerun-if-env-changed=THROTTLE_BPF_LINKER");
    let target_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("kernel");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Ctarget-cpu=v3".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker(workspace).display()),
    ];
    let status = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"))
        .current_dir(directory)
        .args(["build", "--release", "--target", TARGET, "-Z", "build-std=core", "--bin", name, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // What cargo and clippy set for the host's build is not meant for the kernel's.
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .status()
        .expect("cargo runs, since it runs this");
    assert!(status.success(), "building the kernel program in {} failed: {status}", directory.display());
    target_dir.join(TARGET).join("release").join(name)
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
