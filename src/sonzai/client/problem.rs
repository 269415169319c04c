//! What an error answer says of itself (RFC 9457, `application/problem+json`), as words.

use http::{HeaderMap, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};

use super::answer::Object;
use crate::printable;

/// How many characters of one text are shown.
const MAX_TEXT: usize = 300;

/// How many of the errors in one problem are shown.
const MAX_ERRORS: usize = 8;

/// Whether an answer says that it is a problem, and is one.
pub fn is_one(headers: &HeaderMap, body: &[u8]) -> bool {
    says(headers, b"application/problem+json") && Object::read(body).is_ok()
}

/// Whether an answer's type begins so.
fn says(headers: &HeaderMap, kind: &[u8]) -> bool {
    let value = headers.get(CONTENT_TYPE);
    value.is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(kind))
}

/// The words of an error answer: bounded, escaped, without the values that were sent. Empty if it had
/// none.
pub fn words(headers: &HeaderMap, body: &[u8], secrets: &[&SecretString]) -> String {
    let shown = |text: &str| shown(text, secrets);
    let Ok(problem) = Object::read(body) else {
        // Words of a proxy, as a rule. A page of HTML says nothing in its first line.
        let is_text = says(headers, b"text/plain");
        let text = String::from_utf8_lossy(if is_text { body } else { &[] });
        return shown(text.trim().lines().next().unwrap_or_default());
    };
    let text = |names: &[&str]| problem.text(names).map(|text| shown(&text));
    let mut words = text(&["title"]).unwrap_or_default();
    add(&mut words, ": ", &text(&["detail", "message", "error"]).unwrap_or_default());
    let errors = problem.list(&["errors"]).unwrap_or_default();
    let more = errors.len().saturating_sub(MAX_ERRORS);
    let mut listed = String::new();
    for error in errors.into_iter().take(MAX_ERRORS).filter_map(Object::entry) {
        let part = |name| error.text(&[name]).map(|text| shown(&text)).unwrap_or_default();
        let mut one = part("location");
        add(&mut one, ": ", &part("message"));
        add(&mut listed, "; ", &one);
    }
    if more > 0 {
        add(&mut listed, "; ", &format!("and {more} more"));
    }
    match (words.is_empty(), listed.is_empty()) {
        (_, true) => words,
        (true, false) => listed,
        (false, false) => format!("{words} ({listed})"),
    }
}

/// Text of an answer as it may be shown.
pub fn shown(text: &str, secrets: &[&SecretString]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().map(|secret| secret.expose_secret()).filter(|s| !s.is_empty()) {
        text = text.replace(secret, "[secret]");
    }
    let mut short: String = text.chars().take(MAX_TEXT).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    printable::escaped(&short)
}

/// Adds a text, behind a sign if there is something before it.
fn add(to: &mut String, sign: &str, text: &str) {
    if !to.is_empty() && !text.is_empty() {
        to.push_str(sign);
    }
    to.push_str(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(kind: &str, body: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        let secrets = ["sk_secret".into(), SecretString::from(String::new())];
        words(&headers, body.as_bytes(), &[&secrets[0], &secrets[1]])
    }

    #[test]
    fn a_problem_becomes_words() {
        let refused = r#"{"$schema":"x","status":422,"title":"Unprocessable Entity",
            "detail":"validation failed","errors":[
            {"location":"body.webhook_url","message":"expected string","value":"Bearer hidden"},
            {"message":"unexpected property"}, 3]}"#;
        let nine = format!(r#"{{"errors":[{}]}}"#, [r#"{"message":"m"}"#; 9].join(","));
        for (body, expected) in [
            (
                refused,
                "Unprocessable Entity: validation failed (body.webhook_url: expected string; \
                 unexpected property)",
            ),
            (r#"{"title":"Not Found","errors":null}"#, "Not Found"),
            (r#"{"error":"no such agent"}"#, "no such agent"),
            (
                r#"{"detail":"key sk_secret has\u001b[31m expired"}"#,
                r"key [secret] has\u{1b}[31m expired",
            ),
            (&*nine, "m; m; m; m; m; m; m; m; and 1 more"),
            ("{}", ""),
            ("", ""),
            ("<html>", ""),
            ("[1]", ""),
        ] {
            assert_eq!(of("application/problem+json", body), expected, "{body}");
        }
        assert_eq!(of("text/plain; charset=utf-8", "\nno upstream\nmore"), "no upstream");
        assert_eq!(of("text/html", "no upstream"), "");
    }

    #[test]
    fn what_a_proxy_says_is_no_problem_of_the_apis() {
        for (kind, body, expected) in [
            ("application/problem+json", r#"{"title":"Not Found"}"#, true),
            ("Application/Problem+JSON; charset=utf-8", "{}", true),
            ("application/problem+json", "not found", false),
            ("application/json", r#"{"message":"no route matched"}"#, false),
            ("text/plain", "404 page not found", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            assert_eq!(is_one(&headers, body.as_bytes()), expected, "{kind} {body}");
        }
        assert!(!is_one(&HeaderMap::new(), b"{}"));
    }

    proptest! {
        #[test]
        fn words_are_bounded_whatever_comes(body in prop::collection::vec(any::<u8>(), 0..2000)) {
            let text = String::from_utf8_lossy(&body);
            prop_assert!(of("text/plain", &text).chars().count() <= 12 * MAX_TEXT);
            let error = serde_json::json!({ "location": text, "message": text });
            let problem = serde_json::json!({ "title": text, "detail": text, "errors": [error] });
            let words = of("application/problem+json", &problem.to_string());
            prop_assert!(words.chars().count() <= 12 * 4 * MAX_TEXT);
            prop_assert!(!words.chars().any(char::is_control));
        }
    }
}
