//! Where a key lives in a region, and the key of a prefix too long for 64 bits.
//!
//! Both are keyed with a secret that is drawn when the table is created: nobody outside can aim at a set.

/// Random words, drawn once for each table; the low bit of the second is ignored.
pub type Secret = [u64; 2];

/// The place of `key` among `places`.
///
/// A multiplication by a secret odd factor, whose halves are then folded: multiply-shift alone (Dietzfelbinger et al.
/// 1997) bounds the meeting of two keys, but leaves runs of neighbouring addresses on a lattice that some factors crowd
/// into a few sets. The high half of the last product is scaled to the range, so that a region may have any size.
#[inline(always)]
pub const fn place(key: u64, places: u32, secret: Secret) -> u32 {
    (((mix(key, secret) >> 32) * places as u64) >> 32) as u32
}

/// The bits that [`place`] is made of; the upper ones are the best mixed.
#[inline(always)]
pub const fn mix(key: u64, secret: Secret) -> u64 {
    let mixed = (key ^ secret[0]).wrapping_mul(secret[1] | 1);
    (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A 64-bit key for 128 bits of address: `SipHash`-1-3 (Aumasson and Bernstein 2012) of the two words.
///
/// Among a million sources two share a key with a probability of 3 in 10^8.
#[inline(always)]
pub const fn fingerprint(high: u64, low: u64, secret: Secret) -> u64 {
    let mut state = begin(secret);
    state = absorb::<1>(state, high);
    state = absorb::<1>(state, low);
    state = absorb::<1>(state, 16 << 56);
    state[2] ^= 0xff;
    state = round(round(round(state)));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

/// `SipHash`-2-4 of whole words, each read in little-endian order: the kernel's `siphash`.
#[inline(always)]
pub const fn siphash<const WORDS: usize>(words: [u64; WORDS], key: [u64; 2]) -> u64 {
    let mut state = begin(key);
    let mut index = 0;
    while index <= WORDS {
        let word = if index < WORDS { words[index] } else { (WORDS as u64 * 8) << 56 };
        state = absorb::<2>(state, word);
        index += 1;
    }
    state[2] ^= 0xff;
    state = round(round(round(round(state))));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
const fn begin(key: [u64; 2]) -> [u64; 4] {
    [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ]
}

#[inline(always)]
const fn absorb<const ROUNDS: usize>(mut state: [u64; 4], word: u64) -> [u64; 4] {
    state[3] ^= word;
    let mut left = ROUNDS;
    while left > 0 {
        state = round(state);
        left -= 1;
    }
    state[0] ^= word;
    state
}

#[inline(always)]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher;
    use std::vec;

    const SECRET: Secret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

    #[test]
    #[expect(deprecated, reason = "the standard library's SipHash with keys is the oracle here")]
    fn siphash_is_the_published_one_and_the_fingerprint_is_of_both_words() {
        // `core::hash::SipHasher` is 2-4; what makes a fingerprint of the same rounds is 1-3, as in the standard map.
        for words in [[7, 9], [0, u64::MAX]] {
            let mut oracle = core::hash::SipHasher::new_with_keys(SECRET[0], SECRET[1]);
            for word in words {
                oracle.write_u64(word);
            }
            assert_eq!(siphash(words, SECRET), oracle.finish());
        }
        assert_ne!(fingerprint(7, 9, SECRET), fingerprint(9, 7, SECRET));
    }

    #[test]
    fn neighbouring_addresses_spread_evenly() {
        let mut sets = vec![0u32; 1000];
        for address in 0..1_000_000u64 {
            sets[place(!address, 1000, SECRET) as usize] += 1;
        }
        assert!(sets.iter().all(|&n| (800..1200).contains(&n)), "{:?}", (sets.iter().min(), sets.iter().max()));
    }
}
