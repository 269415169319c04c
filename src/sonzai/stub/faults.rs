//! What is to go wrong, with which requests, and how often.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::options::MAX_FAULTS;

/// Longest that an answer may be held back.
pub const MAX_HANG: Duration = Duration::from_secs(600);
/// Largest answer made up to be too large, in bytes.
pub const MAX_HUGE_BYTES: usize = 256 << 20;

/// One thing to go wrong; an element of `POST /-/faults`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default, rename = "match")]
    pub matches: Matches,
    /// How often; without it, until the faults are deleted.
    #[serde(default)]
    pub times: Option<u64>,
    /// How many matching requests go well before.
    #[serde(default)]
    pub after: u64,
    pub fault: Fault,
}

/// Which requests. What is left out matches all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Matches {
    pub method: Option<String>,
    /// A part of the target, query included.
    pub path: Option<String>,
}

/// How it goes wrong.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Fault {
    pub kind: Kind,
    /// Whether the request has its effect all the same.
    pub effect: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A refusal with this status and `Retry-After`.
    Status(u16, Option<String>),
    /// An answer elsewhere: 307 with this `Location`.
    Redirect(String),
    /// No answer for so long, then the connection is closed.
    Hang(Duration),
    /// The answer, after so long.
    Delay(Duration),
    /// So many bytes of the answer's body at a time, so long apart.
    Slow(Duration, usize),
    /// The connection is closed without an answer.
    Cut,
    /// The connection is closed within the answer.
    Truncated,
    /// 200 with half of the answer's JSON.
    Malformed,
    /// 200 with a page for people.
    Html,
    /// 200 with a list that has more bytes than this.
    Huge(usize),
}

/// As it is written: one kind, and whether the effect comes about.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    status: Option<u16>,
    retry_after: Option<Value>,
    redirect: Option<String>,
    hang: Option<String>,
    delay: Option<String>,
    slow: Option<String>,
    chunk: Option<usize>,
    cut: Option<When>,
    truncated: Option<bool>,
    malformed: Option<bool>,
    html: Option<bool>,
    huge: Option<usize>,
    effect: Option<bool>,
}

/// Whether a request has had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum When {
    Before,
    After,
}

impl TryFrom<Written> for Fault {
    type Error = String;

    fn try_from(written: Written) -> Result<Fault, String> {
        let Written { retry_after, chunk, cut, effect, .. } = &written;
        let mut kinds: Vec<(Kind, bool)> = Vec::new();
        if let Some(status) = written.status {
            if !(400..=599).contains(&status) {
                return Err(format!("status {status} is no refusal: 400 to 599"));
            }
            let retry_after = retry_after.as_ref().map(|value| match value {
                Value::String(text) => text.clone(),
                value => value.to_string(),
            });
            kinds.push((Kind::Status(status, retry_after), false));
        } else if retry_after.is_some() {
            return Err("retry_after goes with status".into());
        }
        if chunk.is_some() && written.slow.is_none() {
            return Err("chunk goes with slow".into());
        }
        if let Some(url) = &written.redirect {
            kinds.push((Kind::Redirect(url.clone()), false));
        }
        if let Some(time) = &written.hang {
            kinds.push((Kind::Hang(duration(time)?), false));
        }
        if let Some(time) = &written.delay {
            kinds.push((Kind::Delay(duration(time)?), true));
        }
        if let Some(time) = &written.slow {
            kinds.push((Kind::Slow(duration(time)?, chunk.unwrap_or(1).max(1)), true));
        }
        if let Some(when) = cut {
            kinds.push((Kind::Cut, *when == When::After));
        }
        for (given, kind, has_effect) in [
            (written.truncated, Kind::Truncated, true),
            (written.malformed, Kind::Malformed, true),
            (written.html, Kind::Html, false),
        ] {
            if given == Some(true) {
                kinds.push((kind, has_effect));
            }
        }
        if let Some(bytes) = written.huge {
            if bytes > MAX_HUGE_BYTES {
                return Err(format!("huge: at most {MAX_HUGE_BYTES} bytes"));
            }
            kinds.push((Kind::Huge(bytes), false));
        }
        match <[_; 1]>::try_from(kinds) {
            Ok([(kind, has_effect)]) => Ok(Fault { kind, effect: effect.unwrap_or(has_effect) }),
            Err(_) => {
                Err("a fault is one of status, redirect, hang, delay, slow, cut, truncated, \
                           malformed, html, huge"
                    .into())
            }
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{text}: {error}"))?;
    if duration > MAX_HANG {
        return Err(format!("{text} is more than {MAX_HANG:?}"));
    }
    Ok(duration)
}

/// All rules; the first that matches counts.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Vec<Rule>,
    /// How often anything went wrong.
    struck: u64,
}

impl Faults {
    /// Whether there was room for it.
    pub fn add(&mut self, rule: Rule) -> bool {
        let has_room = self.rules.len() < MAX_FAULTS;
        if has_room && rule.times != Some(0) {
            self.rules.push(rule);
        }
        has_room
    }

    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// What goes wrong with this request. A rule that has struck often enough is no more.
    pub fn strike(&mut self, method: &Method, target: &str) -> Option<Fault> {
        let matching = |rule: &Rule| rule.matches.take(method, target);
        let index = self.rules.iter().position(matching)?;
        let rule = &mut self.rules[index];
        if rule.after > 0 {
            rule.after -= 1;
            return None;
        }
        let fault = rule.fault.clone();
        if let Some(times) = &mut rule.times {
            *times -= 1;
            if *times == 0 {
                self.rules.remove(index);
            }
        }
        self.struck += 1;
        Some(fault)
    }

    pub fn shown(&self) -> Value {
        json!({ "rules": self.rules.len(), "struck": self.struck })
    }
}

impl Matches {
    fn take(&self, method: &Method, target: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method.as_str()))
            && self.path.as_ref().is_none_or(|part| target.contains(part.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_fault_is_one_kind_and_says_whether_the_effect_comes_about() {
        let status = |retry_after: Option<&str>| Kind::Status(503, retry_after.map(Into::into));
        for (written, kind, effect) in [
            (r#"{"status":503}"#, status(None), false),
            (r#"{"status":503,"effect":true}"#, status(None), true),
            (r#"{"status":503,"retry_after":2}"#, status(Some("2")), false),
            (r#"{"status":503,"retry_after":"2.5"}"#, status(Some("2.5")), false),
            (r#"{"cut":"before"}"#, Kind::Cut, false),
            (r#"{"cut":"after"}"#, Kind::Cut, true),
            (r#"{"hang":"30s"}"#, Kind::Hang(Duration::from_secs(30)), false),
            (r#"{"delay":"1s"}"#, Kind::Delay(Duration::from_secs(1)), true),
            (r#"{"slow":"5ms","chunk":16}"#, Kind::Slow(Duration::from_millis(5), 16), true),
            (r#"{"malformed":true}"#, Kind::Malformed, true),
            (r#"{"html":true}"#, Kind::Html, false),
            (r#"{"huge":1000}"#, Kind::Huge(1000), false),
        ] {
            let fault: Fault = serde_json::from_str(written).unwrap();
            assert_eq!(fault, Fault { kind, effect }, "{written}");
        }
        for wrong in [
            "{}",
            r#"{"status":200}"#,
            r#"{"status":500,"html":true}"#,
            r#"{"retry_after":1,"html":true}"#,
            r#"{"hang":"1d"}"#,
            r#"{"hung":"1s"}"#,
            r#"{"cut":"sometimes"}"#,
        ] {
            assert!(serde_json::from_str::<Fault>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_strikes_so_often_what_it_matches() {
        let mut faults = Faults::default();
        faults.add(rule(
            r#"{"match":{"method":"get","path":"/agents"},"times":2,"after":1,"fault":{"status":500}}"#,
        ));
        let mut strikes = |method: Method, target: &str| faults.strike(&method, target).is_some();
        assert!(!strikes(Method::POST, "/api/v1/agents"));
        assert!(!strikes(Method::GET, "/api/v1/webhooks"));
        assert!(!strikes(Method::GET, "/api/v1/agents"), "one goes well before");
        assert!(strikes(Method::GET, "/api/v1/agents"));
        assert!(strikes(Method::GET, "/api/v1/agents?page_size=1"));
        assert!(!strikes(Method::GET, "/api/v1/agents"));
        faults.add(rule(r#"{"fault":{"html":true}}"#));
        for _ in 0..10 {
            assert!(faults.strike(&Method::GET, "/x").is_some());
        }
        faults.clear();
        assert!(faults.strike(&Method::GET, "/x").is_none());
    }
}
