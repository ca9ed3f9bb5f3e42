use super::{super::facts::Fact, *};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn id(name: &str, last: u8, generation: u64) -> Id {
    Id { name: name.to_owned(), address: SocketAddr::from(([10, 0, 0, last], 7946)), generation }
}

/// A stamp as one host sees it, in which others speak or do not.
struct Stamp {
    roster: Roster,
    now: Duration,
    hosts: BTreeMap<Id, Seen>,
    changes: Vec<Change>,
}

impl Stamp {
    fn new() -> Self {
        let now = ms(0);
        Self { roster: Roster::new(id("own", 1, 1), now), now, hosts: BTreeMap::new(), changes: Vec::new() }
    }

    /// For so long these hosts speak with each look, and the gossip shows them beside all that it has shown before.
    fn pass(&mut self, millis: u64, speaking: &[&Id]) -> &mut Self {
        for _ in 0..millis / 100 {
            self.now += LOOK;
            for id in speaking {
                let seen = || Seen { id: (*id).clone(), heartbeat: 0, facts: Facts::default() };
                self.hosts.entry((*id).clone()).or_insert_with(seen).heartbeat += 1;
            }
            let seen = self.hosts.values().cloned().collect();
            let changes = self.roster.look(self.now, Facts::default(), seen);
            self.changes.extend(changes);
        }
        self
    }

    fn states(&self) -> Vec<(String, State)> {
        self.roster.members().iter().map(|(id, it)| (format!("{}.{}", id.name, id.generation), it.state)).collect()
    }

    fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

fn state(name: &str, state: State) -> (String, State) {
    (name.to_owned(), state)
}

#[test]
fn a_host_joins_once_it_was_heard_twice() {
    let (mut stamp, a) = (Stamp::new(), id("a", 2, 7));
    stamp.pass(100, &[&a]);
    assert_eq!(stamp.states(), [state("a.7", State::Unheard), state("own.1", State::Alive)]);
    stamp.pass(100, &[&a]);
    assert_eq!(stamp.states(), [state("a.7", State::Alive), state("own.1", State::Alive)]);
    assert_eq!(stamp.changes(), [Change::Joined(a)]);
}

#[test]
fn one_that_falls_silent_is_suspect_then_dead_within_a_second_and_told_once() {
    let (mut stamp, a) = (Stamp::new(), id("a", 2, 7));
    stamp.pass(20_000, &[&a]).changes();
    stamp.pass(600, &[]);
    assert_eq!(stamp.changes(), [Change::Suspect(a.clone())]);
    stamp.pass(400, &[]);
    assert_eq!(stamp.changes(), [Change::Died(a)]);
    stamp.pass(60_000, &[]);
    assert_eq!(stamp.changes(), []);
    assert_eq!(stamp.states()[0], state("a.7", State::Dead));
}

#[test]
fn a_moment_of_silence_is_recovered_from() {
    let (mut stamp, a) = (Stamp::new(), id("a", 2, 7));
    stamp.pass(20_000, &[&a]).changes();
    stamp.pass(600, &[]).pass(200, &[&a]);
    assert_eq!(stamp.changes(), [Change::Suspect(a.clone()), Change::Recovered(a)]);
}

#[test]
fn one_that_is_heard_again_after_its_death_returns() {
    let (mut stamp, a) = (Stamp::new(), id("a", 2, 7));
    stamp.pass(20_000, &[&a]).pass(5_000, &[]).changes();
    stamp.pass(300, &[&a]);
    assert_eq!(stamp.changes(), [Change::Returned(a.clone())]);
    stamp.pass(2_000, &[&a]).pass(3_000, &[]);
    assert_eq!(stamp.changes(), [Change::Suspect(a.clone()), Change::Died(a)], "and is not trusted longer than before");
}

#[test]
fn a_later_run_takes_the_place_of_the_earlier_one() {
    for silence in [0, 5_000] {
        let (mut stamp, first, second) = (Stamp::new(), id("a", 2, 7), id("a", 2, 8));
        stamp.pass(20_000, &[&first]).pass(silence, &[]).changes();
        stamp.pass(3_000, &[&second]);
        assert_eq!(stamp.changes(), [Change::Returned(second)], "after {silence} ms");
        assert_eq!(stamp.states(), [state("a.8", State::Alive), state("own.1", State::Alive)]);
    }
}

#[test]
fn a_later_run_whose_clock_was_set_back_takes_the_place_too() {
    let (mut stamp, first, second) = (Stamp::new(), id("a", 2, 7), id("a", 2, 3));
    stamp.pass(20_000, &[&first]).pass(100, &[]);
    // It is known from the first look on, before the earlier run is dead.
    stamp.hosts.insert(second.clone(), Seen { id: second.clone(), heartbeat: 1, facts: Facts::default() });
    stamp.pass(10_000, &[&second]);
    let lives: Vec<_> = stamp.states().into_iter().filter(|(_, it)| it.lives()).collect();
    assert!(lives.len() <= 2 && stamp.roster.doubled().next().is_none(), "{lives:?}");
}

#[test]
fn one_that_has_moved_is_shown_where_it_is() {
    let (mut stamp, before, after) = (Stamp::new(), id("a", 2, 7), id("a", 3, 8));
    stamp.pass(20_000, &[&before]).changes();
    stamp.pass(5_000, &[&after]);
    assert_eq!(stamp.states(), [state("a.8", State::Alive), state("own.1", State::Alive)]);
    assert!(!stamp.changes().iter().any(|it| matches!(it, Change::Doubled(_))), "it was there once at any time");
}

#[test]
fn two_that_live_under_one_name_are_both_shown_and_told_of() {
    let (mut stamp, one, other) = (Stamp::new(), id("a", 2, 7), id("a", 3, 8));
    stamp.pass(5_000, &[&one, &other]);
    assert_eq!(stamp.states()[..2], [state("a.7", State::Alive), state("a.8", State::Alive)]);
    let doubled = stamp.changes().into_iter().filter(|it| matches!(it, Change::Doubled(_))).collect::<Vec<_>>();
    assert_eq!(doubled, [Change::Doubled("a".to_owned())]);
    assert_eq!(stamp.roster.doubled().collect::<Vec<_>>(), ["a"]);
    stamp.pass(2_000, &[&other]);
    assert_eq!(stamp.changes().last(), Some(&Change::Single("a".to_owned())));
    let own = id("own", 9, 1);
    stamp.pass(4_000, &[&own, &other]);
    assert_eq!(stamp.changes(), [Change::Joined(own), Change::Doubled("own".to_owned())]);
}

#[test]
fn an_earlier_run_of_this_host_is_not_shown() {
    let (mut stamp, earlier) = (Stamp::new(), id("own", 1, 0));
    stamp.pass(2_000, &[&earlier]);
    assert_eq!((stamp.states(), stamp.changes()), (vec![state("own.1", State::Alive)], vec![]));
}

#[test]
fn one_that_says_so_has_left_and_is_not_dead() {
    let (mut stamp, a) = (Stamp::new(), id("a", 2, 7));
    stamp.pass(5_000, &[&a]).changes();
    stamp.hosts.get_mut(&a).unwrap().facts.set(Fact::Leaving, "1");
    stamp.pass(5_000, &[]);
    assert_eq!((stamp.changes(), stamp.states()[0].1), (vec![Change::Left(a)], State::Left));
}

#[test]
fn a_look_that_comes_late_blames_nobody() {
    let (mut stamp, a) = (Stamp::new(), id("a", 2, 7));
    stamp.pass(20_000, &[&a]).changes();
    stamp.now += ms(5_000);
    stamp.pass(300, &[]).pass(1_000, &[&a]);
    assert_eq!(stamp.changes(), []);
}

#[test]
fn who_is_gone_is_shown_for_a_day_and_the_most_have_room() {
    let (mut stamp, a) = (Stamp::new(), id("a", 2, 7));
    stamp.pass(5_000, &[&a]).pass(5_000, &[]);
    stamp.hosts.clear();
    stamp.pass(1_000, &[]);
    assert_eq!(stamp.states().len(), 2);
    stamp.now += FORGET;
    stamp.pass(200, &[]);
    assert_eq!(stamp.states().len(), 1);
    let many: Vec<Id> = (0..MOST_HOSTS as u64 + 10).map(|n| id(&format!("h{n}"), 3, n)).collect();
    stamp.pass(300, &many.iter().collect::<Vec<_>>());
    assert_eq!(stamp.states().len(), MOST_HOSTS);
}
