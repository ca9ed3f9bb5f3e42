//! Placeholder until compiled.
use crate::{clock::Clock, tables::InForce};
use aya_ebpf::programs::XdpContext;
use throttle_common::{packet::Packet, words::Outcome};
pub fn answer(_: &XdpContext, _: &Packet, _: &InForce, _: &mut Clock) -> Outcome {
    Outcome::Drop
}
