//! The known name that a misspelt one is nearest to.

/// Most slips in a name for which another is offered; a third of a short name.
const MAX_SLIPS: usize = 3;

/// Longest name that is compared, in bytes: no known one is longer.
const MAX_NAME_BYTES: usize = 64;

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
    let near = known.into_iter().map(|known| (slips(known), known));
    near.filter(|(slips, _)| *slips <= most).min_by_key(|(slips, _)| *slips).map(|(_, near)| near)
}

/// `a, b and c`.
pub fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
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
}
