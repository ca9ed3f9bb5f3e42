//! Builds the kernel programs of the tests; the library includes the object from `THROTTLE_TESTS_OBJECT`.

#[path = "../throttle-agent/build/object.rs"]
mod object;

fn main() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ebpf");
    println!("cargo::rustc-env=THROTTLE_TESTS_OBJECT={}", object::build(&directory, "throttle-tests-ebpf").display());
}
