//! Every algorithm as its user meets it: set by a command, shown, asked about, and limiting real packets.

use super::{count_of, ends_with};
use anyhow::{Result, ensure};
use std::net::Ipv4Addr;
use throttle_tests::{
    agent::Site,
    needs_root,
    wire::{FAR, Wire},
};

#[test]
fn each_algorithm_is_set_shown_explained_and_kept_to() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.ask(&["mode", "enforce"])?;
    let source = Ipv4Addr::new(198, 51, 100, 7);
    // What is admitted of five at once, and what `explain` says then. From one to the next all is forgotten.
    let cases = [
        ("fixed-window", 3, "3 in each window of 1 h; the bucket of 198.51.100.7: 3 of 3 used, the window ends in "),
        ("leaky-bucket", 1, "no burst; the bucket of 198.51.100.7: room for 0 of 1"),
        (
            "sliding-window",
            3,
            "3 in a sliding window of 1 h; the bucket of 198.51.100.7: 3 used in the window that ends in ",
        ),
        ("token-bucket", 3, "burst 3; the bucket of 198.51.100.7: room for 0 of 3"),
    ];
    for (algorithm, admitted, told) in cases {
        site.ask(&["limit", "set", "few", "--unit", "packets", "--rate", "3/hour", "--algorithm", algorithm])?;
        let passed = count_of(&site, &wire, &[source; 5], |_, outcome| outcome == "pass")?;
        ensure!(passed == admitted, "{algorithm}: {passed} of 5 passed");
        let page = site.ask(&["explain", "198.51.100.7"])?;
        ensure!(page.contains(told) && page.contains("refused by limit few, until "), "{algorithm}: {page}");
        let shown = site.ask(&["limit", "show", "few"])?;
        ensure!(shown.contains(&format!("algorithm   {algorithm}")), "{shown}");
        let list = site.ask(&["limit", "list"])?;
        ensure!(algorithm == "token-bucket" || list.contains(algorithm), "{list}");
        ensure!(
            site.ask(&["top", "--batch", "--iterations", "1"])?.contains("198.51.100.7"),
            "{algorithm}: who talks is not told"
        );
        let exported = site.ask(&["policy", "export"])?;
        ensure!(exported.contains(&format!("algorithm = \"{algorithm}\"")), "{exported}");
    }
    // Another amount in the same window: what is used stays used.
    site.ask(&["limit", "set", "few", "--algorithm", "sliding-window"])?;
    ensure!(count_of(&site, &wire, &[source; 5], |_, outcome| outcome == "pass")? == 3);
    site.ask(&["limit", "set", "few", "--rate", "5/hour"])?;
    ensure!(count_of(&site, &wire, &[source; 5], |_, outcome| outcome == "pass")? == 2);
    // What makes no sense changes nothing, and says why.
    let said = ends_with(&site, 2, &["limit", "set", "few", "--burst", "9"])?;
    ensure!(said.contains("a window has no burst") && said.contains("token-bucket"), "{said}");
    ensure!(!site.ask(&["limit", "show", "few"])?.contains("9 at once"));
    Ok(())
}
