//! Loading the programs where something disturbs it.

use std::{
    os::unix::thread::JoinHandleExt as _,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use throttle_agent::datapath::{Datapath, OBJECT};
use throttle_tests::{loops, needs_root, pins::Pins, say, stack};

use super::options;

static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(_: libc::c_int) {
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn the_programs_are_loaded_though_signals_keep_coming() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let options = options(&pins);
    // SAFETY: the handler only adds to an atomic.
    let before = unsafe { libc::signal(libc::SIGUSR2, note as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    ensure!(before != libc::SIG_ERR, "handle a signal: {}", std::io::Error::last_os_error());
    let loading = thread::spawn(move || {
        // The signals begin before the verifier does.
        thread::sleep(Duration::from_millis(20));
        Datapath::open(&options).map(drop)
    });
    let target = loading.as_pthread_t();
    let mut sent = 0;
    while !loading.is_finished() {
        // SAFETY: the thread is not joined yet, so its number is its own.
        unsafe { libc::pthread_kill(target, libc::SIGUSR2) };
        sent += 1;
        thread::sleep(Duration::from_millis(2));
    }
    let loaded = loading.join().map_err(|_| anyhow::anyhow!("the loading thread panicked"))?;
    say!("{sent} signals were sent while the programs were loaded, {} were caught", CAUGHT.load(Ordering::Relaxed));
    loaded.context("load the programs")?;
    ensure!(CAUGHT.load(Ordering::Relaxed) > 0, "no signal came");
    Ok(())
}

#[test]
fn no_chain_of_calls_needs_more_stack_than_the_oldest_kernel_gives() -> Result<()> {
    let (bytes, chain) = stack::deepest(OBJECT)?;
    say!("{bytes} bytes: {chain:?}");
    ensure!(bytes <= stack::MOST, "{bytes} of {} bytes: {chain:?}", stack::MOST);
    Ok(())
}

#[test]
fn no_loop_is_one_that_the_oldest_kernel_refuses() -> Result<()> {
    let refused = loops::refused(OBJECT)?;
    ensure!(refused.is_empty(), "the last instruction of a loop falls into its first one: {refused:?}");
    Ok(())
}
