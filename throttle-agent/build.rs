//! Builds the kernel programs; the library includes the object from `THROTTLE_OBJECT`.

#[path = "build/object.rs"]
mod object;

fn main() {
    let object = object::build("../throttle-ebpf", "throttle-ebpf", "throttle");
    println!("cargo::rustc-env=THROTTLE_OBJECT={}", object.display());
}
