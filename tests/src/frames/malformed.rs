//! Frames that no honest host sends: cut short anywhere, bits changed anywhere, lengths that lie.

use super::Frame;
use throttle_common::packet::{parse_bytes, protocol, tcp};

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

    /// A number between 0 and 1, neither included.
    pub fn fraction(&mut self) -> f64 {
        ((self.roll() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
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

/// Frames of which `count` cannot be read, and others between them that still can: [`shapes`] and too deeply nested ones,
/// cut at every byte, then cut, lengthened and changed at random. All are at least as long as an Ethernet header, which is
/// the shortest frame that the kernel runs a program on.
pub fn malformed(dice: &mut Dice, count: usize) -> Vec<Vec<u8>> {
    let mut bases = shapes();
    let nested = |frame: Frame| frame.extension(protocol::DESTINATION_OPTIONS, 8);
    bases.push((0..9).fold(Frame::from("2001:db8:7::7"), |frame, _| nested(frame)).bytes());
    bases.push(Frame::from("198.51.100.7").vlan(7).vlan(8).vlan(9).bytes());
    let cut = bases.iter().flat_map(|base| (14..base.len()).map(|length| base[..length].to_vec()));
    let mut frames: Vec<Vec<u8>> = bases.iter().cloned().chain(cut).collect();
    let mut unread = frames.iter().filter(|frame| parse_bytes(frame).is_err()).count();
    while unread < count {
        let frame = change(bases[dice.below(bases.len())].clone(), dice);
        unread += usize::from(parse_bytes(&frame).is_err());
        frames.push(frame);
    }
    frames
}

/// Cuts or lengthens the frame, and changes up to eight bytes, most of them in its headers.
fn change(mut frame: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    match dice.below(4) {
        0 => frame.truncate(14 + dice.below(frame.len() - 14)),
        1 => frame.extend(std::iter::repeat_n(0, dice.below(64))),
        _ => {}
    }
    for _ in 0..dice.below(9) {
        let headers = if dice.below(4) == 0 { frame.len() } else { frame.len().min(64) };
        let at = 12 + dice.below(headers - 12);
        frame[at] = match dice.below(4) {
            0 => 0,
            1 => 0xff,
            2 => frame[at] ^ 1 << dice.below(8),
            _ => dice.roll() as u8,
        };
    }
    frame
}
