//! What a CPU remembers of a source that is refused again and again.

use anyhow::{Result, ensure};
use throttle_common::{
    gcra::{self, Ticks},
    packet::tcp,
    records::{Limit, LimitTally},
    words::{Outcome, Unit},
};
use throttle_tests::{
    frames::{Dice, Frame},
    machine, needs_root,
    program::{Program, SECOND, action},
};

/// Two services with limits of their own; a packet for the first meets two of them.
const POLICY: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[service]]
name = "mail"
protocol = "tcp"
ports = [25]
[[limit]]
name = "web-bytes"
unit = "bytes"
rate = "1000B/s"
burst = "2000B"
service = "web"
[[limit]]
name = "web-packets"
unit = "packets"
rate = "1/s"
burst = 2
service = "web"
[[limit]]
name = "mail-packets"
unit = "packets"
rate = "3/s"
burst = 4
service = "mail"
"#;

/// What a limit should do: its bucket, and the packets that it should count.
struct Model {
    record: Limit,
    tat: Ticks,
    admitted: u64,
    refused: u64,
    spared: u64,
}

impl Model {
    fn of(program: &Program, name: &str) -> Result<Self> {
        Ok(Self { record: program.limit_record(name)?.1, tat: 0, admitted: 0, refused: 0, spared: 0 })
    }

    fn cost(&self, length: u32) -> Ticks {
        self.record.price.cost(if self.record.unit == Unit::Bytes as u8 { length } else { 1 })
    }

    fn next(&self, now: Ticks, length: u32) -> Option<Ticks> {
        gcra::admit(self.tat, now, self.cost(length), self.record.depth)
    }

    fn wait(&self, now: Ticks, length: u32) -> Ticks {
        gcra::wait(self.tat, now, self.cost(length), self.record.depth)
    }
}

#[test]
fn a_source_is_refused_until_its_bucket_has_room_and_no_longer() -> Result<()> {
    const PACKETS: u32 = 20_000;
    needs_root!();
    machine::pin_to(0)?;
    let mut program = Program::timed(POLICY)?;
    let limits = ["web-bytes", "web-packets", "mail-packets"];
    let mut models = limits.iter().map(|limit| Model::of(&program, limit)).collect::<Result<Vec<_>>>()?;
    let mut dice = Dice::new(7);
    let frame = Frame::v4([198, 51, 100, 7]);
    for number in 0..PACKETS {
        let length = 60 + dice.below(1_400) as u32;
        let (port, met) = if dice.below(2) == 0 { (80, &mut models[..2]) } else { (25, &mut models[2..]) };
        // Most come together; now and then just before there is room again, or just then.
        let until_room = met[0].wait(gcra::ticks(program.now()), length).div_ceil(gcra::TICKS_PER_NANO);
        let pauses = [0, 0, 0, 0, SECOND / 1000, SECOND / 50, until_room.saturating_sub(1), until_room];
        program.wait(pauses[dice.below(pauses.len())])?;
        let now = gcra::ticks(program.now());
        let bytes = frame.clone().tcp(40_000, port, tcp::ACK).length(length as usize).bytes();
        let next: Vec<_> = met.iter().map(|model| model.next(now, length)).collect();
        let refuses = next.iter().position(Option::is_none);
        for (place, (model, next)) in met.iter_mut().zip(next).enumerate() {
            let counted = match refuses {
                Some(refuses) if place > refuses => break,
                Some(refuses) if place == refuses => &mut model.refused,
                Some(_) => &mut model.spared,
                None => {
                    model.tat = next.expect("it admits");
                    &mut model.admitted
                }
            };
            *counted += 1;
        }
        let expected = if refuses.is_none() { Outcome::Pass } else { Outcome::Drop };
        ensure!(program.judge(&bytes)?.outcome == expected, "packet {number} of {length} bytes to port {port}");
    }
    for (model, name) in models.iter().zip(limits) {
        let LimitTally { admitted, refused, spared, .. } = program.limit(name)?;
        let counted = [admitted, refused, spared].map(|tally| tally.packets);
        let expected = [model.admitted, model.refused, model.spared];
        ensure!(counted == expected, "{name}: {counted:?} instead of {expected:?}");
        ensure!(counted[..2].iter().all(|count| *count > 500), "{name}: {counted:?} tell little");
    }
    Ok(())
}

#[test]
fn what_is_remembered_of_a_source_is_no_other_policys_and_no_other_familys() -> Result<()> {
    const OFTEN: usize = 40;
    needs_root!();
    machine::pin_to(0)?;
    let limit = |burst| {
        format!("mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"1/h\"\nburst = {burst}\n")
    };
    let mut program = Program::timed(&limit(1))?;
    let [v4, v6] = ["192.0.2.1", "::192.0.2.1"].map(|source| Frame::from(source).bytes());
    let passing =
        |program: &Program, frame: &[u8]| -> Result<bool> { Ok(program.judge(frame)?.outcome == Outcome::Pass) };
    ensure!(passing(&program, &v4)?, "the first");
    for _ in 0..OFTEN {
        ensure!(!passing(&program, &v4)?, "the others of the hour");
    }
    ensure!(passing(&program, &v6)?, "the same number of the other family");
    program.apply(&limit(2))?;
    ensure!(passing(&program, &v4)? && !passing(&program, &v4)?, "one more, where two may come at once");
    program.apply("mode = \"enforce\"")?;
    ensure!(passing(&program, &v4)?, "without a limit");
    Ok(())
}

#[test]
fn a_limit_that_observes_keeps_nothing_from_those_behind_it() -> Result<()> {
    const OFTEN: usize = 40;
    const OBSERVED: &str = r#"
mode = "enforce"
[[limit]]
name = "first"
unit = "packets"
rate = "1/h"
mode = "observe"
[[limit]]
name = "second"
unit = "packets"
rate = "1000/h"
"#;
    needs_root!();
    machine::pin_to(0)?;
    let program = Program::timed(OBSERVED)?;
    let frame = Frame::from("192.0.2.1").bytes();
    for _ in 0..OFTEN {
        ensure!(program.judge(&frame)?.outcome != Outcome::Drop, "nothing is refused yet");
    }
    let (first, second) = (program.limit("first")?, program.limit("second")?);
    assert_eq!((first.admitted.packets, first.observed.packets), (1, OFTEN as u64 - 1));
    assert_eq!((second.admitted.packets, second.refused.packets), (OFTEN as u64, 0));
    Ok(())
}

#[test]
fn by_the_real_clock_no_packet_is_refused_once_there_is_room_for_it() -> Result<()> {
    const TOKENS: u32 = 30;
    const INTERVAL: u64 = SECOND / 20;
    needs_root!();
    let _machine = machine::alone()?;
    machine::pin_to(0)?;
    let policy = "mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"20/s\"\nburst = 1\n";
    let program = Program::live(policy)?;
    let frame = Frame::from("192.0.2.1").bytes();
    let (mut admitted, mut refused, mut room) = (0, 0, 0);
    while admitted < TOKENS {
        let begin = machine::monotonic();
        if program.act(&frame)? == action::PASS {
            // It was charged by now.
            (admitted, room) = (admitted + 1, machine::monotonic() + INTERVAL);
            continue;
        }
        refused += 1;
        ensure!(begin < room, "{} us after there was room", (begin - room) / 1_000);
    }
    ensure!(refused > 50 * TOKENS, "{refused} refusals are no flood");
    Ok(())
}
