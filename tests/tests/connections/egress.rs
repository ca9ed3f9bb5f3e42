//! The program that sees packets leave: by a link, or by a filter of clsact as on kernels before Linux 6.6. It leaves
//! with all that it brought, and nothing else; and while it is replaced no packet leaves unseen.

use super::{
    eventually,
    host::Host,
    router::{Router, Way},
};
use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{
        SchedClassifier, TcAttachType,
        tc::{NlOptions, TcAttachOptions, TcHandle},
    },
};
use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Instant,
};
use throttle_agent::datapath::{Drift, Egress, Mode, doctor};
use throttle_tests::{
    filters::{filters, has_discipline},
    kernel,
    machine::{self, egresses},
    needs_root, say,
    wire::{FAR, Wire},
};

/// Where the filter stands, as the pages say.
const PRIORITY: u16 = 60_000;
const HANDLE: u16 = 1;

/// How many programs see what leaves, by links and by filters.
pub(super) fn programs(wire: &Wire) -> Result<usize> {
    let links = wire.far.enter(|| SchedClassifier::query_tcx(FAR, TcAttachType::Egress))?;
    Ok(links.map_or(0, |(_, programs)| programs.len()) + filters(&wire.far, FAR, "egress")?.len())
}

/// Adds the discipline.
fn clsact(wire: &Wire) -> Result<()> {
    wire.far.enter(|| aya::programs::tc::qdisc_add_clsact(FAR))?.context("add clsact")
}

/// Adds a filter of somebody else's, which is there until this is dropped.
fn another(wire: &Wire, direction: TcAttachType, priority: u16) -> Result<Ebpf> {
    let mut object = kernel::load(64)?;
    let program: &mut SchedClassifier = object.program_mut("count").context("no program count")?.try_into()?;
    program.load()?;
    let place = NlOptions { priority, handle: TcHandle::new(0, HANDLE), ..NlOptions::default() };
    wire.far.enter(|| program.attach_with_options(FAR, direction, TcAttachOptions::Netlink(place)))??;
    Ok(object)
}

#[test]
fn a_filter_says_whose_it_is_and_leaves_with_the_discipline_that_it_brought() -> Result<()> {
    needs_root!();
    let mut host = Host::seeing_by(Egress::Clsact)?;
    let egress = host.act(|datapath| Ok(datapath.attachments()?.pop().context("attached")?.egress))?;
    ensure!(egress == Some(Egress::Clsact) && host.unseen().is_empty(), "{egress:?}, {:?}", host.unseen());
    let found = filters(&host.wire.far, FAR, "egress")?;
    let name = format!("throttle+clsact:{}", host.pin_dir().display());
    ensure!(found.len() == 1 && found[0]["options"]["bpf_name"] == name.as_str(), "{found:?}");
    ensure!(found[0]["pref"] == PRIORITY && found[0]["options"]["handle"] == "0x1", "{found:?}");
    let pin_dir = host.pin_dir();
    let findings = host.act(|_| Ok(doctor::examine(&[FAR.to_owned()], &pin_dir)))?;
    for (subject, says) in [("kernel", "has filters on what leaves (clsact)"), (FAR, "sees what leaves (clsact)")] {
        let said = findings.iter().any(|finding| finding.subject == subject && finding.text.starts_with(says));
        ensure!(said, "{subject} {says}: {findings:#?}");
    }
    host.detach()?;
    ensure!(!has_discipline(&host.wire.far, FAR, "clsact")?, "it was brought along");
    Ok(())
}

#[test]
fn the_discipline_and_the_filters_of_others_stay_as_they_are() -> Result<()> {
    needs_root!();
    // One that is there already.
    let host = Host::on(clsact)?;
    let name = format!("throttle:{}", host.pin_dir().display());
    ensure!(filters(&host.wire.far, FAR, "egress")?[0]["options"]["bpf_name"] == name.as_str());
    host.detach()?;
    ensure!(has_discipline(&host.wire.far, FAR, "clsact")? && programs(&host.wire)? == 0, "it was there before");
    // One that others come to use.
    for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
        let host = Host::seeing_by(Egress::Clsact)?;
        let theirs = another(&host.wire, direction, 1)?;
        let show = || {
            Ok::<_, anyhow::Error>(
                [filters(&host.wire.far, FAR, "ingress")?, filters(&host.wire.far, FAR, "egress")?].concat(),
            )
        };
        let before = show()?;
        host.detach()?;
        let left: Vec<_> = before.into_iter().filter(|filter| filter["pref"] != PRIORITY).collect();
        ensure!(left.len() == 1 && show()? == left, "{direction:?}: {left:?}");
        drop(theirs);
    }
    Ok(())
}

#[test]
fn what_has_our_place_is_left_alone_and_it_is_said() -> Result<()> {
    needs_root!();
    let mut theirs = None;
    let host = Host::on(|wire| {
        clsact(wire)?;
        theirs = Some(another(wire, TcAttachType::Egress, PRIORITY)?);
        Ok(())
    })?;
    let unseen = host.unseen();
    ensure!(matches!(unseen[..], [(FAR, reason)] if reason.contains("somebody else")), "{unseen:?}");
    let before = filters(&host.wire.far, FAR, "egress")?;
    host.detach()?;
    ensure!(before.len() == 1 && filters(&host.wire.far, FAR, "egress")? == before, "{before:?}");
    Ok(())
}

#[test]
fn a_filter_that_somebody_removed_is_put_back() -> Result<()> {
    needs_root!();
    let mut host = Host::seeing_by(Egress::Clsact)?;
    machine::run(host.wire.far.command("tc").args(["qdisc", "delete", "dev", FAR, "clsact"]))?;
    ensure!(programs(&host.wire)? == 0);
    host.act(|datapath| datapath.reattach(Instant::now()))?;
    ensure!(programs(&host.wire)? == 1 && host.unseen().is_empty(), "{:?}", host.unseen());
    host.detach()?;
    ensure!(!has_discipline(&host.wire.far, FAR, "clsact")?);
    Ok(())
}

type Connect<'a> = dyn Fn() -> Result<(TcpStream, TcpStream)> + 'a;

/// Has the program replaced for as long as `traffic` takes. Gives how often, and what came of the traffic.
fn replacing<T: Send>(router: &mut Router, traffic: impl FnOnce(&Connect<'_>) -> Result<T> + Send) -> Result<(u32, T)> {
    let done = AtomicBool::new(false);
    let near = router.host.wire.near.entry()?;
    let Router { listener, host, to, .. } = router;
    let connect = || Ok((TcpStream::connect(*to).context("connect")?, listener.accept().context("accept")?.0));
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let outcome = near.enter().and_then(|()| traffic(&connect));
            done.store(true, SeqCst);
            outcome
        });
        let mut replaced = 0;
        while !done.load(SeqCst) {
            host.act(|datapath| datapath.attach(FAR, Mode::Native))?;
            replaced += 1;
        }
        Ok((replaced, traffic.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?))
    })
}

#[test]
fn no_packet_leaves_unseen_while_the_program_is_replaced() -> Result<()> {
    needs_root!();
    for egress in egresses() {
        let Some(mut router) = Router::new(egress, Way::Route)? else { continue };
        router.limit(1000)?;
        let mut open = Vec::new();
        let (replaced, ()) = replacing(&mut router, |connect| {
            for _ in 0..300 {
                open.push(connect()?);
            }
            Ok(())
        })?;
        ensure!(router.host.open(0) == 300, "{egress}: {} of 300 hold places", router.host.open(0));
        let (again, ()) = replacing(&mut router, |_| {
            drop(open);
            Ok(())
        })?;
        say!("{egress}: replaced {} times", replaced + again);
        eventually(&0, || Ok(router.host.open(0))).with_context(|| egress.to_string())?;
        ensure!(router.host.reconcile()? == Drift::default() && programs(&router.host.wire)? == 1, "{egress}");
        router.host.detach()?;
        ensure!(programs(&router.host.wire)? == 0, "{egress}: nothing of ours is left");
    }
    Ok(())
}
