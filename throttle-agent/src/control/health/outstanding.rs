//! Requests that wait for their answers, by how far requests are ahead of answers.

use std::collections::VecDeque;

use super::Nanos;
use crate::health::SECOND;

/// Requests that are not answered in so long never will be, or their clients have gone.
const UNANSWERED: Nanos = 60 * SECOND;

/// What requests were ahead of answers lately: the least is what never will be answered.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// By how many, and when: those that were less than all after them.
    ahead: VecDeque<(Nanos, i64)>,
    last: i64,
    /// When somebody asked last.
    asked: Nanos,
}

impl Outstanding {
    /// How many wait now, where requests are ahead by so many, the last answer began at `answered`, and somebody `knocks`
    /// whom the limits refuse.
    ///
    /// As long as others ask and nobody is answered, nobody is given up: a service that hangs is no idle one.
    pub(super) fn look(&mut self, now: Nanos, ahead: i64, answered: Nanos, knocks: bool) -> u32 {
        if ahead > self.last || knocks {
            self.asked = now;
        }
        self.last = ahead;
        while self.ahead.back().is_some_and(|(_, before)| *before >= ahead) {
            self.ahead.pop_back();
        }
        self.ahead.push_back((now, ahead));
        let asks = now.saturating_sub(self.asked) <= UNANSWERED;
        let until = if asks { answered } else { now };
        while self.ahead.len() > 1 && self.ahead[0].0 + UNANSWERED < until {
            self.ahead.pop_front();
        }
        u32::try_from(ahead - self.ahead[0].1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Nanos = 1_000 * SECOND;

    /// What waits after each second, by what requests are ahead and whether something is answered or somebody knocks then.
    fn waits(seconds: impl Iterator<Item = (i64, bool, bool)>) -> Vec<u32> {
        let (mut outstanding, mut answered) = (Outstanding::default(), START);
        let look = |(second, (ahead, answers, knocks)): (u64, (i64, bool, bool))| {
            let now = START + second * SECOND;
            answered = if answers { now } else { answered };
            outstanding.look(now, ahead, answered, knocks)
        };
        (0..).zip(seconds).map(look).collect()
    }

    #[test]
    fn what_is_not_answered_within_a_minute_while_others_are_never_will_be() {
        let waits = waits((0..200).map(|second| (if second < 5 { 2 } else { 7 }, true, false)));
        assert_eq!((waits[4], waits[5], waits[64], waits[199]), (0, 5, 5, 0));
    }

    #[test]
    fn whoever_waits_at_a_service_that_hangs_waits_as_long_as_others_ask() {
        let hangs =
            |knocks: bool| waits((0..600).map(move |second| (if second < 5 { 0 } else { 50 }, second < 5, knocks)));
        assert_eq!(hangs(true)[599], 50, "it hangs");
        assert_eq!(hangs(false)[599], 0, "its clients have gone");
    }

    #[test]
    fn nobody_waits_where_all_are_answered() {
        assert!(waits((0..300).map(|second| (3 - second % 2, true, true))).iter().skip(2).all(|waits| *waits <= 1));
    }
}
