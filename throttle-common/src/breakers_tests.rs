use super::*;
use proptest::prelude::*;

const NOW: u64 = 100_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A breaker as the agent and the kernel together use it.
#[derive(Default)]
struct Both(Word, Taken);

impl Both {
    fn publish(&mut self, state: State, now: u64) {
        let next = self.0.then(state, now);
        if let State::HalfOpen { left } = state {
            self.1 = next.taken_after(self.0, self.1, now, left);
        }
        self.0 = next;
    }

    fn arrives(&mut self, now: u64) -> Admission {
        let admission = self.0.admit(self.1, now);
        if admission == Admission::Trial {
            self.1 = self.0.one_more(self.1, now);
        }
        admission
    }

    fn admitted(&mut self, arrivals: u32, now: u64) -> u32 {
        (0..arrivals).filter(|_| self.arrives(now) != Admission::Refuse).count() as u32
    }
}

#[test]
fn an_open_breaker_tries_again_by_itself_when_its_time_is_over() {
    let mut breaker = Both::default();
    assert_eq!(breaker.arrives(NOW), Admission::Pass);
    breaker.publish(State::Open { until: NOW + 5 * SECOND }, NOW);
    assert_eq!(breaker.arrives(NOW + 5 * SECOND - 1), Admission::Refuse);
    // Nobody says what came of the trials: there are as many again, then twice as many every five seconds, and no more.
    for (round, trials) in [(1, TRIALS), (2, TRIALS), (3, 2 * TRIALS), (4, 4 * TRIALS)] {
        assert_eq!(breaker.admitted(100, NOW + round * 5 * SECOND + 100_000), trials);
        assert_eq!(breaker.admitted(100, NOW + round * 5 * SECOND + 4 * SECOND), 0);
    }
}

#[test]
fn what_an_agent_left_that_is_silent_for_a_minute_keeps_nobody_away_but_by_an_operators_word() {
    for left in [State::Open { until: NOW }, State::HalfOpen { left: 0 }] {
        let mut breaker = Both::default();
        breaker.publish(left, NOW);
        let ends = NOW + ROUNDS_ALONE * TRIAL_EXPIRES;
        let last = breaker.admitted(100_000, ends - SECOND);
        assert_eq!(last, TRIALS << (ROUNDS_ALONE - 2), "{left:?}");
        assert_eq!(breaker.admitted(100_000, ends + (1 << UNIT_SHIFT)), 100_000, "{left:?}");
        assert_eq!(breaker.0.state_at(breaker.1, ends + (1 << UNIT_SHIFT)), State::Closed);
        // An agent that is back begins with few again.
        breaker.publish(State::HalfOpen { left: TRIALS }, ends + SECOND);
        assert_eq!(breaker.admitted(100, ends + SECOND), TRIALS);
    }
    let mut breaker = Both::default();
    breaker.publish(State::Forced(Forced::Open), NOW);
    assert_eq!(breaker.admitted(100, NOW + 2 * ROUNDS_ALONE * TRIAL_EXPIRES), 0);
}

#[test]
fn the_agent_and_the_kernel_count_the_same_round() {
    let mut breaker = Both::default();
    breaker.publish(State::Open { until: NOW }, NOW - SECOND);
    assert_eq!(breaker.admitted(4, NOW + SECOND), 4);
    // The agent finds out later, and has heard of three of them.
    breaker.publish(State::HalfOpen { left: TRIALS - 3 }, NOW + 2 * SECOND);
    assert_eq!(breaker.admitted(100, NOW + 2 * SECOND), TRIALS - 4);
    // It says so again and again, for longer than a trial lasts: the round goes on.
    for tenth in 0..100 {
        breaker.publish(State::HalfOpen { left: 2 }, NOW + 2 * SECOND + tenth * SECOND / 10);
        assert_eq!(breaker.admitted(1, NOW + 2 * SECOND + tenth * SECOND / 10), 0);
    }
    breaker.publish(State::Open { until: NOW + 30 * SECOND }, NOW + 13 * SECOND);
    breaker.publish(State::HalfOpen { left: TRIALS }, NOW + 14 * SECOND);
    assert_eq!(breaker.admitted(100, NOW + 14 * SECOND), TRIALS, "another round");
}

#[test]
fn a_round_admits_what_the_agent_has_left_of_it() {
    let mut breaker = Both::default();
    breaker.publish(State::HalfOpen { left: 3 }, NOW);
    assert_eq!(breaker.admitted(100, NOW), 3);
    breaker.publish(State::HalfOpen { left: 0 }, NOW + SECOND);
    assert_eq!(breaker.admitted(100, NOW + SECOND), 0);
}

#[test]
fn an_operator_is_obeyed() {
    let mut breaker = Both::default();
    breaker.publish(State::Forced(Forced::Open), NOW);
    assert_eq!(breaker.admitted(100, u64::MAX), 0);
    breaker.publish(State::Forced(Forced::Closed), NOW);
    assert!(breaker.0.is_closed());
    assert_eq!(breaker.admitted(100, NOW), 100);
}

proptest! {
    #[test]
    fn no_round_of_the_kernels_own_admits_more_than_its_doublings_make_room_for(
        arrivals in prop::collection::vec((0u64..SECOND, 1u32..20), 1..200),
    ) {
        let mut breaker = Both::default();
        breaker.publish(State::Open { until: NOW }, NOW);
        let mut now = NOW + (1 << UNIT_SHIFT);
        let mut admitted = std::vec::Vec::new();
        for (pause, count) in arrivals {
            now += pause;
            let count = breaker.admitted(count, now);
            admitted.push((now, count));
        }
        let begin = breaker.0.instant();
        for round in 0..ROUNDS_ALONE {
            let within = begin + round * TRIAL_EXPIRES..begin + (round + 1) * TRIAL_EXPIRES;
            let sum: u32 = admitted.iter().filter(|(at, _)| within.contains(at)).map(|(_, count)| count).sum();
            prop_assert!(sum <= TRIALS << doublings(round), "{sum} in round {round}");
        }
    }

    #[test]
    fn it_is_never_open_for_less_long_than_it_is_said(until in NOW..NOW + 400 * SECOND, early in 0u64..400 * SECOND) {
        let mut breaker = Both::default();
        breaker.publish(State::Open { until }, NOW);
        prop_assert_eq!(breaker.arrives(until - 1 - early.min(until - 1)), Admission::Refuse);
        prop_assert_eq!(breaker.arrives(until + (1 << UNIT_SHIFT)), Admission::Trial);
    }
}
