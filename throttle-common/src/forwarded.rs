//! Connections that this host may only forward: what their packets say, where no socket of ours tells.
//!
//! A connection is open when the source acknowledges the service's SYN-ACK, and closed when both have acknowledged the
//! other's end (RFC 9293, section 3.6), or either has reset it. What the source resets goes on unless the service waits for
//! the very byte that the reset names (RFC 5961, section 3.2), and only if it gets there: that is certain of a sound one once
//! the service has acknowledged all that the source has said, and doubtful else. A service that breaks a connection off says
//! how far both have got; any other reset of its side is doubtful. Packets of the source are seen coming in, those of the
//! service going out; between the two its addresses may be others.
//!
//! A service that says its SYN-ACK once more has not heard the acknowledgement, or had no room for the connection. Until it
//! says something else that is doubtful too.
//!
//! An end of the source is heard when the service acknowledges its number, if that was the number of nothing else: a source
//! may name any number, and what it sends may be dropped behind this host. So it is remembered how far the source has got,
//! and an end that lies before that, or that data goes on behind, is a lie; from then on no end of that source is believed.
//!
//! Which acknowledgement opens one, or shows that one is open, says [`crate::awaited`].

use crate::{awaited::FAR, packet::tcp, records::Connection};

/// Who sent a packet, as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who opened the connection.
    Source = 0,
    /// Whom it is to.
    Service = 1,
}

/// What a side has sent: its end, of the source the acknowledgement of the other's, a reset that is doubted, and one that is
/// doubted for good; that no end of the source is believed; and of the service nothing but a SYN-ACK, and that once more. Each
/// side's byte is written by its packets alone.
const ENDED: u8 = 1;
const ACKNOWLEDGED: u8 = 2;
const RESET: u8 = 4;
const UNSOUND: u8 = 8;
const DOUBTED: u8 = 16;
const SILENT: u8 = 32;
const REPEATED: u8 = 64;

/// Seconds for which a connection may be silent whose reset, end or beginning is doubted: as long as the kernel keeps an ended
/// one in TIME-WAIT, and one that it has ended in FIN-WAIT-2 (`TCP_TIMEWAIT_LEN`, `TCP_FIN_TIMEOUT`).
pub const DOUBTED_FOR: u32 = 60;

/// How far the service has got where nothing of it was seen yet.
const UNKNOWN: u32 = 0;

/// Bytes that an acknowledgement may be ahead of the last that the service was seen to say: packets of one connection may
/// leave by two CPUs.
const AHEAD: u32 = 1 << 20;

/// Bytes that the end of a segment may lie behind what the service has acknowledged: it is as long as a network card puts
/// segments together.
const BEHIND: u32 = 1 << 16;

/// What a TCP segment says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Of its first byte.
    pub sequence: u32,
    /// The byte that its sender waits for, where the ACK flag is set.
    pub acknowledged: u32,
    /// Its flags, and [`Segment::SOUND`].
    pub flags: u32,
    /// Bytes of payload.
    pub payload: u32,
}

impl Segment {
    /// Of a reset: nothing on its way to the service drops it.
    pub const SOUND: u32 = 1 << 8;

    /// The number that acknowledges all of it.
    #[inline(always)]
    pub const fn next(&self) -> u32 {
        let flags = (self.flags & tcp::SYN as u32 != 0) as u32 + (self.flags & tcp::FIN as u32 != 0) as u32;
        self.sequence.wrapping_add(self.payload).wrapping_add(flags)
    }

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag as u32 != 0
    }
}

/// The time as forwarded connections remember it, in units of 2^30 ns: so coarse that their packets seldom write.
#[inline(always)]
pub const fn moment(nanos: u64) -> u32 {
    (nanos >> 30) as u32
}

/// How many whole seconds ago it was.
pub const fn seconds_since(seen: u32, nanos: u64) -> u64 {
    let passed = moment(nanos).saturating_sub(seen) as u64;
    (passed << 30) / 1_000_000_000
}

/// Whether a number lies behind another one on their circle.
#[inline(always)]
const fn is_behind(number: u32, other: u32) -> bool {
    number.wrapping_sub(other).cast_signed() < 0
}

impl Connection {
    /// The next byte of the source's, as far as its segments were seen and the service has acknowledged others.
    #[inline(always)]
    const fn expected(&self) -> u32 {
        let said = self.said[Side::Source as usize];
        if is_behind(said, self.acknowledged) { self.acknowledged } else { said }
    }

    /// Whether a segment of the source has nothing to add to what is known of a forwarded connection.
    #[inline(always)]
    pub fn knows(&self, segment: &Segment, now_nanos: u64) -> bool {
        self.seen == moment(now_nanos)
            && self.closing[0] | self.closing[1] == 0
            && segment.flags & u32::from(tcp::SYN | tcp::FIN | tcp::RST) == 0
            && (segment.payload == 0 || !is_behind(self.expected(), segment.next()))
    }

    /// Goes on with a segment of a forwarded connection; `true` where that was its last.
    #[inline(always)]
    pub fn follow(&mut self, from: Side, segment: &Segment, now_nanos: u64) -> bool {
        if matches!(from, Side::Source) && !self.believes(segment) {
            return false;
        }
        let now = moment(now_nanos);
        if self.seen != now {
            self.seen = now;
        }
        if segment.has(tcp::RST) {
            return match from {
                Side::Source => self.reset(segment),
                Side::Service => self.break_off(segment),
            };
        }
        match from {
            Side::Source => self.hear(segment),
            Side::Service => self.answer(segment),
        }
        self.is_closed() || self.is_reset_for_certain()
    }

    /// Whether a segment may be the source's: it says what comes next, or lately came, and acknowledges what the service has
    /// said lately (RFC 5961, section 5.2); or it is a reset that names the byte that the service waits for, or the one before
    /// the source's end.
    #[inline(always)]
    pub const fn believes(&self, segment: &Segment) -> bool {
        if segment.has(tcp::RST) {
            return segment.sequence == self.expected() || self.names_end(segment);
        }
        let said = self.said[Side::Service as usize];
        let behind = said.wrapping_sub(segment.acknowledged).wrapping_add(AHEAD);
        let ahead = segment.next().wrapping_sub(self.acknowledged).wrapping_add(BEHIND);
        segment.has(tcp::ACK) && (said == UNKNOWN || behind < FAR + AHEAD) && ahead < FAR + BEHIND
    }

    /// Whether a reset answers what was sent before the source's end was known: it names the byte before that, and is
    /// accepted too (`tcp_reset_check`).
    #[inline(always)]
    const fn names_end(&self, reset: &Segment) -> bool {
        let has_end = self.closing[Side::Source as usize] & ENDED != 0;
        has_end && reset.sequence == self.expected().wrapping_sub(1)
    }

    /// Notes how much the source has said, and whether it has heard the service's end. Whoever goes on has reset nothing.
    #[inline(always)]
    const fn hear(&mut self, segment: &Segment) {
        let (expected, next) = (self.expected(), segment.next());
        let ended = self.closing[Side::Service as usize] & ENDED != 0;
        let [closing, _] = &mut self.closing;
        let [said, ended_at] = &mut self.said;
        *closing &= !(RESET | UNSOUND);
        if ended && segment.has(tcp::ACK) && segment.acknowledged == *ended_at {
            *closing |= ACKNOWLEDGED;
        }
        let (has_end, ends) = (*closing & ENDED != 0, segment.has(tcp::FIN));
        if has_end && ends && next == *said || !ends && (segment.payload == 0 || segment.has(tcp::SYN)) {
            return;
        }
        let is_new = !is_behind(next.wrapping_sub(1), expected);
        if is_new {
            *said = next;
        }
        if ends && is_new && !has_end && *closing & DOUBTED == 0 {
            *closing |= ENDED;
        } else if ends || has_end && !is_behind(next, *said) {
            *closing = *closing & !ENDED | DOUBTED;
        }
    }

    /// Whether both have ended, and heard each other's end.
    #[inline(always)]
    const fn is_closed(&self) -> bool {
        let heard = self.acknowledged == self.said[Side::Source as usize];
        heard && self.closing[Side::Source as usize] & (ENDED | ACKNOWLEDGED) == ENDED | ACKNOWLEDGED
    }

    /// Notes how much of that the service has heard, how far it has got itself, and whether it ends there. Whoever goes on has
    /// the connection.
    #[inline(always)]
    const fn answer(&mut self, segment: &Segment) {
        // Read before it is written: another CPU may be noting its end.
        if self.closing[Side::Service as usize] & (RESET | SILENT | REPEATED) != 0 {
            self.closing[Side::Service as usize] &= !(RESET | SILENT | REPEATED);
        }
        if segment.has(tcp::ACK) {
            self.acknowledged = segment.acknowledged;
        }
        let [_, said] = &mut self.said;
        let (next, ends) = (segment.next(), segment.has(tcp::FIN));
        // What it says again lies behind that.
        let is_old = said.wrapping_sub(next) < FAR && *said != UNKNOWN;
        if ends || !is_old {
            *said = next;
        }
        if ends {
            self.closing[Side::Service as usize] |= ENDED;
        }
    }

    /// Takes a reset of the service's side: `true` where the service has the connection no more, for certain. Whoever breaks one
    /// off names the next byte of either side. A reset that answers a segment repeats a number of that (RFC 9293, section
    /// 3.10.7.1), as the source likes it: also a listener sends it that goes on waiting for the right acknowledgement, and a
    /// host on the way that takes the segment for nobody's.
    #[inline(always)]
    const fn break_off(&mut self, segment: &Segment) -> bool {
        let said = self.said[Side::Service as usize];
        let names_own = segment.sequence == said && said != UNKNOWN;
        let heard = segment.acknowledged;
        let names_other = !is_behind(heard, self.acknowledged) && !is_behind(self.expected(), heard);
        let is_certain = segment.has(tcp::ACK) && names_own && names_other;
        if !is_certain {
            self.closing[Side::Service as usize] |= RESET;
        }
        is_certain
    }

    /// Takes a reset of the source: `true` where the service accepts it for certain. One that it may have to ignore, for want
    /// of what was sent before, is doubted.
    #[inline(always)]
    const fn reset(&mut self, segment: &Segment) -> bool {
        let (expected, names_end) = (self.expected(), self.names_end(segment));
        let sound = segment.flags & Segment::SOUND != 0;
        let closing = &mut self.closing[Side::Source as usize];
        self.said[Side::Source as usize] = expected;
        if sound {
            *closing = *closing & !UNSOUND | RESET;
        } else if *closing & RESET == 0 {
            *closing |= UNSOUND | RESET;
        }
        sound && names_end && segment.sequence == self.acknowledged || self.is_reset_for_certain()
    }

    /// Whether the service has heard all that the source has said before it reset the connection.
    #[inline(always)]
    const fn is_reset_for_certain(&self) -> bool {
        self.closing[Side::Source as usize] & (RESET | UNSOUND) == RESET
            && self.acknowledged == self.said[Side::Source as usize]
    }

    /// Seconds after which a connection that nothing is heard of is forgotten.
    pub fn patience(&self, idle_after: u32) -> u64 {
        // One that waits for a later byte has ignored it.
        let ignored = is_behind(self.said[Side::Source as usize], self.acknowledged);
        let [closing, service] = self.closing;
        // A service that has ended and been heard waits for no end longer than that.
        let left = closing & (DOUBTED | ACKNOWLEDGED) == DOUBTED | ACKNOWLEDGED;
        let is_doubted = left || closing & RESET != 0 && !ignored || service & (RESET | REPEATED) != 0;
        (if is_doubted { DOUBTED_FOR.min(idle_after) } else { idle_after }).into()
    }

    /// The number of the service's SYN-ACK, and the byte that it waits for, where it has said nothing else: whoever resets such
    /// a connection may open it yet, because a service does not always heed a reset before that.
    #[inline(always)]
    pub const fn unheard_answer(&self) -> Option<(u32, u32)> {
        if self.closing[Side::Service as usize] & SILENT == 0 {
            return None;
        }
        Some((self.said[Side::Service as usize].wrapping_sub(1), self.acknowledged))
    }

    /// Its handshake is complete as far as the source goes: the service has said no more than its SYN-ACK.
    #[inline(always)]
    pub const fn complete(&mut self) {
        self.closing[Side::Service as usize] = SILENT;
    }

    /// Begins with the segment that answers a SYN-ACK, or data in the middle. `awaited` says whether the service waits for
    /// that very one: else it is unknown for which.
    #[inline(always)]
    pub fn begin(&mut self, segment: &Segment, awaited: bool, now_nanos: u64) {
        let sequence = segment.sequence;
        self.seen = moment(now_nanos);
        self.said = [sequence, segment.acknowledged];
        self.acknowledged = if awaited { sequence } else { sequence.wrapping_sub(1) };
        // What was said beyond the window of a number that is no true one is not remembered.
        self.closing[Side::Source as usize] = if awaited { 0 } else { DOUBTED };
    }

    /// Goes on with a SYN-ACK: the service has begun anew between the same ends, or sends its first word again. Either way it
    /// has not heard the acknowledgement.
    #[inline(always)]
    pub fn begin_anew(&mut self, segment: &Segment, now_nanos: u64) {
        self.closing = [0, SILENT | REPEATED];
        self.said = [segment.acknowledged, segment.next()];
        self.acknowledged = segment.acknowledged;
        self.seen = moment(now_nanos);
    }
}

#[cfg(test)]
#[path = "forwarded_ends_tests.rs"]
mod ends_tests;
#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
