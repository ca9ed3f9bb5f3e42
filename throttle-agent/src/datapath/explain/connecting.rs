//! What limits on open connections say of the source's next one, by the copy of what it meets.

use throttle_common::{
    connections::{PLACE, Room},
    gcra::Ticks,
    handshakes::MOMENT_BITS,
    health_window::Share,
    records::Limit,
    words::Reason,
};

use super::{
    Bucket, Weighed,
    copy::{Copy, first},
};

impl Copy {
    /// What a limit on open connections says to a SYN: see `throttle_common::handshakes`. Another packet is not asked
    /// about; the one that completes a handshake takes a place.
    pub(super) fn weigh_connection(&self, index: usize, at: u64) -> Option<Reason> {
        let (_, limit) = &self.concurrent[index];
        let (room, home) = (self.room_at(limit, at)?, self.question.home(limit)?);
        let allowed = self.left_at(&self.there_in(limit, Some(room)).0, at) / PLACE;
        let asking = self.question.asking(limit, home);
        room.refusal(asking, self.asked[index], at, allowed).filter(|_| self.asks(limit))
    }

    /// Where the next connection of the source would have its place.
    fn room_at(&self, limit: &Limit, at: u64) -> Option<Room> {
        self.question.room(limit, self.left_at(&self.there(limit).0, at), self)
    }

    /// The limit as it is for the source there, and whether that is an override's doing.
    fn there_in(&self, limit: &Limit, room: Option<Room>) -> (Limit, bool) {
        if room.is_some_and(Room::is_shared) { (*limit, false) } else { self.there(limit) }
    }

    /// What the health window of the service leaves of a limit at an instant, as the depth of a bucket.
    fn left_at(&self, limit: &Limit, at: u64) -> Ticks {
        Share::left_by(self.window, self.connections, at).depth(limit, limit.depth)
    }

    pub(super) fn walk_connection(&self, index: usize, now: u64) -> Weighed {
        let (number, limit) = self.concurrent[index];
        let room = self.room_at(&limit, now);
        let (there, overridden) = self.there_in(&limit, room);
        let record = Limit { depth: self.left_at(&there, now), ..there };
        // Who has a place of a guarantee needs none of the limits behind it.
        let spared = self.concurrent[..index].iter().enumerate().any(|(before, (_, it))| {
            it.is_guarantee() && self.asks(it) && self.weigh_connection(before, now).is_none()
        });
        let (bucket, taken) = match room {
            None | Some(Room::Own(0)) => (Bucket::New, 0),
            Some(Room::Own(taken)) => (Bucket::Own, taken),
            Some(Room::Shared(taken)) => (Bucket::Shared, taken),
            Some(Room::Uncounted | Room::Nowhere) => (Bucket::Absent, 0),
        };
        let home = self.question.home(&limit);
        Weighed {
            number,
            record,
            overridden,
            asked: self.asks(&limit) && !spared,
            refusal: self.weigh_connection(index, now).filter(|_| !spared),
            bucket,
            debt: taken * PLACE,
            leased: 0,
            full_at: now,
            window: None,
            cost: PLACE,
            passes_at: first(now, self.turns_of_connections(now), |at| self.weigh_connection(index, at).is_none()),
            under_way: home.map(|home| self.question.asking(&limit, home).under_way(self.asked[index], now)),
        }
    }

    /// The instants at which a limit on open connections may change its mind, if nobody closes any.
    pub(super) fn turns_of_connections(&self, now: u64) -> Vec<u64> {
        moments(now).into_iter().chain([self.window.until()]).collect()
    }

    /// Whether a limit on open connections has a say in the packet. None has where connections are counted by their packets
    /// and what leaves is not seen.
    pub(super) fn asks(&self, limit: &Limit) -> bool {
        !self.unseen && self.question.opens_connection() && self.question.home(limit).is_some()
    }
}

/// The instants at which what a source has asked for grows old: after two moments it is counted no more.
fn moments(now: u64) -> Vec<u64> {
    (1..=3).map(|ahead| ((now >> MOMENT_BITS) + ahead) << MOMENT_BITS).collect()
}
