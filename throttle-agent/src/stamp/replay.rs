//! Which of a sender's datagrams have come already: a window over their numbers, as IPsec has it (RFC 4303, 3.4.3).

/// Numbers that a datagram may lag behind the highest that came: at 15 datagrams a second, a minute's worth.
pub(super) const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// What has come from one sender. Numbers begin with 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    highest: u64,
    /// Bit `n % WINDOW` for each number of the window.
    seen: [u64; WORDS],
}

impl Window {
    /// Whether this number comes for the first time and is not too old to tell. From now on it has come.
    pub(super) fn admit(&mut self, number: u64) -> bool {
        if number == 0 || self.highest.saturating_sub(number) >= WINDOW {
            return false;
        }
        if number > self.highest {
            // The places of the numbers between belonged to those that fall out of the window.
            if number - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                (self.highest + 1..=number).for_each(|passed| *self.word(passed).0 &= !self.word(passed).1);
            }
            self.highest = number;
        }
        let (word, bit) = self.word(number);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn word(&mut self, number: u64) -> (&mut u64, u64) {
        let place = (number % WINDOW) as usize;
        (&mut self.seen[place / 64], 1 << (place % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn nothing_comes_twice_and_nothing_new_within_the_window_is_refused(
            steps in vec((prop_oneof![3 => 0..8_u64, 1 => 0..3 * WINDOW], any::<bool>()), 1..400)
        ) {
            let (mut window, mut came, mut highest) = (Window::default(), HashSet::new(), 0_u64);
            for (step, ahead) in steps {
                let number = if ahead { highest + step } else { highest.saturating_sub(step) };
                let admitted = window.admit(number);
                let expected = number > 0 && number + WINDOW > highest && !came.contains(&number);
                prop_assert_eq!(admitted, expected, "{} after {}", number, highest);
                if admitted {
                    came.insert(number);
                    highest = highest.max(number);
                }
            }
        }
    }

    #[test]
    fn the_last_number_of_all_is_no_trouble() {
        let mut window = Window::default();
        assert!(window.admit(u64::MAX) && !window.admit(u64::MAX) && window.admit(u64::MAX - 1) && !window.admit(1));
    }
}
