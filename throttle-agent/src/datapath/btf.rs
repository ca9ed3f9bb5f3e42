//! Where the fields of the kernel's structures lie, read from its own description (BTF).
//!
//! Pure: bytes come in, offsets go out. Rust has no CO-RE, so the programs that look into sockets are told these offsets
//! when they are loaded. The format is the kernel's `Documentation/bpf/btf.rst`.

use anyhow::{Context, Result, bail, ensure};

/// Kinds of types that are read; of the others only the length.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

const MAGIC: u16 = 0xeb9f;
/// Words of a type before what belongs to its kind: name, info, and size or another type.
const HEAD: usize = 3;

/// The kernel's types.
pub(super) struct Types<'b> {
    words: Vec<u32>,
    names: &'b [u8],
    /// Where in `words` each type begins; number 0 is `void` and has no place.
    places: Vec<usize>,
}

/// A member of a structure: its name, type, and bits from the beginning.
struct Member<'t> {
    name: &'t str,
    of: u32,
    bits: u32,
}

impl<'b> Types<'b> {
    /// Reads the description, as `/sys/kernel/btf/vmlinux` has it.
    pub(super) fn parse(bytes: &'b [u8]) -> Result<Self> {
        let half =
            |at: usize| bytes.get(at..at + 2).map(|half| u16::from_ne_bytes(half.try_into().expect("two bytes")));
        ensure!(half(0) == Some(MAGIC), "not BTF of this machine's byte order");
        let word = |at: usize| -> Result<usize> {
            let word = bytes.get(at..at + 4).context("ends within its header")?;
            Ok(u32::from_ne_bytes(word.try_into().expect("four bytes")) as usize)
        };
        let (header, types, types_length) = (word(4)?, word(8)?, word(12)?);
        let (names, names_length) = (word(16)?, word(20)?);
        let part = |from: usize, length: usize| {
            let from = header.checked_add(from)?;
            bytes.get(from..from.checked_add(length)?)
        };
        let types = part(types, types_length).context("ends within its types")?;
        let names = part(names, names_length).context("ends within its names")?;
        let words = types.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")));
        let mut all = Self { words: words.collect(), names, places: vec![0] };
        let mut place = 0;
        while place < all.words.len() {
            all.places.push(place);
            place += all.length(place)?;
        }
        Ok(all)
    }

    /// The offset in bytes of a field, given as the names that lead to it from a structure: `["sock", "__sk_common",
    /// "skc_family"]`. Members without a name are looked through; a pointer is not followed.
    pub(super) fn offset(&self, path: &[&str]) -> Result<u32> {
        let said = || path.join(".");
        let [structure, fields @ ..] = path else { bail!("no structure is named") };
        let mut of = self.find(structure).with_context(|| format!("this kernel describes no struct {structure}"))?;
        let mut bits = 0;
        for name in fields {
            let member = self.member(of, name).with_context(|| format!("this kernel has no {}", said()))?;
            bits += member.bits;
            of = member.of;
        }
        ensure!(bits.is_multiple_of(8), "{} begins within a byte", said());
        Ok(bits / 8)
    }

    fn find(&self, structure: &str) -> Option<u32> {
        let is_it = |&place: &usize| self.kind(place) == kind::STRUCT && self.name(self.words[place]) == structure;
        // Number 0 is no type.
        self.places.iter().skip(1).position(is_it).map(|index| index as u32 + 1)
    }

    fn member(&self, of: u32, wanted: &str) -> Option<Member<'_>> {
        let members: Vec<_> = self.members(of)?;
        for member in members {
            if member.name == wanted {
                return Some(member);
            }
            if member.name.is_empty()
                && let Some(inner) = self.member(member.of, wanted)
            {
                return Some(Member { bits: member.bits + inner.bits, ..inner });
            }
        }
        None
    }

    /// The members of a structure or union, whatever it is renamed or qualified to.
    fn members(&self, of: u32) -> Option<Vec<Member<'_>>> {
        let place = *self.places.get(of as usize).filter(|_| of != 0)?;
        match self.kind(place) {
            kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::TYPE_TAG => self.members(self.words[place + 2]),
            kind::STRUCT | kind::UNION => {
                let bit_fields = self.words[place + 1] >> 31 == 1;
                let members = self.words[place + HEAD..].chunks_exact(3).take(self.count(place));
                let member = |member: &[u32]| Member {
                    name: self.name(member[0]),
                    of: member[1],
                    bits: if bit_fields { member[2] & 0x00ff_ffff } else { member[2] },
                };
                Some(members.map(member).collect())
            }
            _ => None,
        }
    }

    fn kind(&self, place: usize) -> u32 {
        self.words[place + 1] >> 24 & 0x1f
    }

    fn count(&self, place: usize) -> usize {
        (self.words[place + 1] & 0xffff) as usize
    }

    fn name(&self, at: u32) -> &str {
        let bytes = self.names.get(at as usize..).unwrap_or_default();
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).unwrap_or_default()
    }

    /// Words of the type at a place; that all of them are there.
    fn length(&self, place: usize) -> Result<usize> {
        ensure!(place + HEAD <= self.words.len(), "ends within a type");
        let count = self.count(place);
        let length = HEAD
            + match self.kind(place) {
                kind::INT | kind::VAR | kind::DECL_TAG => 1,
                kind::ARRAY => 3,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 3 * count,
                kind::ENUM | kind::FUNC_PROTO => 2 * count,
                // Pointers, qualifiers, forward declarations, functions, floating point: no more than their head.
                2 | 7..=12 | 16 | kind::TYPE_TAG => 0,
                other => bail!("a type of the unknown kind {other}"),
            };
        ensure!(place + length <= self.words.len(), "ends within a type");
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description of `struct outer { u32 a; union { struct inner { u64 b; } c; }; }`, 8 bits to the byte.
    fn described() -> Vec<u8> {
        let names = b"\0outer\0a\0inner\0b\0c\0";
        let (outer, a, inner, b, c) = (1, 7, 9, 15, 17);
        let info = |kind: u32, count: u32| kind << 24 | count;
        let types: Vec<u32> = [
            &[0, info(kind::INT, 0), 4, 32][..],
            &[inner, info(kind::STRUCT, 1), 8, b, 1, 32],
            &[0, info(kind::UNION, 1), 8, c, 2, 0],
            &[outer, info(kind::STRUCT, 2), 16, a, 1, 0, 0, 3, 64],
        ]
        .concat();
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        let length = types.len() as u32 * 4;
        let head = [&MAGIC.to_ne_bytes()[..], &[1, 0], &words(&[24, 0, length, length, names.len() as u32])].concat();
        [&head[..], &words(&types), names].concat()
    }

    #[test]
    fn a_field_is_found_through_members_without_a_name() {
        let bytes = described();
        let types = Types::parse(&bytes).unwrap();
        assert_eq!(types.offset(&["outer", "a"]).unwrap(), 0);
        assert_eq!(types.offset(&["outer", "c"]).unwrap(), 8);
        assert_eq!(types.offset(&["outer", "c", "b"]).unwrap(), 12);
    }

    #[test]
    fn what_is_missing_is_named() {
        let bytes = described();
        let types = Types::parse(&bytes).unwrap();
        assert!(types.offset(&["outer", "d"]).unwrap_err().to_string().contains("outer.d"));
        assert!(types.offset(&["nothing"]).unwrap_err().to_string().contains("nothing"));
    }

    #[test]
    fn no_truncation_is_read_beyond_its_end() {
        let bytes = described();
        for length in 0..bytes.len() {
            assert!(Types::parse(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_running_kernel_describes_its_sockets() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let types = Types::parse(&bytes).unwrap();
        let of = |field| types.offset(&["sock", "__sk_common", field]).unwrap();
        // The kernel's own `BUILD_BUG_ON`s and the ABI of `struct sock_common` keep these in this order.
        assert!(of("skc_daddr") < of("skc_family") && of("skc_family") < of("skc_state"));
        assert!(types.offset(&["net", "ns", "inum"]).unwrap() > 0);
    }
}
