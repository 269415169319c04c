//! Whether a query and a body are what the document says. All that is wrong is told at once, in the
//! words that Sonzai's framework (huma) has for it.

use http::{HeaderMap, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::problem::{Detail, Problem};

/// The members of a query. Unknown ones are passed over; of several, the first counts.
#[derive(Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
    errors: Vec<Detail>,
}

impl Query {
    pub fn parse(text: &str) -> Query {
        let decoded = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(name), decoded(value))
        };
        let pairs = text.split('&').filter(|part| !part.is_empty()).map(pair).collect();
        Query { pairs, errors: Vec::new() }
    }

    /// A text; one that is empty counts as left out.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A whole number within limits.
    pub fn integer(&mut self, name: &str, least: Option<i64>, most: i64) -> Option<i64> {
        let text = self.text(name)?.to_owned();
        let wrong = match text.parse::<i64>() {
            Err(_) => "invalid integer".to_owned(),
            Ok(n) if least.is_some_and(|least| n < least) => {
                format!("expected number >= {}", least.unwrap_or_default())
            }
            Ok(n) if n > most => format!("expected number <= {most}"),
            Ok(n) => return Some(n),
        };
        let value = text.parse().map_or(Value::String(text), |n: i64| n.into());
        let location = format!("query.{name}");
        self.errors.push(Detail { location, message: wrong, value: Some(value) });
        None
    }

    /// A position that an answer gave; opaque to clients.
    pub fn cursor(&mut self) -> Option<u64> {
        let text = self.text("cursor")?;
        let read = read_cursor(text);
        if read.is_none() {
            let (location, value) = ("query.cursor".into(), Some(text.into()));
            self.errors.push(Detail { location, message: "invalid cursor".into(), value });
        }
        read
    }

    /// # Errors
    ///
    /// All that was wrong.
    pub fn done(&mut self) -> Result<(), Problem> {
        match std::mem::take(&mut self.errors) {
            errors if errors.is_empty() => Ok(()),
            errors => Err(Problem::invalid(errors)),
        }
    }
}

/// A position as an opaque text.
pub fn cursor(position: u64) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(position.to_string())
}

fn read_cursor(text: &str) -> Option<u64> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    std::str::from_utf8(&bytes).ok()?.parse().ok()
}

/// The members of a body that must be a JSON object.
#[derive(Debug)]
pub struct Members {
    left: Map<String, Value>,
    errors: Vec<Detail>,
}

impl Members {
    /// # Errors
    ///
    /// 415 for what is declared as something else than JSON, 400 for nothing or for what is no JSON,
    /// 422 for what is no object.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Members, Problem> {
        if body.is_empty() {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "request body is required"));
        }
        check_content_type(headers)?;
        match serde_json::from_slice(body) {
            Ok(Value::Object(mut left)) => {
                // The document allows it in every object.
                let schema = left.remove("$schema").filter(|schema| !schema.is_string());
                let errors = schema.map(|value| wrong("$schema", "expected string", value));
                Ok(Members { left, errors: errors.into_iter().collect() })
            }
            Ok(value) => {
                let (location, message) = ("body".into(), "expected object".into());
                Err(Problem::invalid(vec![Detail { location, message, value: Some(value) }]))
            }
            Err(error) => Err(Problem {
                errors: vec![Detail {
                    location: "body".into(),
                    message: error.to_string(),
                    value: None,
                }],
                ..Problem::new(StatusCode::BAD_REQUEST, "invalid request body")
            }),
        }
    }

    /// A text that must be there. Empty if it is not: [`Members::done`] will say so.
    pub fn text(&mut self, name: &'static str) -> String {
        self.required(name);
        self.optional_text(name).unwrap_or_default()
    }

    pub fn optional_text(&mut self, name: &'static str) -> Option<String> {
        match self.left.remove(name)? {
            Value::String(text) => Some(text),
            value => self.wrong(name, "expected string", value),
        }
    }

    /// A whole number that must be there. 0 if it is not: [`Members::done`] will say so.
    pub fn integer(&mut self, name: &'static str) -> i64 {
        self.required(name);
        let Some(value) = self.left.remove(name) else { return 0 };
        // As JSON Schema has it, 1.0 is a whole number.
        let whole = value.as_i64().or_else(|| {
            let float = value.as_f64()?;
            (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
        });
        whole.or_else(|| self.wrong(name, "expected integer", value)).unwrap_or_default()
    }

    /// A list of texts that must be there and may be `null`.
    pub fn texts(&mut self, name: &'static str) -> Vec<String> {
        self.required(name);
        let items = match self.left.remove(name) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(value) => return self.wrong(name, "expected array", value).unwrap_or_default(),
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                value => {
                    let at = format!("{name}[{index}]");
                    self.errors.push(wrong(&at, "expected string", value));
                }
            }
        }
        texts
    }

    /// Notes what the schema cannot say.
    pub fn refuse(&mut self, name: &str, message: &str, value: impl Into<Value>) {
        self.errors.push(wrong(name, message, value.into()));
    }

    /// # Errors
    ///
    /// All that was wrong, and every member that nobody asked for.
    pub fn done(self) -> Result<(), Problem> {
        let Members { left, mut errors } = self;
        errors.extend(
            left.into_iter().map(|(name, value)| wrong(&name, "unexpected property", value)),
        );
        if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
    }

    fn required(&mut self, name: &str) {
        if !self.left.contains_key(name) {
            let message = format!("expected required property {name} to be present");
            self.errors.push(Detail { location: "body".into(), message, value: None });
        }
    }

    fn wrong<T>(&mut self, name: &str, message: &str, value: Value) -> Option<T> {
        self.errors.push(wrong(name, message, value));
        None
    }
}

fn wrong(name: &str, message: &str, value: Value) -> Detail {
    Detail { location: format!("body.{name}"), message: message.into(), value: Some(value) }
}

/// JSON, or something built on it; what is not declared is taken for JSON.
fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind == "application/json" || kind.ends_with("+json") {
        return Ok(());
    }
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(Problem::new(status, format!("unknown content type: {kind}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(content_type: Option<&str>, body: &str) -> Result<Members, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        }
        Members::parse(&headers, body.as_bytes())
    }

    fn told(problem: &Problem) -> Vec<(&str, &str)> {
        problem.errors.iter().map(|e| (e.location.as_str(), e.message.as_str())).collect()
    }

    #[test]
    fn a_body_that_is_no_json_object_is_refused_by_what_it_is() {
        for (content_type, body, status) in [
            (None, "{}", None),
            (Some("application/json"), "{}", None),
            (Some("Application/JSON; charset=utf-8"), "{}", None),
            (Some("application/merge-patch+json"), "{}", None),
            (Some("text/plain"), "{}", Some(415)),
            (Some("application/x-www-form-urlencoded"), "a=b", Some(415)),
            (Some("application/json"), "", Some(400)),
            (Some("application/json"), "{", Some(400)),
            (Some("application/json"), "{} {}", Some(400)),
            (Some("application/json"), "[]", Some(422)),
            (Some("application/json"), "null", Some(422)),
        ] {
            let refused = parse(content_type, body).err().map(|problem| problem.status.as_u16());
            assert_eq!(refused, status, "{content_type:?} {body}");
        }
    }

    #[test]
    fn all_that_is_wrong_with_a_body_is_told_at_once() {
        let mut members =
            parse(None, r#"{"a":7,"n":"1","l":["x",2],"more":{},"$schema":3}"#).unwrap();
        members.text("a");
        members.text("b");
        members.integer("n");
        members.texts("l");
        let problem = members.done().unwrap_err();
        assert_eq!(problem.status, 422);
        assert_eq!(
            told(&problem),
            [
                ("body.$schema", "expected string"),
                ("body.a", "expected string"),
                ("body", "expected required property b to be present"),
                ("body.n", "expected integer"),
                ("body.l[1]", "expected string"),
                ("body.more", "unexpected property"),
            ]
        );
        assert_eq!(problem.errors[1].value, Some(json!(7)));
    }

    #[test]
    fn what_the_schema_allows_passes() {
        let body = r#"{"$schema":"http://x","a":"","n":1.0,"l":null}"#;
        let mut members = parse(None, body).unwrap();
        assert_eq!(members.text("a"), "");
        assert_eq!(members.optional_text("absent"), None);
        assert_eq!(members.integer("n"), 1);
        assert!(members.texts("l").is_empty());
        assert_eq!(members.done(), Ok(()));
    }

    #[test]
    fn numbers_in_a_query_keep_their_limits() {
        for (query, told_message) in [
            ("", None),
            ("limit=", None),
            ("limit=1", None),
            ("limit=500&limit=501", None),
            ("limit=0", Some("expected number >= 1")),
            ("limit=501", Some("expected number <= 500")),
            ("limit=ten", Some("invalid integer")),
            ("limit=1.5", Some("invalid integer")),
            ("other=ten", None),
        ] {
            let mut query = Query::parse(query);
            query.integer("limit", Some(1), 500);
            let message = query.done().err().map(|problem| problem.errors[0].message.clone());
            assert_eq!(message.as_deref(), told_message, "{query:?}");
        }
    }

    #[test]
    fn a_query_is_decoded_and_a_cursor_comes_back() {
        let query = Query::parse("a=b%2Fc+d&e");
        assert_eq!(query.text("a"), Some("b/c d"));
        assert_eq!(query.text("e"), None);
        assert_eq!(read_cursor(&cursor(42)), Some(42));
        assert_eq!(cursor(2), "Mg==");
        assert!(Query::parse("cursor=x").cursor().is_none());
    }
}
