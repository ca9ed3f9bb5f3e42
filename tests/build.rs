//! Builds the kernel programs of the tests; the library includes the object from `THROTTLE_TESTS_OBJECT`.

#[path = "../throttle-agent/build/object.rs"]
mod object;

fn main() {
    let object = object::build("ebpf", "throttle-tests-ebpf", "throttle-tests-ebpf");
    println!("cargo::rustc-env=THROTTLE_TESTS_OBJECT={}", object.display());
}
