//! Patterns over dot-separated names: `*` stays within one part, `**` crosses parts.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        Pattern(text.to_owned())
    }

    /// The one name that it matches, if it has no star.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// The first dot-separated part of every name that it matches, if it says so.
    pub fn first_part(&self) -> Option<&str> {
        let (part, _) = self.0.split_once('.')?;
        (!part.contains('*')).then_some(part)
    }

    /// Whether the whole of `name` matches. Time is at most the product of the two lengths.
    pub fn matches(&self, name: &str) -> bool {
        if !self.0.contains('*') {
            return self.0 == name;
        }
        glob(self.0.as_bytes(), name.as_bytes())
    }
}

/// Matches greedily, going back to the last star that can still take one byte more. Going back
/// further would never help: an earlier star could only give a later one more room to its left,
/// and `**` takes anything anyway.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut within: Option<(usize, usize)> = None;
    let mut across: Option<(usize, usize)> = None;
    loop {
        if pattern[p..].starts_with(b"**") {
            p += 2;
            across = Some((p, n));
            within = None;
        } else if pattern.get(p) == Some(&b'*') {
            p += 1;
            within = Some((p, n));
        } else if p == pattern.len() && n == name.len() {
            return true;
        } else if p < pattern.len() && pattern.get(p) == name.get(n) {
            p += 1;
            n += 1;
        } else if let Some((after, from)) =
            within.filter(|&(_, n)| n < name.len() && name[n] != b'.')
        {
            within = Some((after, from + 1));
            (p, n) = (after, from + 1);
        } else if let Some((after, from)) = across.filter(|&(_, n)| n < name.len()) {
            within = None;
            across = Some((after, from + 1));
            (p, n) = (after, from + 1);
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stays_within_a_part_and_two_stars_cross_parts() {
        for (pattern, name, expected) in [
            ("agent.message", "agent.message", true),
            ("agent.message", "agent.message.created", false),
            ("agent.*", "agent.message", true),
            ("agent.*", "agent.message.created", false),
            ("agent.*", "agent", false),
            ("agent.mood_*", "agent.mood_change", true),
            ("*.message", "agent.message", true),
            ("*.*", "a.b", true),
            ("*.*", "a.b.c", false),
            ("**", "", true),
            ("**", "a.b.c", true),
            ("agent.**", "agent.message.created", true),
            ("**.created", "agent.message.created", true),
            ("**.created", "created", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXb.c", false),
            ("a**c", "a.b.c", true),
            ("*a**b*", "xa.y.bz", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    /// The definition, written down without care for time.
    fn reference(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=name.len()).any(|n| reference(rest, &name[n..])),
            [b'*', rest @ ..] => {
                let part = name.iter().take_while(|b| **b != b'.').count();
                (0..=part).any(|n| reference(rest, &name[n..]))
            }
            [byte, rest @ ..] => name.first() == Some(byte) && reference(rest, &name[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn matching_agrees_with_its_definition(pattern in "[ab.*]{0,8}", name in "[ab.]{0,8}") {
            let expected = reference(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(Pattern::new(&pattern).matches(&name), expected);
        }
    }
}
