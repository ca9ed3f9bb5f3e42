//! Frames that no honest host sends: cut short anywhere, bits changed anywhere, lengths that lie.

use super::Frame;
use throttle_common::packet::{protocol, tcp};

/// Numbers from a seed that the test prints.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits (SplitMix64, Steele et al. 2014).
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.roll()) * end as u128) >> 64) as usize
    }
}

/// Well-formed frames of every shape that is read.
pub fn shapes() -> Vec<Vec<u8>> {
    let mut shapes = Vec::new();
    for source in ["198.51.100.7", "2001:db8:7::7"] {
        for base in [
            Frame::from(source).udp(40_000, 53).payload(18),
            Frame::from(source).tcp(40_000, 80, tcp::SYN),
            Frame::from(source).tcp(40_000, 80, tcp::ACK).payload(40),
            Frame::from(source).icmp(8, 0).payload(16),
            Frame::from(source).protocol(47).payload(24),
        ] {
            shapes.push(base.clone());
            shapes.push(base.clone().vlan(7));
            shapes.push(base.clone().vlan(7).vlan(8));
            shapes.push(base.clone().fragment(0, true));
            shapes.push(base.clone().fragment(64, false));
            if source.contains(':') {
                let walked = base.extension(protocol::HOP_BY_HOP, 8).extension(protocol::ROUTING, 24);
                shapes.push(walked.clone().extension(protocol::DESTINATION_OPTIONS, 16));
                shapes.push(walked.extension(protocol::AUTHENTICATION, 24).fragment(0, false));
            } else {
                shapes.push(base.options(10));
            }
        }
    }
    shapes.iter().map(Frame::bytes).collect()
}

/// `count` frames, each one of [`shapes`] that was cut, changed or both: at least as long as an Ethernet header, which
/// is the shortest frame that the kernel runs a program on.
pub fn malformed(dice: &mut Dice, count: usize) -> Vec<Vec<u8>> {
    let shapes = shapes();
    let mut frames: Vec<Vec<u8>> = Vec::with_capacity(count);
    for shape in &shapes {
        frames.extend((14..shape.len()).map(|length| shape[..length].to_vec()));
    }
    while frames.len() < count {
        let mut frame = shapes[dice.below(shapes.len())].clone();
        match dice.below(4) {
            0 => frame.truncate(14 + dice.below(frame.len() - 14)),
            1 => frame.extend(std::iter::repeat_n(0, dice.below(64))),
            _ => {}
        }
        for _ in 0..dice.below(6) {
            let at = 12 + dice.below(frame.len() - 12);
            frame[at] = match dice.below(4) {
                0 => 0,
                1 => 0xff,
                2 => frame[at] ^ 1 << dice.below(8),
                _ => dice.roll() as u8,
            };
        }
        frames.push(frame);
    }
    frames.truncate(count);
    frames
}
