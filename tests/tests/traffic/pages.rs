//! What a refused client of a plain HTTP service sees: 429 with a sensible `Retry-After`, not a reset and not a timeout.

use super::far;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use throttle_tests::{
    agent::Site,
    clients::wrk_within,
    generator::Sender,
    machine, needs_root,
    nginx::Server,
    say,
    upstreams::Losses,
    wire::{FAR, FAR_V4, FAR_V6, NEAR, NEAR_V4, Wire},
};

/// Of a hundred packets, in each direction.
const PERCENT: u32 = 2;

/// Python's own client: so many requests of each size at once in so many threads. It prints how many were answered with 429 and a
/// `Retry-After` within the bounds, and what became of the others.
const PYTHON: &str = r"
import collections, http.client, sys, threading
host, tries, threads, least, most = sys.argv[1], *map(int, sys.argv[2:6])
sizes = [int(size) for size in sys.argv[6:]]
ends, lock = collections.Counter(), threading.Lock()
def ask(size):
    try:
        client = http.client.HTTPConnection(host, 80, timeout=60)
        client.request('POST' if size else 'GET', '/', body=b'x' * size if size else None)
        answer = client.getresponse()
        body = answer.read()
        wait = int(answer.getheader('Retry-After'))
        client.close()
        right = answer.status == 429 and least <= wait <= most and body == b'busy\n' and answer.getheader('X-Reason') == 'limit'
        return 'told' if right else f'{answer.status} {wait} {body}'
    except Exception as error:
        return repr(error)
def work(number):
    for index in range(number, tries, threads):
        end = ask(sizes[index % len(sizes)])
        with lock: ends[end] += 1
workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
print(ends['told'])
del ends['told']
print(dict(ends))
";

fn policy(rate: &str) -> String {
    format!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n\
         [service.http]\nbody = \"busy\\n\"\nheaders = {{ X-Reason = \"limit\" }}\n\
         [[limit]]\nname = \"opens\"\nservice = \"web\"\nunit = \"connections\"\nrate = \"{rate}\"\naction = \"reject\"\n\
         [answers]\nrate = \"10000000/s\"\n"
    )
}

/// A wire with a near end that takes what the far driver sends back.
fn wire() -> Result<(Wire, Sender)> {
    let wire = Wire::new()?;
    let near = Sender::on(&wire)?;
    Ok((wire, near))
}

/// curl on the near host, with these arguments; gives what it writes out.
fn curl(wire: &Wire, arguments: &[&str]) -> Result<String> {
    let mut curl = wire.near.command("curl");
    curl.args(["--silent", "--show-error", "--output", "/dev/null", "--noproxy", "*", "--max-time", "60"]);
    machine::run(curl.args(arguments).env_remove("http_proxy")).context("run curl; is it installed?")
}

/// So many of Python's requests, of these sizes in turns; gives how many were told.
fn python(wire: &Wire, tries: u32, threads: u32, [least, most]: [u32; 2], sizes: &[&str]) -> Result<u32> {
    let mut python = wire.near.command("python3");
    let numbers = [tries, threads, least, most].map(|number| number.to_string());
    let said = machine::run(python.args(["-c", PYTHON, FAR_V4]).args(numbers).args(sizes)).context("run python3")?;
    let (told, others) = said.trim().split_once('\n').context("python prints two lines")?;
    if others != "{}" {
        say!("not told: {others}");
    }
    Ok(told.parse()?)
}

#[test]
fn a_refused_client_is_told_when_to_come_back_and_not_reset() -> Result<()> {
    needs_root!();
    let (wire, _near) = wire()?;
    let _server = Server::on(&wire.far)?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    site.apply(&policy("1/hour"))?;
    let status = ["--write-out", "%{http_code} %header{retry-after}\n"];
    let mut told = 0;
    for server in [format!("http://{FAR_V4}/"), format!("http://[{FAR_V6}]/")] {
        let first = curl(&wire, &[&status[..], &[&server]].concat())?;
        ensure!(first.starts_with("200"), "the first connection met {first}");
        // The second kind is a request of 35 bytes: its frame has to grow by far more than lies behind it.
        for arguments in
            [&[][..], &["--user-agent", "", "--header", "Accept:"], &["--http1.0"], &["--head"], &["--data", "x"]]
        {
            let many = "100";
            let urls = vec![server.as_str(); many.parse()?];
            // A connection for each.
            let arguments = [arguments, &status, &["--no-keepalive", "--header", "Connection: close"], &urls].concat();
            let said = curl(&wire, &arguments)?;
            let right = |line: &&str| {
                line.split_once(' ').is_some_and(|(status, wait)| {
                    status == "429" && wait.parse::<u32>().is_ok_and(|wait| (1..=3600).contains(&wait))
                })
            };
            let count = said.lines().filter(right).count();
            ensure!(count == urls.len(), "{count} of {} curls were told: {said}", urls.len());
            told += count;
        }
    }
    let sizes = ["0", "0", "0", "0", "0", "0", "0", "100", "10000", "200000"];
    let python = python(&wire, 400, 4, [3000, 3600], &sizes)?;
    ensure!(python == 400, "{python} of 400 of Python's requests were told");
    let wrk = wrk_within(&wire.near, far(FAR_V4), Duration::from_secs(2), 16, Duration::from_secs(2))?;
    ensure!(
        wrk.served > 100 && wrk.failed == wrk.served,
        "wrk: {wrk:?}: each is answered, and none with a page of nginx's"
    );
    let (pages, losses) = (site.status()?.pages, site.status()?.losses);
    ensure!(pages.cut == 0 && losses.answers_withheld == 0 && losses.answers_undue == 0, "{pages:?} {losses:?}");
    ensure!(pages.told >= told as u64 + 400 + wrk.served, "{pages:?}");
    say!("pages: {told} curls, {python} of Python's requests and {} of wrk's were told 429: {pages:?}", wrk.served);
    Ok(())
}

#[test]
fn a_refused_client_is_told_though_packets_get_lost() -> Result<()> {
    needs_root!();
    let tries = machine::amount(1000, 10_000);
    let (wire, _near) = wire()?;
    let _server = Server::on(&wire.far)?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    site.apply(&policy("1/hour"))?;
    let first = curl(&wire, &["--write-out", "%{http_code}", &format!("http://{FAR_V4}/")])?;
    ensure!(first == "200", "the first connection met {first}");
    let seed = machine::monotonic();
    let counted = NEAR_V4.parse()?;
    let cables = [
        Losses::leaving(&wire.near, NEAR, PERCENT, counted, seed)?,
        Losses::at(&wire.near, NEAR, PERCENT, counted, seed + 50)?,
    ];
    let sizes = ["0", "0", "0", "0", "0", "0", "0", "0", "100", "10000"];
    let told = python(&wire, tries, 64, [1, 3600], &sizes)?;
    for (cable, way) in cables.iter().zip(["there", "back"]) {
        let so_far = cable.so_far()?;
        say!("pages: {} of {} packets got lost on the way {way} (seed {seed})", so_far.lost, so_far.packets);
        ensure!(so_far.lost * 100 > so_far.packets, "hardly any packet got lost: {so_far:?}");
    }
    say!(
        "pages: {told} of {tries} requests were told 429 with {PERCENT} % of the packets lost each way: {:?}",
        site.status()?.pages
    );
    ensure!(told * 1000 >= tries * 999, "{told} of {tries} requests were told");
    Ok(())
}

#[test]
fn who_comes_back_when_it_is_told_is_served() -> Result<()> {
    needs_root!();
    let (wire, _near) = wire()?;
    let _server = Server::on(&wire.far)?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    // One at once, and one every three seconds.
    site.apply(&policy("20/min").replace("rate = \"20/min\"\n", "rate = \"20/min\"\nburst = 1\n"))?;
    let server = format!("http://{FAR_V4}/");
    let first = curl(&wire, &["--write-out", "%{http_code}", &server])?;
    ensure!(first == "200", "the first connection met {first}");
    for round in 0..3 {
        let start = Instant::now();
        // With `--fail` it does not write the body of an answer that it comes back from, which it would have to take back.
        let said = curl(&wire, &["--fail", "--retry", "1", "--write-out", "%{http_code}", &server])?;
        let took = start.elapsed();
        ensure!(said == "200", "round {round}: curl ended with {said} after {took:?}");
        ensure!((2..5).contains(&took.as_secs()), "round {round}: curl came back after {took:?}");
    }
    let tallies = site.limit("opens")?.tallies;
    ensure!(tallies.admitted.packets == 4 && tallies.refused.packets == 3, "{tallies:?}");
    Ok(())
}
