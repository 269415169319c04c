//! What is refused: `application/problem+json`, shaped as the document's `ErrorModel`.

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::answers::{Reply, schema_url};

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub status: StatusCode,
    pub detail: String,
    pub errors: Vec<Detail>,
    /// A header that goes with it, such as `Allow`.
    pub header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detail {
    pub location: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), errors: Vec::new(), header: None }
    }

    /// 422 with everything that is wrong.
    pub fn invalid(errors: Vec<Detail>) -> Problem {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Problem { errors, ..Problem::new(status, "validation failed") }
    }

    pub fn not_found(what: &str) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, format!("{what} not found"))
    }

    pub fn with(self, name: HeaderName, value: HeaderValue) -> Problem {
        Problem { header: Some(Box::new((name, value))), ..self }
    }

    /// As it is answered.
    pub fn reply(self, base: &str) -> Reply {
        let shape = Shape {
            schema: schema_url(base, "ErrorModel"),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        let mut reply = Reply::json(self.status, &shape);
        reply.content_type = Some("application/problem+json");
        reply.headers.extend(self.header.map(|header| *header));
        reply
    }
}

#[derive(Serialize)]
struct Shape<'p> {
    #[serde(rename = "$schema")]
    schema: String,
    title: &'static str,
    status: u16,
    detail: &'p str,
    #[serde(skip_serializing_if = "<[Detail]>::is_empty")]
    errors: &'p [Detail],
}
