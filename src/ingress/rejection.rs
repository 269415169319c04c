//! Why a request is not accepted, as the sender learns it: the one place with statuses and words.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::{admit, journal::AppendError, source};

/// Seconds after which a sender may come again; faults that end by themselves take about as long.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("5");

/// See the module.
#[derive(Debug)]
pub enum Rejection {
    NoSuchSource,
    Method,
    /// The head can be read in more than one way.
    Malformed,
    TooManyHeaders,
    /// A compressed body.
    Encoded,
    NotVerified,
    BodyTooLarge,
    BodyTimeout,
    BodyIncomplete,
    /// Too many requests, or body bytes, in flight.
    Busy,
    Draining,
    /// Whether it is verified cannot be told: a secret is being changed, or is not there yet.
    SecretChanging,
    NotAdmitted(admit::Error),
}

impl From<admit::Error> for Rejection {
    fn from(error: admit::Error) -> Rejection {
        Rejection::NotAdmitted(error)
    }
}

impl From<source::Rejection> for Rejection {
    fn from(rejection: source::Rejection) -> Rejection {
        match rejection {
            source::Rejection::Changing => Rejection::SecretChanging,
            source::Rejection::Signature(_) | source::Rejection::Authorization => {
                Rejection::NotVerified
            }
        }
    }
}

impl Rejection {
    /// The answer. Never a 4xx for a fault of ours, and nothing that tells a stranger what was
    /// wrong with a signature.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let (status, words) = self.status_and_words();
        let body = format!("{{\"error\":\"{words}\"}}");
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_S);
        }
        response
    }

    /// The status of the answer, and what its body says.
    pub fn status_and_words(&self) -> (StatusCode, &'static str) {
        match self {
            Rejection::NoSuchSource => (StatusCode::NOT_FOUND, "no source has this path"),
            Rejection::Method => (StatusCode::METHOD_NOT_ALLOWED, "send webhooks with POST"),
            Rejection::Malformed => (StatusCode::BAD_REQUEST, "the request's head is ambiguous"),
            Rejection::TooManyHeaders => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers")
            }
            Rejection::Encoded => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the body as it is, not encoded")
            }
            Rejection::NotVerified => (StatusCode::UNAUTHORIZED, "not verified"),
            Rejection::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Rejection::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "the body came too slowly"),
            Rejection::BodyIncomplete => (StatusCode::BAD_REQUEST, "the body is incomplete"),
            Rejection::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy; send it again"),
            Rejection::Draining => {
                (StatusCode::SERVICE_UNAVAILABLE, "shutting down; send it again")
            }
            Rejection::SecretChanging => {
                (StatusCode::SERVICE_UNAVAILABLE, "a secret is being changed; send it again")
            }
            Rejection::NotAdmitted(error) => match error {
                admit::Error::Append(AppendError::TooLarge) => {
                    (StatusCode::PAYLOAD_TOO_LARGE, "the event is too large")
                }
                admit::Error::Append(_)
                | admit::Error::BacklogFull(_)
                | admit::Error::Undecided(_) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "cannot be stored now; send it again")
                }
            },
        }
    }
}
