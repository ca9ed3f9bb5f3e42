//! Dead letters: what hosts of the stamp sent as changes to the policy, and that are none. They are kept for the operator to
//! look at, and stop nothing.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{Control, stored};
use crate::{
    api::wire::{DeadLetterView, DeadLetters, LettersDone, Problem, ProblemKind},
    replica::envelope::Refusal,
    stamp::hex,
    store::DeadLetter,
};

/// Letters that are kept, at most: the oldest go.
const MOST: usize = 100;
/// Bytes of one that is kept as it came.
const LONGEST: usize = 16 << 10;

impl Control {
    /// Keeps what a host sent and is no change. What has come before is counted.
    pub fn bury(&mut self, from: &str, refused: Vec<(Refusal, Vec<u8>)>) -> Result<(), Problem> {
        if refused.is_empty() {
            return Ok(());
        }
        let now = Timestamp::now();
        let mut letters = self.dead_letters.clone();
        for (why, envelope) in refused {
            if let (Some(shared), Some(place)) = (&mut self.shared, Refusal::ALL.iter().position(|it| *it == why)) {
                shared.figures.refused[place] += 1;
            }
            let id = hex(&Sha256::digest(&envelope)[..6]);
            if let Some(letter) = letters.iter_mut().find(|letter| letter.id == id) {
                (letter.last, letter.times) = (now, letter.times + 1);
                continue;
            }
            tracing::warn!(from, id, reason = why.name(), "what came as a change to the policy is none");
            letters.push(DeadLetter {
                id,
                reason: why.name().to_owned(),
                from: from.to_owned(),
                first: now,
                last: now,
                times: 1,
                bytes: envelope.len() as u64,
                envelope: if envelope.len() <= LONGEST { hex(&envelope) } else { String::new() },
            });
        }
        letters.drain(..letters.len().saturating_sub(MOST));
        self.keep_letters(letters)
    }

    fn keep_letters(&mut self, letters: Vec<DeadLetter>) -> Result<(), Problem> {
        self.store.set_dead_letters(&letters).map_err(|error| stored(&error))?;
        self.dead_letters = letters;
        self.publish_shares();
        Ok(())
    }

    /// All of them, for the API.
    pub fn letters(&self) -> DeadLetters {
        let view = |letter: &DeadLetter| {
            let DeadLetter { id, reason, from, first, last, times, bytes, envelope } = letter.clone();
            DeadLetterView { id, reason, from, first, last, times, bytes, envelope }
        };
        DeadLetters { letters: self.dead_letters.iter().map(view).collect() }
    }

    /// Has these, or all where none is named, taken in as if they came now. Those that are changes by now are dead letters no
    /// more.
    pub fn replay_letters(
        &mut self,
        ids: &[String],
        take: impl Fn(&mut Self, Vec<u8>) -> Result<usize, Problem>,
    ) -> Result<LettersDone, Problem> {
        self.known_letters(ids)?;
        let (mut changes, mut gone) = (0, Vec::new());
        for letter in self.dead_letters.clone() {
            if !(ids.is_empty() || ids.contains(&letter.id)) {
                continue;
            }
            let Some(envelope) = bytes(&letter.envelope).filter(|it| !it.is_empty()) else { continue };
            changes += take(self, envelope)? as u64;
            // One that is none yet has been counted once more.
            if self.dead_letters.contains(&letter) {
                gone.push(letter.id);
            }
        }
        let gone = if gone.is_empty() { 0 } else { self.drop_letters(&gone)? };
        Ok(LettersDone { gone, changes })
    }

    fn known_letters(&self, ids: &[String]) -> Result<(), Problem> {
        match ids.iter().find(|id| self.dead_letters.iter().all(|letter| letter.id != **id)) {
            None => Ok(()),
            Some(unknown) => {
                let detail = format!("there is no dead letter {unknown}; `throttle policy dead-letters` lists them");
                Err(Problem::new(ProblemKind::NotFound, detail))
            }
        }
    }

    /// Forgets these, or all where none is named; gives how many.
    pub fn drop_letters(&mut self, ids: &[String]) -> Result<u64, Problem> {
        self.known_letters(ids)?;
        let (gone, kept): (Vec<_>, Vec<_>) =
            self.dead_letters.clone().into_iter().partition(|letter| ids.is_empty() || ids.contains(&letter.id));
        self.keep_letters(kept)?;
        Ok(gone.len() as u64)
    }
}

/// The bytes that hexadecimal digits say.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}
