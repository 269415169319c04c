//! How much is asked for at a time: as much as the API allows, less while answers are too large.

/// Answers that were not too large before more is asked for again: each vain try costs a large
/// answer.
const DOUBLED_AFTER: u32 = 8;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    now: u32,
    max: u32,
    answers: u32,
}

impl PageSize {
    /// Begins with the largest page.
    pub fn new(max: u32) -> PageSize {
        PageSize { now: max, max, answers: 0 }
    }

    pub fn now(&self) -> u32 {
        self.now
    }

    /// An answer was too large; whether less can be asked for.
    pub fn too_large(&mut self) -> bool {
        let can = self.now > 1;
        (self.now, self.answers) = ((self.now / 2).max(1), 0);
        can
    }

    /// An answer could be read.
    pub fn answered(&mut self) {
        self.answers += 1;
        if self.answers >= DOUBLED_AFTER {
            (self.now, self.answers) = (self.now.saturating_mul(2).min(self.max), 0);
        }
    }

    /// Whether it is as it was in the beginning.
    pub fn is_largest(&self) -> bool {
        self.now == self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_halve_down_to_one_and_double_later() {
        let mut size = PageSize::new(200);
        let halves: Vec<(bool, u32)> = (0..9).map(|_| (size.too_large(), size.now())).collect();
        let sizes = [100, 50, 25, 12, 6, 3, 1, 1, 1];
        let expected: Vec<_> = sizes.iter().enumerate().map(|(n, size)| (n < 7, *size)).collect();
        assert_eq!(halves, expected);
        let mut answers = 0;
        while !size.is_largest() {
            size.answered();
            answers += 1;
            assert!(size.now() <= 200);
        }
        assert_eq!(answers, 8 * DOUBLED_AFTER);
    }

    #[test]
    fn a_vain_try_begins_the_count_anew() {
        let mut size = PageSize::new(8);
        size.too_large();
        (1..DOUBLED_AFTER).for_each(|_| size.answered());
        size.too_large();
        size.answered();
        assert_eq!(size.now(), 2);
    }
}
