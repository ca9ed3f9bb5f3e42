//! Builds the kernel programs; the library includes the object from `THROTTLE_OBJECT`.

#[path = "build/object.rs"]
mod object;

fn main() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../throttle-ebpf");
    println!("cargo::rustc-env=THROTTLE_OBJECT={}", object::build(&directory, "throttle").display());
}
