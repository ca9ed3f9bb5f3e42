//! The words and the arithmetic that the kernel programs and the agent share.
//!
//! Everything here is pure: state and `now` in, new state and decision out. The kernel programs and the agent read the
//! same bytes ([`records`]), take the same decisions ([`services`], [`limits`], [`table`], [`gcra`]) and see the same
//! packet ([`packet`]).
//!
//! # Glossary
//!
//! One word per idea, everywhere:
//!
//! - **source**: an IPv4 address or an IPv6 prefix (a /64 unless a limit says otherwise) that sends to this host.
//! - **service**: a named protocol, set of ports and optional destination prefix on this host.
//! - **limit**: a named bound on what one source may do: a unit, a rate, a burst, an action.
//! - **bucket**: what a limit remembers of one source: a single number, the theoretical arrival time ([`gcra`]).
//! - **guarantee**: the part of a shared limit that a tenant or service has whatever others do; the limit is then its
//!   **ceiling**, up to which it borrows what is left ([`guarantees`]).
//! - **window**: a stretch of time in which a limit admits so many units, counted anew in each ([`windows`]).
//! - **connection**: a TCP connection that somebody opened to this host and that is not closed; it holds a **place**
//!   under every limit on connections that are open at once ([`connections`]). Where this host only forwards it, its
//!   packets say what no socket does ([`forwarded`]).
//! - **health clock**: the clock of a service's limits, or of the host's; where what they protect is unwell it runs at a
//!   **speed** below that of real time, until its lease ends ([`health_clock`], [`speed`]).
//! - **health window**: how many connections a service that is unwell admits at once, until its lease ends
//!   ([`health_window`]).
//! - **breaker**: keeps new connections from a service, or from one of its **backends**, that fails; when time has passed
//!   a few **trials** show whether it is well again ([`breakers`]).
//! - **exchange**: a request and the answer to it; from the first byte of the one to that of the other the **time to first
//!   byte** is measured ([`exchanges`]).
//! - **lease**: what one CPU has taken of a fast bucket that all share, for its next packets ([`lease`]).
//! - **region**: the part of the table of buckets that belongs to one limit and address family.
//! - **proven source**: a source that is known not to be spoofed; one way of every set is kept for such.
//! - **aggregate**: the /24 or /48 whose bucket serves the sources that found no place in a region.
//! - **block**: a source or prefix that is refused until a time; **allow**: one that no limit and no block touches.
//! - **shape**: the form of a frame that cannot be judged by its addresses and ports; policy sets its *fate*.
//! - **page**: what a refused client of a plain HTTP service is told, without a socket: `429 Too Many Requests` ([`pages`]).
//! - **penalty**: what a limit has in store for a source that it refuses again and again ([`penalties`]): a **sentence**, which
//!   is a block with an end, and longer each time.
//! - **verdict**: what becomes of a packet ([`words::Outcome`]) and why ([`words::Reason`]).
//! - **observe**: count what would have been refused, and let it pass.
//! - **generation**: one complete compiled policy in the kernel; a packet reads exactly one.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod awaited;
pub mod breakers;
pub mod connections;
pub mod entrances;
pub mod exchanges;
pub mod fast_open;
pub mod forwarded;
pub mod gcra;
pub mod guarantees;
pub mod handshakes;
pub mod hash;
pub mod health_clock;
pub mod health_window;
pub mod lease;
pub mod limits;
pub mod packet;
pub mod pages;
pub mod penalties;
pub mod proven;
pub mod records;
pub mod services;
pub mod speed;
pub mod table;
pub mod turns;
pub mod windows;
pub mod words;
