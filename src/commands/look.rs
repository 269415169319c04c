//! Whether a wakeup is there already, where a call's outcome is not known. Pure.

use chrono::DateTime;

use super::message::Command;
use crate::sonzai::client::Wakeup;

/// How far the API's clock and ours may be apart, milliseconds.
const CLOCKS_APART_MS: i64 = 5 * 60 * 1000;

/// How far a time may be from itself once it was stored and listed: fractions of a second may go.
const ROUNDED_MS: u64 = 1000;

/// The wakeup that this command made since it was begun (Unix milliseconds), among those listed. Ones
/// that are known to be of other commands are not it, however equal.
pub fn made<'w>(
    command: &Command,
    begun_ms: u64,
    listed: &'w [Wakeup],
    is_of_another: impl Fn(&Wakeup) -> bool,
) -> Option<&'w Wakeup> {
    listed.iter().find(|wakeup| is_it(command, begun_ms, wakeup) && !is_of_another(wakeup))
}

fn is_it(command: &Command, begun_ms: u64, listed: &Wakeup) -> bool {
    let wanted = &command.wakeup;
    let same = |listed: &Option<String>, wanted: &str| listed.as_deref() == Some(wanted);
    // What a list may leave out speaks against nothing.
    let agrees = |listed: &Option<String>, wanted: Option<&str>| match (listed.as_deref(), wanted) {
        (Some(listed), Some(wanted)) => listed == wanted,
        _ => true,
    };
    let at = |text: &Option<String>| millis(text.as_deref()?);
    let when = match (at(&wanted.scheduled_at), at(&listed.scheduled_at)) {
        (Some(wanted), Some(listed)) => wanted.abs_diff(listed) < ROUNDED_MS,
        _ => wanted.scheduled_at.is_none(),
    };
    let since = match at(&listed.created_at) {
        Some(created) => created >= begun_ms as i64 - CLOCKS_APART_MS,
        // Then only the time that was asked for tells it from an older one.
        None => wanted.scheduled_at.is_some(),
    };
    same(&listed.user_id, &wanted.user_id)
        && same(&listed.check_type, &wanted.check_type)
        && agrees(&listed.intent, Some(&wanted.intent))
        && agrees(&listed.occasion, wanted.occasion.as_deref())
        && agrees(&listed.interest_topic, wanted.interest_topic.as_deref())
        && agrees(&listed.event_description, wanted.event_description.as_deref())
        && when
        && since
}

fn millis(rfc3339: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(rfc3339).ok().map(|time| time.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::rfc3339, sonzai::client::NewWakeup};

    const BEGUN_MS: u64 = 1_800_000_000_000;

    fn command(scheduled_at: Option<&str>) -> Command {
        let wakeup = NewWakeup {
            user_id: "u".into(),
            check_type: "c".into(),
            intent: "i".into(),
            delay_hours: 1,
            scheduled_at: scheduled_at.map(str::to_owned),
            ..NewWakeup::default()
        };
        Command { id: "1".into(), source: "".into(), agent: "a".into(), wakeup }
    }

    fn listed() -> Wakeup {
        let text = |text: &str| Some(text.to_owned());
        Wakeup {
            wakeup_id: "w".into(),
            agent_id: text("a"),
            user_id: text("u"),
            check_type: text("c"),
            intent: text("i"),
            status: text("pending"),
            scheduled_at: text("2027-01-15T10:00:00Z"),
            created_at: Some(rfc3339(BEGUN_MS + 10)),
            executed_at: None,
            occasion: None,
            interest_topic: None,
            event_description: None,
        }
    }

    fn found(command: &Command, wakeup: Wakeup) -> bool {
        made(command, BEGUN_MS, &[wakeup], |_| false).is_some()
    }

    #[test]
    fn only_what_the_command_asked_for_is_it() {
        let text = |text: &str| Some(text.to_owned());
        let change = |change: fn(&mut Wakeup, Option<String>), value: Option<String>| {
            let mut wakeup = listed();
            change(&mut wakeup, value);
            wakeup
        };
        let (relative, at) = (command(None), command(Some("2027-01-15T19:00:00.4+09:00")));
        for (wakeup, by_delay, by_time) in [
            (listed(), true, true),
            (change(|w, v| w.user_id = v, text("v")), false, false),
            (change(|w, v| w.user_id = v, None), false, false),
            (change(|w, v| w.check_type = v, text("d")), false, false),
            (change(|w, v| w.intent = v, text("j")), false, false),
            (change(|w, v| w.intent = v, None), true, true),
            (change(|w, v| w.scheduled_at = v, text("2027-01-15T10:00:02Z")), true, false),
            (change(|w, v| w.created_at = v, Some(rfc3339(BEGUN_MS - 60_000))), true, true),
            (change(|w, v| w.created_at = v, Some(rfc3339(BEGUN_MS - 600_000))), false, false),
            (change(|w, v| w.created_at = v, None), false, true),
        ] {
            assert_eq!(found(&relative, wakeup.clone()), by_delay, "by delay: {wakeup:?}");
            assert_eq!(found(&at, wakeup.clone()), by_time, "by time: {wakeup:?}");
        }
        let mut asked = command(None);
        asked.wakeup.occasion = text("o");
        assert!(found(&asked, listed()));
        assert!(!found(&asked, change(|w, v| w.occasion = v, text("p"))));
    }

    #[test]
    fn another_commands_wakeup_is_not_it() {
        let all = ["x", "y"].map(|id| Wakeup { wakeup_id: id.into(), ..listed() });
        let not_x = made(&command(None), BEGUN_MS, &all, |wakeup| wakeup.wakeup_id == "x");
        assert_eq!(not_x.map(|wakeup| &*wakeup.wakeup_id), Some("y"));
        assert!(made(&command(None), BEGUN_MS, &all, |_| true).is_none());
    }
}
