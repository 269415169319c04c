//! The known name that a misspelt one is nearest to.

/// Most slips in a name for which another is offered; a third of a short name.
const MAX_SLIPS: usize = 3;

/// Longest name that is compared, in bytes: no known one is longer.
const MAX_NAME_BYTES: usize = 64;

/// Most known names that one is compared with, of those that are about as long.
const MAX_COMPARED: usize = 1000;

/// Most names in a list: those that a type takes, and not the thousand that a file may give.
const MAX_LISTED: usize = 16;

/// The nearest of the known names, if any is near.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let slips = |known: &str| match name.eq_ignore_ascii_case(known) {
        true => 0,
        false => strsim::osa_distance(name, known),
    };
    let most = MAX_SLIPS.min(name.chars().count().div_ceil(3));
    let about_as_long = |known: &&str| known.len().abs_diff(name.len()) <= 4 * most;
    let compared = known.into_iter().filter(about_as_long).take(MAX_COMPARED);
    let near = compared.map(|known| (slips(known), known));
    near.filter(|(slips, _)| *slips <= most).min_by_key(|(slips, _)| *slips).map(|(_, near)| near)
}

/// `a, b and c`, or `a, b and 100 more`.
pub fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        names if names.len() > MAX_LISTED => {
            let shown = &names[..MAX_LISTED - 1];
            format!("{} and {} more", shown.join(", "), names.len() - shown.len())
        }
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_another_word_none() {
        let known = ["kafka", "rabbitmq", "nats", "log"];
        for (name, expected) in [
            ("kafak", Some("kafka")),
            ("RabbitMQ", Some("rabbitmq")),
            ("rabitmq", Some("rabbitmq")),
            ("logs", Some("log")),
            ("nat", Some("nats")),
            ("pulsar", None),
            ("", None),
            ("redis", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }

    #[test]
    fn a_list_of_many_names_ends_in_how_many_more() {
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        let many = vec!["n"; 100];
        assert!(listed(&many).ends_with("n, n and 85 more"), "{}", listed(&many));
    }
}
