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
    let mut state = [
        secret[0] ^ 0x736f_6d65_7073_6575,
        secret[1] ^ 0x646f_7261_6e64_6f6d,
        secret[0] ^ 0x6c79_6765_6e65_7261,
        secret[1] ^ 0x7465_6462_7974_6573,
    ];
    state = absorb(state, high);
    state = absorb(state, low);
    state = absorb(state, 16 << 56);
    state[2] ^= 0xff;
    state = round(round(round(state)));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
const fn absorb(mut state: [u64; 4], word: u64) -> [u64; 4] {
    state[3] ^= word;
    state = round(state);
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
    fn fingerprint_is_siphash_with_one_and_three_rounds() {
        // `core::hash::SipHasher` is 2-4; the standard map's default hasher is 1-3 with random keys, so the published
        // 2-4 oracle checks the round and the absorption by running ours twice as often.
        let mut oracle = core::hash::SipHasher::new_with_keys(SECRET[0], SECRET[1]);
        oracle.write_u64(7);
        oracle.write_u64(9);
        let mut state = [
            SECRET[0] ^ 0x736f_6d65_7073_6575,
            SECRET[1] ^ 0x646f_7261_6e64_6f6d,
            SECRET[0] ^ 0x6c79_6765_6e65_7261,
            SECRET[1] ^ 0x7465_6462_7974_6573,
        ];
        for word in [7, 9, 16 << 56] {
            state[3] ^= word;
            state = round(round(state));
            state[0] ^= word;
        }
        state[2] ^= 0xff;
        state = round(round(round(round(state))));
        assert_eq!(state[0] ^ state[1] ^ state[2] ^ state[3], oracle.finish());
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
