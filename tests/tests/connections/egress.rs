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
    fs::{self, File},
    net::TcpStream,
    path::PathBuf,
    process::Child,
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

/// Replacements that traffic goes on beside, and connections that it opens at most: a process may have 1024 descriptors.
const REPLACEMENTS: usize = 30;
const MOST: usize = 300;

#[test]
fn no_packet_leaves_unseen_while_the_program_is_replaced() -> Result<()> {
    needs_root!();
    for egress in egresses() {
        let Some(mut router) = Router::new(egress, Way::Route)? else { continue };
        router.limit(1000)?;
        let monitor = Monitor::of(&router.host)?;
        let open = replace_amid_traffic(&mut router)?;
        let deleted = monitor.deleted(&router.host)?;
        ensure!(deleted.is_empty(), "{egress}: it was removed to be replaced: {deleted:?}");
        say!("{egress}: {} connections opened while the program was replaced {REPLACEMENTS} times", open.len());
        // One that was not seen to be answered has no place.
        let places = router.host.open(0);
        ensure!(places == open.len() as u64, "{egress}: {places} of {} hold places", open.len());
        drop(open);
        eventually(&0, || Ok(router.host.open(0))).with_context(|| egress.to_string())?;
        ensure!(router.host.reconcile()? == Drift::default() && programs(&router.host.wire)? == 1, "{egress}");
        router.host.detach()?;
        ensure!(programs(&router.host.wire)? == 0, "{egress}: nothing of ours is left");
    }
    Ok(())
}

/// Hears what becomes of the filters of the throttled host, from tc(8).
struct Monitor {
    process: Child,
    heard: PathBuf,
}

impl Monitor {
    /// Listens; its words go to a file.
    fn of(host: &Host) -> Result<Self> {
        let heard = host.file("filters");
        let output = File::create(&heard)?;
        let process = host.wire.far.command("tc").arg("monitor").stdout(output).spawn().context("run tc")?;
        let monitor = Self { process, heard };
        monitor.hears_a_change(host)?;
        Ok(monitor)
    }

    /// Changes something on the loopback until that is heard: it listens, and has said all that was before.
    fn hears_a_change(&self, host: &Host) -> Result<()> {
        let heard = || Ok(fs::read_to_string(&self.heard)?.matches("dev lo").count());
        let before: usize = heard()?;
        super::wait_for(|| {
            for act in ["add", "delete"] {
                machine::run(host.wire.far.command("tc").args(["qdisc", act, "dev", "lo", "clsact"]))?;
            }
            heard().map(|now| now > before)
        })
    }

    /// What was deleted on the throttled interface.
    fn deleted(mut self, host: &Host) -> Result<Vec<String>> {
        self.hears_a_change(host)?;
        self.process.kill()?;
        self.process.wait()?;
        let heard = fs::read_to_string(&self.heard)?;
        let deleted = heard.lines().filter(|line| line.starts_with("deleted") && line.contains(FAR));
        Ok(deleted.map(str::to_owned).collect())
    }
}

/// Opens connections, one after the other, while the program is replaced.
fn replace_amid_traffic(router: &mut Router) -> Result<Vec<(TcpStream, TcpStream)>> {
    let done = AtomicBool::new(false);
    let near = router.host.wire.near.entry()?;
    let Router { listener, host, to, .. } = router;
    thread::scope(|scope| {
        let traffic = scope.spawn(|| -> Result<_> {
            near.enter()?;
            let mut open = Vec::new();
            while !done.load(SeqCst) && open.len() < MOST {
                let client = TcpStream::connect(*to).context("connect")?;
                open.push((client, listener.accept().context("accept")?.0));
            }
            Ok(open)
        });
        let replaced = (0..REPLACEMENTS).try_for_each(|_| host.act(|it| it.attach(FAR, Mode::Native)).map(drop));
        done.store(true, SeqCst);
        let traffic = traffic.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        replaced.and(traffic)
    })
}
