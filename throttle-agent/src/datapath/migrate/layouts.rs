//! The layouts of the past that this build can read, described by data: no record of another build is repeated here.
//!
//! Little of what is pinned has to be understood, and most of that lies in the same place in every layout:
//!
//! - CONTROL begins with the layout, the secret, the generation in force, the sources' bits and the sets of the table;
//! - an element of POLICIES begins with the revision;
//! - the first half of every array of policy belongs to generation 0, the second to generation 1;
//! - BUCKETS, AGGREGATES and PROVEN are flat tables whose elements never change;
//! - counters are 64-bit words, and new ones come after those that were there.
//!
//! What differs is the sizes of records, and where a limit keeps what names it and its part of the table. A layout that
//! breaks one of these rules cannot be read by a new line in [`PAST`] alone.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use throttle_common::{
    hash::Secret,
    records::{HOST_CLOCK, HealthClock, Limit, NAME, NO_CLOCK, Region, Service, maps, name_str},
};

use crate::{
    datapath::{
        bpf,
        mapped::{MappedArray, record},
    },
    policy::{HeldLimit, Tenants},
};

/// A layout of the past.
#[derive(Debug)]
pub(in crate::datapath) struct Past {
    /// Its number.
    pub(super) layout: u64,
    /// The maps that are read, and the sizes of their elements.
    pub(super) sizes: &'static [(&'static str, u32)],
    /// Where a limit has its fields.
    pub(super) limit: LimitFields,
    /// Where a service has its fields, from the layout on that has health clocks and numbers tenants.
    pub(super) service: Option<ServiceFields>,
}

/// Offsets in the record of a service.
#[derive(Debug)]
pub(super) struct ServiceFields {
    pub(super) clock: usize,
    pub(super) name: usize,
}

/// Offsets in the record of a limit.
#[derive(Debug)]
pub(super) struct LimitFields {
    pub(super) price: usize,
    pub(super) depth: usize,
    pub(super) window: usize,
    pub(super) v4: usize,
    pub(super) v6: usize,
    pub(super) unit: usize,
    pub(super) algorithm: usize,
    pub(super) per: usize,
    pub(super) window_shift: usize,
    /// [`NO_CLOCK`] goes for all where there is none.
    pub(super) clock: Option<usize>,
    pub(super) name: usize,
}

/// All of them, the oldest first.
pub(super) const PAST: [Past; 2] = [LAYOUT_3, LAYOUT_4];

const LAYOUT_3: Past = Past {
    layout: 3,
    sizes: &[
        (maps::CONTROL, 40),
        (maps::POLICIES, 136),
        (maps::LIMITS, 112),
        (maps::BUCKETS, 64),
        (maps::AGGREGATES, 8),
        (maps::PROVEN, 64),
        (maps::REASON_TALLIES, 16),
        (maps::LIMIT_TALLIES, 80),
        (maps::LOSSES, 40),
        (maps::TEST_CLOCK, 8),
    ],
    limit: LimitFields {
        price: 0,
        depth: 16,
        window: 24,
        v4: 32,
        v6: 44,
        unit: 56,
        algorithm: 60,
        per: 61,
        window_shift: 62,
        clock: None,
        name: 64,
    },
    service: None,
};

const LAYOUT_4: Past = Past {
    layout: 4,
    sizes: &[
        (maps::CONTROL, 40),
        (maps::POLICIES, 152),
        (maps::LIMITS, 128),
        (maps::SERVICES, 136),
        (maps::TENANTS, 48),
        (maps::CLOCKS, 256),
        (maps::BUCKETS, 64),
        (maps::AGGREGATES, 8),
        (maps::PROVEN, 64),
        (maps::REASON_TALLIES, 16),
        (maps::LIMIT_TALLIES, 80),
        (maps::LOSSES, 40),
        (maps::TEST_CLOCK, 8),
    ],
    limit: LimitFields {
        price: 0,
        depth: 16,
        window: 24,
        v4: 40,
        v6: 52,
        unit: 64,
        algorithm: 68,
        per: 69,
        window_shift: 70,
        clock: Some(72),
        name: 80,
    },
    service: Some(ServiceFields { clock: 80, name: 88 }),
};

/// The description of a layout; `None` where this build knows none.
pub(in crate::datapath) fn past(layout: u64) -> Option<&'static Past> {
    PAST.iter().find(|past| past.layout == layout)
}

/// What every packet reads first, in every layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) layout: u64,
    pub(super) secret: Secret,
    pub(super) generation: u32,
    pub(super) sets: u32,
}

impl Head {
    pub(super) fn read(control: &MapData) -> Result<Self> {
        let bytes = element(control, 0)?;
        Ok(Self {
            layout: field(&bytes, 0)?,
            secret: [field(&bytes, 8)?, field(&bytes, 16)?],
            generation: field::<u32>(&bytes, 24)? & 1,
            sets: field(&bytes, 32)?,
        })
    }
}

impl Past {
    /// Opens one of its maps, and sees that it is what the layout says.
    pub(super) fn open(&self, directory: &Path, name: &str) -> Result<MapData> {
        let map = open(directory, name)?;
        let found = map.info().with_context(|| format!("ask for the size of {name}"))?.value_size();
        let expected = self.sizes.iter().find(|(known, _)| *known == name).map(|(_, size)| *size);
        ensure!(
            expected == Some(found),
            "the elements of {name} have {found} bytes, those of layout {} have {}",
            self.layout,
            expected.unwrap_or_default()
        );
        Ok(map)
    }

    /// The revision of the policy in force.
    pub(super) fn revision(policies: &MapData, generation: u32) -> Result<u64> {
        field(&element(policies, generation)?, 0)
    }

    /// The limits in force: of each what names it, its kind, its price and its part of the table; all else reads 0.
    pub(super) fn limits(&self, limits: &MapData, generation: u32) -> Result<Vec<HeldLimit>> {
        let count = limits.info().context("ask for the number of limits")?.max_entries() / 2;
        let mut held = Vec::new();
        for number in 0..count {
            let bytes = element(limits, generation * count + number)?;
            let record = self.limit(&bytes)?;
            if record.name[0] != 0 {
                held.push(HeldLimit { number: number as u16, record });
            }
        }
        Ok(held)
    }

    /// The services in force: of each its name and its health clock; all else reads 0.
    pub(super) fn services(&self, directory: &Path, generation: u32) -> Result<Vec<Service>> {
        let Some(fields) = &self.service else { return Ok(Vec::new()) };
        let zero: Service = record(&[0; size_of::<Service>()]).context("as many zeros as a service has bytes")?;
        let all = in_force(&self.open(directory, maps::SERVICES)?, generation)?;
        let read = |(_, bytes): (u16, Vec<u8>)| {
            let name: [u8; NAME] = field(&bytes, fields.name)?;
            Ok(Service { clock: field(&bytes, fields.clock)?, name, ..zero })
        };
        let all: Result<Vec<Service>> = all.into_iter().map(read).collect();
        Ok(all?.into_iter().filter(|service| service.name[0] != 0).collect())
    }

    /// The tenants in force, by name.
    pub(super) fn tenants(&self, directory: &Path, generation: u32) -> Result<Tenants> {
        if self.service.is_none() {
            return Ok(Tenants::default());
        }
        let all = in_force(&self.open(directory, maps::TENANTS)?, generation)?;
        let named = |(number, bytes): (u16, Vec<u8>)| {
            let name: [u8; NAME] = record(&bytes)?;
            (name[0] != 0).then(|| (name_str(&name).to_owned(), number))
        };
        Ok(all.into_iter().filter_map(named).collect())
    }

    /// The health clocks of these services and of the host, as they stand.
    pub(super) fn clocks(&self, directory: &Path, services: &[Service]) -> Result<Vec<(u16, HealthClock)>> {
        if self.service.is_none() {
            return Ok(Vec::new());
        }
        let clocks = MappedArray::<HealthClock>::new(&self.open(directory, maps::CLOCKS)?)?;
        let numbers = services.iter().map(|service| service.clock).chain([HOST_CLOCK]);
        Ok(numbers.filter(|&it| u32::from(it) < clocks.len()).map(|it| (it, clocks.get(it.into()))).collect())
    }

    fn limit(&self, bytes: &[u8]) -> Result<Limit> {
        let fields = &self.limit;
        let word = |at| field::<u64>(bytes, at);
        let name = bytes.get(fields.name..).and_then(|bytes| bytes.first_chunk()).context("a limit without a name")?;
        Ok(Limit {
            price: throttle_common::gcra::Price { mantissa: word(fields.price)?, shift: word(fields.price + 8)? },
            depth: word(fields.depth)?,
            window: word(fields.window)?,
            v4: region(bytes, fields.v4)?,
            v6: region(bytes, fields.v6)?,
            unit: field(bytes, fields.unit)?,
            algorithm: field(bytes, fields.algorithm)?,
            per: field(bytes, fields.per)?,
            window_shift: field(bytes, fields.window_shift)?,
            clock: fields.clock.map_or(Ok(NO_CLOCK), |at| field(bytes, at))?,
            name: *name,
            ..Limit::NONE
        })
    }
}

fn region(bytes: &[u8], at: usize) -> Result<Region> {
    Ok(Region {
        base: field(bytes, at)?,
        sets: field(bytes, at + 4)?,
        prefix: field(bytes, at + 8)?,
        aggregate: field(bytes, at + 9)?,
        doubled: field(bytes, at + 10)?,
        compartments: 0,
    })
}

fn field<T: aya::Pod>(bytes: &[u8], at: usize) -> Result<T> {
    bytes.get(at..).and_then(record).with_context(|| format!("a record of {} bytes ends before byte {at}", bytes.len()))
}

/// The elements of one generation of an array of policy, by number.
fn in_force(array: &MapData, generation: u32) -> Result<Vec<(u16, Vec<u8>)>> {
    let count = array.info().context("ask for the size of an array")?.max_entries() / 2;
    (0..count).map(|number| Ok((number as u16, element(array, generation * count + number)?))).collect()
}

/// A pinned map, whoever made it.
pub(super) fn open(directory: &Path, name: &str) -> Result<MapData> {
    let path = directory.join(name);
    MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))
}

/// The first word of an array.
pub(super) fn first_word(map: &MapData) -> Result<u64> {
    field(&element(map, 0)?, 0)
}

/// The bytes of one element of an array.
fn element(map: &MapData, index: u32) -> Result<Vec<u8>> {
    use std::os::fd::AsFd as _;
    let mut bytes = vec![0; map.info()?.value_size() as usize];
    bpf::map_lookup(map.fd().as_fd(), &index.to_ne_bytes(), &mut bytes).context("read an element of an array")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use throttle_common::records::{LAYOUT, name_bytes};

    #[test]
    fn what_every_layout_has_in_the_same_place_lies_there_in_this_one() {
        use std::mem::offset_of;
        use throttle_common::records::{Control, LimitTally, Losses, Policy, Tally};
        let head = [
            offset_of!(Control, layout),
            offset_of!(Control, secret),
            offset_of!(Control, generation),
            offset_of!(Control, sets),
            offset_of!(Policy, revision),
        ];
        assert_eq!(head, [0, 8, 24, 32, 0]);
        let region = [
            offset_of!(Region, base),
            offset_of!(Region, sets),
            offset_of!(Region, prefix),
            offset_of!(Region, aggregate),
        ];
        assert_eq!(region, [0, 4, 8, 9]);
        assert_eq!([offset_of!(LimitTally, admitted), offset_of!(Tally, packets)], [0, 0]);
        // New counters come last, so that those of an earlier layout are a beginning of these.
        assert!([offset_of!(LimitTally, overflowed), offset_of!(Losses, answers_undue)] == [64, 24]);
    }

    #[test]
    fn only_layouts_of_the_past_are_described_each_once() {
        assert!(PAST.is_sorted_by_key(|past| past.layout));
        assert!(PAST.windows(2).all(|pair| pair[0].layout != pair[1].layout));
        assert!(past(LAYOUT).is_none() && past(LAYOUT + 1).is_none() && past(0).is_none());
        assert!(PAST.iter().all(|past| past.layout < LAYOUT));
    }

    #[test]
    fn layout_4_has_its_fields_where_this_one_has_them() {
        use std::mem::offset_of;
        let LimitFields { price, depth, window, v4, v6, unit, algorithm, per, window_shift, clock, name } =
            past(4).unwrap().limit;
        let here = [
            offset_of!(Limit, price),
            offset_of!(Limit, depth),
            offset_of!(Limit, window),
            offset_of!(Limit, v4),
            offset_of!(Limit, v6),
            offset_of!(Limit, unit),
            offset_of!(Limit, algorithm),
            offset_of!(Limit, per),
            offset_of!(Limit, window_shift),
            offset_of!(Limit, clock),
            offset_of!(Limit, name),
        ];
        let clock = clock.unwrap();
        assert_eq!([price, depth, window, v4, v6, unit, algorithm, per, window_shift, clock, name], here);
        let ServiceFields { clock, name } = past(4).unwrap().service.as_ref().unwrap();
        assert_eq!([*clock, *name], [offset_of!(Service, clock), offset_of!(Service, name)]);
    }

    #[test]
    fn a_limit_of_layout_3_is_found_by_its_offsets() {
        let mut bytes = [0u8; 112];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &7u64.to_ne_bytes());
        put(8, &3u64.to_ne_bytes());
        put(16, &500u64.to_ne_bytes());
        put(24, &900u64.to_ne_bytes());
        put(32, &[10, 0, 0, 0, 20, 0, 0, 0, 32, 24, 1]);
        put(44, &[30, 0, 0, 0, 40, 0, 0, 0, 64, 48]);
        put(56, &[1, 0, 0, 0, 3, 2, 5]);
        put(64, &name_bytes("web"));
        let limit = past(3).unwrap().limit(&bytes).unwrap();
        assert_eq!((limit.price.mantissa, limit.price.shift, limit.depth, limit.window), (7, 3, 500, 900));
        let Region { base, sets, prefix, aggregate, doubled, .. } = limit.v4;
        assert_eq!((base, sets, prefix, aggregate, doubled), (10, 20, 32, 24, 1));
        let Region { base, sets, prefix, aggregate, doubled, .. } = limit.v6;
        assert_eq!((base, sets, prefix, aggregate, doubled), (30, 40, 64, 48, 0));
        assert_eq!((limit.unit, limit.algorithm, limit.per, limit.window_shift), (1, 3, 2, 5));
        assert_eq!(limit.name, name_bytes("web"));
        assert!(past(3).unwrap().limit(&bytes[..100]).is_err(), "a record that is too short");
    }
}
