//! An event as one CloudEvents 1.0 JSON document (structured mode). Pure.
//!
//! The body stays byte for byte what was signed. It goes into `data` verbatim where that harms
//! neither the document nor its readers, else into `data_base64`:
//!
//! | body | goes into |
//! | --- | --- |
//! | JSON, its content type JSON or not given | `data`, untouched |
//! | JSON with a raw line break (pretty-printed, a trailing newline) | `data_base64`: the document is one line |
//! | JSON that common parsers refuse (`1e999`, a lone surrogate, nesting over 64) | `data_base64`: it would take the whole document with it |
//! | any other content type, even if the body happens to be JSON | `data_base64`: by CloudEvents, `data` there would be a JSON string |
//! | anything else, and no body | `data_base64` |

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::event::Event;

/// Nesting beyond this is left to those who decode `data_base64`. Parsers commonly stop at 100 to
/// 128 levels, and no webhook comes near.
const MAX_DEPTH: usize = 64;

/// The content type of a document.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// Stands for the content type of a JSON body that came without one.
const JSON: &str = "application/json";

/// The document, on one line, without a line break at its end.
pub fn document(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + event.body.len() / 3 * 4);
    let attributes = event.attributes().map(|(name, value)| (name.to_owned(), value));
    let traceparent =
        event.traceparent.iter().map(|value| ("traceparent".to_owned(), value.clone()));
    for (name, value) in attributes.chain(traceparent) {
        put_member(&mut out, &name, &value);
    }
    let verbatim = is_json_type(event.content_type.as_deref()) && survives(&event.body);
    let content_type = event.content_type.as_deref().or(verbatim.then_some(JSON));
    if let Some(content_type) = content_type {
        put_member(&mut out, "datacontenttype", content_type);
    }
    if verbatim {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(&event.body);
    } else {
        put_member(&mut out, "data_base64", &BASE64_STANDARD.encode(&event.body));
    }
    out.push(b'}');
    out
}

fn put_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(if out.is_empty() { b'{' } else { b',' });
    put_string(out, name);
    out.push(b':');
    put_string(out, value);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string always serialises, and a Vec takes all");
}

/// By RFC 6838 and RFC 6839; no content type counts as JSON's, as in CloudEvents.
fn is_json_type(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return true };
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((_, subtype)) = media_type.split_once('/') else { return false };
    subtype == "json" || subtype.ends_with("+json")
}

/// Whether a body can stand in the document as it is.
fn survives(body: &[u8]) -> bool {
    if body.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        return false;
    }
    // Its whitespace aside, JSON has the same bytes in the document as alone, so what parses here
    // parses there.
    let mut parser = serde_json::Deserializer::from_slice(body);
    Readable(MAX_DEPTH).deserialize(&mut parser).is_ok() && parser.end().is_ok()
}

/// Reads a value with all its strings and numbers, keeping nothing. The number is the nesting left.
struct Readable(usize);

impl Readable {
    fn inner<E: serde::de::Error>(&self) -> Result<Readable, E> {
        let depth = self.0.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        Ok(Readable(depth))
    }
}

impl<'de> DeserializeSeed<'de> for Readable {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.inner::<A::Error>()?.0;
        while seq.next_element_seed(Readable(depth))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.inner::<A::Error>()?.0;
        while map.next_key_seed(Readable(depth))?.is_some() {
            map.next_value_seed(Readable(depth))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn event(content_type: Option<&str>, body: &[u8]) -> Event {
        Event {
            id: "id \"1\"\n".into(),
            source: "sonzai".into(),
            kind: "agent.message".into(),
            subject: None,
            time_ms: 0,
            content_type: content_type.map(Into::into),
            traceparent: None,
            extensions: Vec::new(),
            headers: vec![("x-other".into(), "never in the document".into())],
            body: Bytes::copy_from_slice(body),
        }
    }

    /// The body as a reader of the document gets it, and whether it was in `data`.
    fn read_back(document: &[u8]) -> (Vec<u8>, bool) {
        assert!(!document.contains(&b'\n') && !document.contains(&b'\r'));
        let parsed: Value = serde_json::from_slice(document).expect("the document is JSON");
        match parsed.get("data_base64") {
            Some(encoded) => {
                let encoded = encoded.as_str().expect("base64 is a string");
                (BASE64_STANDARD.decode(encoded).expect("base64"), false)
            }
            None => {
                let text = std::str::from_utf8(document).expect("UTF-8");
                let start = text.find(",\"data\":").expect("data") + ",\"data\":".len();
                (document[start..document.len() - 1].to_vec(), true)
            }
        }
    }

    #[test]
    fn every_body_survives_byte_for_byte() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let (deep, too_deep, absurd) =
            (nested(MAX_DEPTH), nested(MAX_DEPTH + 1), "[".repeat(100_000));
        let cases: [(&[u8], bool); 22] = [
            (b"{\"a\":1}", true),
            (b" { \"a\" : [ 1 , 2.50 , null , true ] }\t", true),
            (b"{\n  \"a\": 1\n}", false),
            (b"{\"a\":1}\r\n", false),
            (b"\"a\\nb\"", true),
            (b"{\"a\":1,\"a\":2}", true),
            (b"12345678901234567890123", true),
            (b"1e999", false),
            (b"[1e999]", false),
            (b"\"\\ud800\"", false),
            (b"\"</script>\"", true),
            ("\"\u{2028}\"".as_bytes(), true),
            (b"", false),
            (b"{", false),
            (b"{} {}", false),
            (b"\xef\xbb\xbf{}", false),
            (b"\"\xff\"", false),
            (b"\x00\x01", false),
            (b"hello", false),
            (deep.as_bytes(), true),
            (too_deep.as_bytes(), false),
            (absurd.as_bytes(), false),
        ];
        for (body, verbatim) in cases {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let document = document(&event(Some("application/json"), body));
            assert_eq!(read_back(&document), (body.to_vec(), verbatim), "{shown}");
        }
    }

    #[test]
    fn data_is_embedded_only_under_a_json_content_type() {
        let cases = [
            (None, true, Some("application/json")),
            (Some("application/json"), true, Some("application/json")),
            (
                Some("Application/JSON; charset=utf-8"),
                true,
                Some("Application/JSON; charset=utf-8"),
            ),
            (Some("application/problem+json"), true, Some("application/problem+json")),
            (Some("text/plain"), false, Some("text/plain")),
            (Some("json"), false, Some("json")),
            (Some("application/jsonx"), false, Some("application/jsonx")),
            (Some(""), false, Some("")),
        ];
        for (content_type, verbatim, expected) in cases {
            let document = document(&event(content_type, b"{}"));
            assert_eq!(read_back(&document), (b"{}".to_vec(), verbatim), "{content_type:?}");
            let parsed: Value = serde_json::from_slice(&document).unwrap();
            assert_eq!(parsed.get("datacontenttype").and_then(Value::as_str), expected);
        }
        let parsed: Value = serde_json::from_slice(&document(&event(None, b"\xff"))).unwrap();
        assert_eq!(parsed.get("datacontenttype"), None);
    }

    #[test]
    fn attributes_are_escaped_and_complete() {
        let mut event = event(None, b"{}");
        event.subject = Some("s".into());
        event.traceparent = Some("00-1-2-01".into());
        event.extensions.push(("agentid".into(), "a".into()));
        assert_eq!(
            String::from_utf8(document(&event)).unwrap(),
            r#"{"specversion":"1.0","id":"id \"1\"\n","source":"sonzai","type":"agent.message","#
                .to_owned()
                + r#""time":"1970-01-01T00:00:00.000Z","subject":"s","agentid":"a","#
                + r#""traceparent":"00-1-2-01","datacontenttype":"application/json","data":{}}"#
        );
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_document_that_gives_them_back(
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert_eq!(read_back(&document(&event(None, &body))).0, body);
        }
    }
}
