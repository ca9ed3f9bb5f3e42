//! The control groups in which services live: for how long their processes have waited for a CPU, for memory and for input or
//! output (Documentation/accounting/psi.rst).
//!
//! A group's number is that of its directory's inode (`cgroup_id`), so that a listening socket leads to it without anybody
//! having to say where a service lives.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    Nanos,
    host::{Counter, read, stalled},
};
use crate::health::SECOND;

/// What is mounted, and where.
const MOUNTS: &str = "/proc/self/mounts";
/// What is waited for, as the kernel calls it.
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];
/// Between two looks, in nanoseconds.
const PERIOD: Nanos = SECOND;
/// Directories that are looked through for a group at most.
const MOST: usize = 20_000;

/// The shares of the time in which some process of a group waited, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stalled {
    /// For a CPU.
    pub(super) cpu: f64,
    /// For memory.
    pub(super) memory: f64,
    /// For input or output.
    pub(super) io: f64,
}

impl Stalled {
    /// The most of either, for each.
    fn max(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory), io: self.io.max(other.io) }
    }
}

/// Those that are looked at, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Groups {
    known: HashMap<u64, Group>,
    /// When they were.
    pub(super) at: Nanos,
}

#[derive(Debug, Default)]
struct Group {
    /// Nothing where it was not found.
    directory: Option<PathBuf>,
    waited: [Counter; RESOURCES.len()],
    stalled: Option<Stalled>,
}

impl Groups {
    /// Looks at these, and at no other from now on, where that is due.
    pub(super) fn look(&mut self, now: Nanos, numbers: &BTreeSet<u64>) {
        if self.at != 0 && now < self.at + PERIOD {
            return;
        }
        self.at = now;
        self.known.retain(|number, _| numbers.contains(number));
        for &number in numbers {
            let group = self.known.entry(number).or_insert_with(|| Group {
                directory: read(MOUNTS).and_then(|mounts| find(root(&mounts)?, number)),
                ..Group::default()
            });
            group.look(now);
        }
    }

    /// How these have waited; of several, the one that waited most for each. Nothing where the kernel says it of none.
    pub(super) fn stalled<'n>(&self, numbers: impl IntoIterator<Item = &'n u64>) -> Option<Stalled> {
        numbers.into_iter().filter_map(|number| self.known.get(number)?.stalled).reduce(Stalled::max)
    }
}

impl Group {
    fn look(&mut self, now: Nanos) {
        let Some(directory) = &self.directory else { return };
        let share = |(waited, resource): (&mut Counter, &str)| {
            let text = read(directory.join(format!("{resource}.pressure")));
            let (grown, time) = waited.since(now, text.and_then(|text| stalled(&text)))?;
            Some((grown as f64 * 1e3 / time as f64).min(1.0))
        };
        let [cpu, memory, io] = &mut self.waited;
        let [for_cpu, for_memory, for_io] = RESOURCES;
        let all = [share((cpu, for_cpu)), share((memory, for_memory)), share((io, for_io))];
        let any = all.iter().any(Option::is_some);
        let [cpu, memory, io] = all.map(Option::unwrap_or_default);
        self.stalled = any.then_some(Stalled { cpu, memory, io });
    }
}

/// Where control groups of the second version are mounted.
fn root(mounts: &str) -> Option<&Path> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then_some(Path::new(place))
    })
}

/// The directory of a group.
fn find(root: &Path, number: u64) -> Option<PathBuf> {
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|it| it.ino() == number);
    let mut left = vec![root.to_owned()];
    for _ in 0..MOST {
        let directory = left.pop()?;
        if is_it(&directory) {
            return Some(directory);
        }
        let inner = fs::read_dir(&directory).into_iter().flatten().flatten();
        left.extend(inner.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_number_and_says_how_its_processes_waited() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice").join("web.service");
        fs::create_dir_all(&inner).unwrap();
        let number = fs::metadata(&inner).unwrap().ino();
        assert_eq!(find(root.path(), number), Some(inner.clone()));
        assert_eq!(find(root.path(), u64::MAX), None);

        let write = |resource: &str, total: u64| {
            let text = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 total=1\n");
            fs::write(inner.join(format!("{resource}.pressure")), text).unwrap();
        };
        let mut groups = Groups::default();
        groups.known.insert(number, Group { directory: Some(inner.clone()), ..Group::default() });
        write("cpu", 1_000_000);
        write("memory", 5);
        groups.look(SECOND, &[number].into());
        assert_eq!(groups.stalled(&[number]), None, "nothing is known of the time before");
        write("cpu", 1_250_000);
        groups.look(SECOND + PERIOD / 2, &[number].into());
        assert_eq!(groups.stalled(&[number]), None, "it is not time yet");
        groups.look(SECOND + PERIOD, &[number].into());
        assert_eq!(groups.stalled(&[number]), Some(Stalled { cpu: 0.25, memory: 0.0, io: 0.0 }));
        groups.look(SECOND + 2 * PERIOD, &BTreeSet::new());
        assert_eq!(groups.stalled(&[number]), None);
    }

    #[test]
    fn groups_are_looked_for_where_those_of_the_second_version_are_mounted() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(root(mounts), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(root("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn of_several_groups_the_one_that_waits_most_counts() {
        let group = |cpu, io| Group { stalled: Some(Stalled { cpu, memory: 0.0, io }), ..Group::default() };
        let known = [(1, group(0.5, 0.0)), (2, group(0.25, 0.75)), (3, Group::default())].into();
        let groups = Groups { known, at: 1 };
        assert_eq!(groups.stalled(&[1, 2, 3]), Some(Stalled { cpu: 0.5, memory: 0.0, io: 0.75 }));
        assert_eq!(groups.stalled(&[3, 4]), None);
    }
}
