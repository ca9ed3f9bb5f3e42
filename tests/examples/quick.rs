use throttle_tests::{frames::Frame, machine, program::Program};
fn main() -> anyhow::Result<()> {
    machine::pin_to(1)?;
    let mut p = Program::live("mode = \"enforce\"")?;
    let f = Frame::v4([198, 51, 100, 7]).length(60).bytes();
    for (n, pol) in [
        ("none", "mode = \"enforce\""),
        ("hot", "mode = \"enforce\"\n[[limit]]\nname=\"l\"\nunit=\"packets\"\nrate=\"100000000/s\"\nburst=1000000\n"),
        ("refused", "mode = \"enforce\"\n[[limit]]\nname=\"l\"\nunit=\"packets\"\nrate=\"1/min\"\n"),
        (
            "noevents",
            "mode = \"enforce\"\n[events]\nrate=\"0/s\"\n[[limit]]\nname=\"l\"\nunit=\"packets\"\nrate=\"1/min\"\n",
        ),
    ] {
        p.apply(pol)?;
        for rep in [1u32, 16, 1000, 100_000, 1_000_000] {
            let t = machine::monotonic();
            let r = p.datapath.test_run(&f, rep)?;
            let el = machine::monotonic() - t;
            println!("{n} {rep}: {} ns, wall {} each", r.nanos, el / u64::from(rep));
        }
    }
    Ok(())
}
