//! The helpers of the kernel that a packet calls on its way, counted where the kernel lets its function tracer be used.

use anyhow::{Result, ensure};
use throttle_tests::{
    calls::Tracer,
    needs_root,
    paths::{PATHS, frame},
    say,
};

#[test]
fn a_packet_of_a_known_source_reads_the_clock_and_looks_nothing_up() -> Result<()> {
    needs_root!();
    if let Err(why) = Tracer::new().and_then(|tracer| tracer.calls(|| Ok(()))) {
        say!("skipped helper calls: {why:#}");
        return Ok(());
    }
    say!("\n| a packet that is | helpers it calls |\n|---|---|");
    for path in &PATHS {
        let program = path.program()?;
        let frame = frame();
        program.datapath.test_run(&frame, 1)?;
        path.check(&program, &frame)?;
        let calls = path.calls(&program, &frame)?;
        let said: Vec<_> = calls.iter().map(|(name, count)| format!("{count} {name}")).collect();
        say!("| {} | {} |", path.name, if said.is_empty() { "none".to_owned() } else { said.join(", ") });
        // An event, which is reported now and then, has a time of its own. An array's element is not looked up, though before
        // Linux 6.10 it is called for.
        let reports = calls.iter().any(|(name, _)| name == "bpf_ringbuf_reserve");
        let is_fine = |(name, count): &(String, u32)| match name.as_str() {
            "bpf_ktime_get_ns" => *count <= 1 + u32::from(reports),
            name => !["htab", "trie"].iter().any(|map| name.contains(map)),
        };
        ensure!(calls.iter().all(is_fine), "{}: {said:?}", path.name);
    }
    Ok(())
}
