//! A connection on its way in, and where it is kept.

use aya_ebpf::bindings::BPF_NOEXIST;
use throttle_common::{
    forwarded::Segment,
    gcra::Ticks,
    handshakes::Asking,
    hash::Secret,
    health_window::Share,
    limits::Table as _,
    packet::{Family, Packet},
    records::{CONNECTION_LIMITS, Connection, Ends, Hold, Home, Limit, NO_LIMIT, NONE, Whose, override_key},
};

use super::{Step, changing::leave};
use crate::{
    limits::Maps,
    tables::{CONNECTIONS, LOSSES},
};

/// A connection on its way in. Plain words, because it lies in a map.
#[repr(C)]
pub struct Entering {
    /// Its ends.
    pub ends: Ends,
    /// Its places so far.
    pub connection: Connection,
    /// Where keys have their places.
    pub secret: Secret,
    /// The bucket that was seen last.
    pub seen: u64,
    /// Where that was looked for.
    pub sought: Home,
    /// How many places it has.
    pub count: u32,
    /// The policy that it meets.
    pub generation: u32,
    /// The number of the interface by which its packet came in.
    pub interface: u32,
    /// Bytes of its packet.
    pub length: u32,
    /// What its packet means.
    pub step: Step,
    /// Its tenant's number.
    pub tenant: u16,
    /// Its class.
    pub class: u16,
    /// Its addresses'.
    pub family: Family,
    /// Whether it goes on with what was written down.
    pub resumed: bool,
    /// Of one that is asked for or reset on its way, by which limits of its scope that is noted: a bit for each.
    pub asked: u16,
    /// Whether a limit only observes that it is one too many.
    pub is_observed: bool,
    /// Of one that is counted by its packets, what this one says.
    pub segment: Segment,
    /// What the health window of its service leaves of the limits.
    pub share: Share,
}

impl Entering {
    /// Begins anew, with the ends of a packet.
    #[inline(always)]
    pub fn begin(&mut self, packet: &Packet) {
        let Ends { source, destination, source_port, destination_port, family, padding } = &mut self.ends;
        (*source, *destination) = (packet.source, packet.destination);
        (*source_port, *destination_port) = (packet.source_port, packet.destination_port);
        (*family, *padding) = (packet.family as u8, [0; 3]);
    }

    /// Begins anew under a policy.
    #[inline(always)]
    pub fn arrive(&mut self, packet: &Packet, now_nanos: u64, generation: u32, secret: Secret) {
        self.begin(packet);
        let Connection { since, state, seen, said, closing, padding, acknowledged, holds } = &mut self.connection;
        (*since, *state, *seen) = (now_nanos, Connection::ENTERING, 0);
        (*said, *closing, *padding, *acknowledged) = ([0; 2], [0; 2], [0; 2], 0);
        let mut index = 0;
        while index < CONNECTION_LIMITS {
            // Word by word: the stack has no room for more.
            let Hold { key, place, way, limit } = &mut holds[index];
            (*key, *place, *way, *limit) = (0, 0, 0, NO_LIMIT);
            index += 1;
        }
        (self.count, self.resumed, self.is_observed, self.asked, self.share) = (0, false, false, 0, Share::ALL);
        self.family = packet.family;
        self.generation = generation;
        self.secret = secret;
    }

    /// Whoever opens it.
    #[inline(always)]
    pub fn whose(&self) -> Whose {
        Whose { source: self.ends.source, family: self.family, tenant: self.tenant }
    }

    /// Where a limit keeps the places of whoever opens it.
    #[inline(always)]
    pub fn home(&self, limit: &Limit) -> Option<Home> {
        limit.home(&self.whose(), self.secret)
    }

    /// How many connections a limit allows those of its class, as the depth of a bucket, and its service's health window.
    #[inline(always)]
    pub fn allowed(&self, limit: &Limit) -> Ticks {
        let mut depth = limit.depth;
        if limit.overridden != 0
            && self.class != NONE
            && let Some(terms) = Maps.terms(override_key(self.generation, limit.number, self.class))
        {
            depth = terms.depth;
        }
        self.share.depth(limit, depth)
    }

    /// The same of those who share the bucket of an aggregate: they do so by the terms that all have.
    #[inline(always)]
    pub fn allowed_together(&self, limit: &Limit) -> Ticks {
        self.share.depth(limit, limit.depth)
    }

    /// Where it is noted what has been asked of a limit under a key.
    #[inline(always)]
    pub fn asking(&self, limit: &Limit, key: u64) -> Asking {
        Asking::of(key, limit.region(self.family).base, self.secret)
    }

    /// Whether it has a place under a limit.
    #[inline(always)]
    pub fn holds(&self, limit: u32) -> bool {
        let mut index = 0;
        while index < CONNECTION_LIMITS {
            if u32::from(self.connection.holds[index].limit) == limit {
                return true;
            }
            index += 1;
        }
        false
    }

    /// Whether one more place of it can be noted.
    #[inline(always)]
    pub fn has_room(&self) -> bool {
        self.count < CONNECTION_LIMITS as u32
    }

    /// Notes a place.
    #[inline(always)]
    pub fn hold(&mut self, hold: Hold) {
        if let Some(free) = self.connection.holds.get_mut(self.count as usize) {
            *free = hold;
            self.count += 1;
        }
    }

    /// Writes it down, or gives its places back: where there is one between the same ends already, it has its own, and
    /// where there is no room, this one goes uncounted. `false` then.
    #[inline(always)]
    pub fn enter(&self) -> bool {
        let entered = CONNECTIONS.insert(&self.ends, &self.connection, u64::from(BPF_NOEXIST));
        if let Err(error) = entered {
            self.leave();
            if error != ALREADY_THERE {
                count_lost();
            }
        }
        entered.is_ok()
    }

    /// Gives its places back.
    #[inline(always)]
    pub fn leave(&self) {
        leave(&self.connection);
    }
}

/// -EEXIST of include/uapi/asm-generic/errno-base.h: two copies of the segment that completes a handshake, on two CPUs.
const ALREADY_THERE: i32 = -17;

/// Counts a connection that could not be written down.
#[inline(always)]
fn count_lost() {
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        // SAFETY: this CPU's own element. Where a program interrupts another, one of two may go uncounted.
        unsafe { (*losses).connections_uncounted += 1 };
    }
}
