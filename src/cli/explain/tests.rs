use std::convert::Infallible;

use serde_json::json;

use super::*;
use crate::signature::{
    Error as SignatureError,
    tests::{Case, vectors},
};

/// A table with one source, `it`, of this type; YAML takes JSON as it is.
fn routes(scheme: &str, secrets: &[String]) -> String {
    let mut source = json!({ "type": scheme, "path": "/it" });
    match scheme {
        "sonzai" => source["secrets"] = json!({ "*": secrets }),
        _ => source["secret"] = json!(secrets),
    }
    json!({
        "sources": { "it": source },
        "brokers": { "local": { "type": "log" } },
        "routes": [{
            "name": "all",
            "match": { "source": "it" },
            "to": [{ "broker": "local", "topic": "all" }],
        }],
    })
    .to_string()
}

fn table(text: &str) -> Table {
    routing::compile("routes.yaml", text, &|_| None).unwrap()
}

fn explained(text: &str, raw: &RawRequest, at_ms: u64) -> Explanation {
    let secrets = |source: &str| {
        let secrets = routing::secrets(text, source, &|_| None).unwrap();
        Ok::<_, Infallible>(Some(secrets))
    };
    explain(&table(text), raw, at_ms, 1 << 20, secrets).unwrap_or_else(|never| match never {})
}

/// The vectors' bodies with what a capture looks like around them.
fn raw(vector: &Case) -> RawRequest {
    let mut text = "POST /it HTTP/1.1\n".to_owned();
    for (name, value) in &vector.headers {
        text.push_str(&format!("{name}: {value}\n"));
    }
    parse(format!("{text}\n{}", vector.body).as_bytes()).unwrap()
}

#[test]
fn the_verdict_is_the_one_of_the_ingress() {
    for vector in vectors().cases {
        let text = routes(&vector.scheme, &vector.secrets);
        let (raw, at_ms) = (raw(&vector), vector.now * 1000);
        let explanation = explained(&text, &raw, at_ms);
        let verdict = &explanation.verdict;

        let table = table(&text);
        let (source, path_type) = table.source("/it").unwrap();
        let request = crate::source::Request {
            path_type,
            headers: &raw.head.headers,
            body: raw.body.clone(),
            now_ms: at_ms,
        };
        let name = format!("{} {}", vector.scheme, vector.name);
        let code = match source.receive(request) {
            Ok(_) => {
                assert_eq!(
                    (verdict.outcome, verdict.status),
                    (Outcome::Accepted, Some(200)),
                    "{name}"
                );
                assert!(verdict.secret.is_some() && verdict.reasons.is_empty(), "{name}");
                assert_eq!(vector.expect, "ok", "{name}");
                continue;
            }
            Err(crate::source::Rejection::Signature(error)) => match error {
                SignatureError::Missing => ("missing", "signature-missing"),
                SignatureError::Malformed => ("malformed", "signature-malformed"),
                SignatureError::Mismatch => ("mismatch", "signature-mismatch"),
                SignatureError::Expired { .. } => ("expired", "expired"),
            },
            Err(crate::source::Rejection::Authorization | crate::source::Rejection::Changing) => {
                ("", "")
            }
        };
        assert_eq!((verdict.outcome, verdict.status), (Outcome::Refused, Some(401)), "{name}");
        assert_eq!((&*vector.expect, verdict.reasons[0].code), code, "{name}");
        assert!(verdict.reasons.len() > 1, "it says more than the log does: {name}");
    }
}

#[test]
fn no_secret_and_no_signature_is_in_what_is_shown() {
    for vector in vectors().cases {
        // Also where it reaches an attribute, a header or a name.
        let mut raw = raw(&vector);
        let first = vector.secrets[0].parse().unwrap();
        raw.head.headers.insert("x-copied", first);
        let text = routes(&vector.scheme, &vector.secrets);
        let explanation = explained(&text, &raw, vector.now * 1000);
        let document = serde_json::to_string(&explanation).unwrap();
        let text = explanation.to_string();
        let hidden = vector
            .secrets
            .iter()
            .flat_map(|secret| [secret.as_str(), secret.strip_prefix("whsec_").unwrap_or(secret)]);
        let signatures = vector.headers.iter().filter(|(name, _)| name.contains("ignature"));
        let signatures = signatures.flat_map(|(_, value)| value.split([',', ' ', '=']));
        let signatures = signatures.filter(|part| part.len() > 16);
        let copied = format!("{:?}", explanation.event.as_ref().unwrap().headers);
        let short = vector.secrets[0].len() < 4;
        assert!(short || !copied.contains(&vector.secrets[0]), "{}: {document}", vector.name);
        // Words as short as that are in our own, too: `other` in `another`.
        let hidden = hidden.filter(|text| text.len() >= 8).chain(signatures);
        for hidden in hidden {
            assert!(!document.contains(hidden), "{}: {document}", vector.name);
            assert!(!text.contains(hidden), "{}: {text}", vector.name);
        }
    }
}

#[test]
fn without_secrets_nothing_is_verified_and_the_rest_is_the_same() {
    for vector in vectors().cases.into_iter().filter(|vector| vector.expect == "ok") {
        let text = routes(&vector.scheme, &vector.secrets);
        let (raw, at_ms) = (raw(&vector), vector.now * 1000);
        let unverified = |_: &str| Ok::<_, Infallible>(None);
        let unchecked = explain(&table(&text), &raw, at_ms, 1 << 20, unverified)
            .unwrap_or_else(|never| match never {});
        assert_eq!(unchecked.verdict.outcome, Outcome::NotChecked);
        let checked = explained(&text, &raw, at_ms);
        let event = |explanation: &Explanation| serde_json::to_value(&explanation.event).unwrap();
        assert_eq!(event(&unchecked), event(&checked), "{}", vector.name);
    }
}

#[test]
fn a_time_is_read_in_either_form() {
    for (text, expected) in [
        ("1767225600", Some(1_767_225_600_000)),
        ("2026-01-01T00:00:00Z", Some(1_767_225_600_000)),
        ("2026-01-01T00:00:00.250Z", Some(1_767_225_600_250)),
        ("2026-01-01 00:00:00", Some(1_767_225_600_000)),
        ("253402300800", None),
        ("1767225600000", None),
        ("soon", None),
        ("", None),
        ("1969-12-31T23:59:59Z", None),
    ] {
        assert_eq!(parse_time(text).ok(), expected, "{text}");
    }
}

#[test]
fn a_credential_is_taken_out_with_and_without_what_stands_in_front() {
    let raw = |body: &str| {
        let text = "POST /it HTTP/1.1\nAuthorization: Bearer of-bad-news-at-night\nCookie: short=1";
        parse(format!("{text}\n\n{body}").as_bytes()).unwrap()
    };
    let text = routes("standard", &["whsec_MDEyMzQ1Njc4OWFiY2RlZg==".to_owned()]);
    for (event_type, shown) in [
        ("Bearer of-bad-news-at-night", "[redacted]"),
        ("x.of-bad-news-at-night", "x.[redacted]"),
        ("short", "short"),
    ] {
        let raw = raw(&json!({ "type": event_type }).to_string());
        let explanation = explained(&text, &raw, 0);
        assert_eq!(explanation.event.unwrap().r#type, shown);
    }
}

#[test]
fn names_and_words_of_our_own_stay_whatever_a_request_brings() {
    let table = routes("standard", &["whsec_MDEyMzQ1Njc4OWFiY2RlZg==".to_owned()]);
    for word in ["body", "refused", "source", "bytes", "outcome"] {
        let raw = |token: &str| {
            let text = format!("POST /it HTTP/1.1\nx-auth-token: {token}\n\n{{}}");
            explained(&table, &parse(text.as_bytes()).unwrap(), 0)
        };
        let (shown, plain) = (raw(word), raw("of-no-such-word"));
        assert_eq!(shown.to_string(), plain.to_string(), "{word}");
        let document = |it: &Explanation| serde_json::to_value(it).unwrap();
        assert_eq!(document(&shown), document(&plain), "{word}");
    }
}

#[test]
fn what_registration_brought_is_not_tried_and_that_is_said() {
    let vectors = vectors();
    let vector = vectors.cases.iter().find(|case| case.scheme == "sonzai" && case.expect == "ok");
    let (vector, registered) = (
        vector.unwrap(),
        json!({
            "public_url": "https://hooks.example.com", "types": ["agent.message"],
        }),
    );
    let text = |secrets: serde_json::Value| {
        let mut file: serde_json::Value =
            serde_json::from_str(&routes("sonzai", &vector.secrets)).unwrap();
        file["sources"]["it"]["register"] = registered.clone();
        file["sources"]["it"]["api"] = json!({ "key": "sk_key" });
        file["sources"]["it"]["secrets"] = secrets;
        file.to_string()
    };
    let verdict = |secrets| explained(&text(secrets), &raw(vector), vector.now * 1000).verdict;
    let codes = |verdict: &document::Verdict| {
        verdict.reasons.iter().map(|reason| reason.code).collect::<Vec<_>>()
    };
    let unknown = verdict(json!({}));
    assert_eq!((unknown.outcome, unknown.status), (Outcome::NotChecked, None));
    assert_eq!(codes(&unknown), ["registered-secrets"]);
    let other = verdict(json!({ "*": "another-secret-than-this" }));
    assert_eq!(other.outcome, Outcome::Refused);
    assert_eq!(codes(&other).last(), Some(&"registered-secrets"));
    let known = verdict(json!({ "*": vector.secrets }));
    assert_eq!((known.outcome, codes(&known)), (Outcome::Accepted, vec![]));
}
