//! What the library and the server answer, told apart: the server's trouble, the message's, or for
//! good. Never shows a URL: the library's addresses carry no credentials, and ours are not printed.

use std::error::Error as _;

use async_nats::{
    ConnectError, ConnectErrorKind, ServerError,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
    },
};

use super::{
    super::{Error, tls},
    Login,
    settings::Servers,
};
use crate::certificates;

/// `connect` failed.
pub fn not_connected(error: &ConnectError, servers: &Servers) -> Error {
    let place = servers.shown();
    if let Some(cause) = certificates::tls_cause(error) {
        let why = servers.tls.as_ref().unwrap_or(&tls::Settings::default()).why(cause);
        return Error::Down(format!("cannot connect to NATS at {place}: {why}"));
    }
    let check = match error.kind() {
        _ if concerns_login(error) => Login::check(servers.login.as_ref()),
        ConnectErrorKind::Dns | ConnectErrorKind::ServerParse => "check the host names in `url`",
        ConnectErrorKind::Tls => "check the CA certificates of this system, and `tls:`",
        _ if servers.tls.is_some() && !servers.tls_first => {
            "check that the server runs, that `url` names it, and whether it wants `tls_first: true`"
        }
        _ => "check that the server runs and that `url` names it",
    };
    Error::Down(format!("cannot connect to NATS at {place}: {error}: {check}"))
}

/// Whether it is about who we are, which the server also says in words without a kind of their own:
/// "User Authentication Expired", "Account Authentication Revoked".
fn concerns_login(error: &ConnectError) -> bool {
    let said = error.source().and_then(|source| source.downcast_ref::<ServerError>());
    match (error.kind(), said) {
        (ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication, _) => true,
        (_, Some(ServerError::Other(text))) => text.to_lowercase().contains("authentication"),
        _ => false,
    }
}

/// The client did not take the message.
pub fn not_sent(error: &PublishError, subject: &str) -> Error {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Error::Refused(format!(
            "subject {subject}: {}: raise the server's max_payload, or route it elsewhere",
            cause(error)
        )),
        _ => Error::Down(format!("the NATS client took no message: {}", cause(error))),
    }
}

/// The message was sent and not stored.
pub fn not_acknowledged(error: &PublishError, subject: &str) -> Error {
    let refusal = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), refusal) {
        (_, Some(refusal)) => refused_by_stream(refusal, subject),
        (PublishErrorKind::BrokenPipe, _) => super::health::disconnected(),
        // An answer that is no acknowledgement: somebody else replies on this subject.
        _ => Error::Failed(format!(
            "subject {subject} was answered, but not by a stream ({}): does a service listen on it?",
            cause(error)
        )),
    }
}

/// A stream answered with an error.
pub fn refused_by_stream(refusal: &jetstream::Error, subject: &str) -> Error {
    let text = format!("subject {subject}: {refusal}");
    match refusal.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Error::Refused(text)
        }
        ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Error::Down(text),
        // A full stream, an account's limit, a sealed stream: may change, and concerns this one.
        _ => Error::Failed(text),
    }
}

/// The library's `Display` repeats the kind and adds the source.
fn cause(error: &PublishError) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u64) -> jetstream::Error {
        let json =
            format!(r#"{{"code":400,"err_code":{code},"description":"the server's words"}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_stream_that_refuses_is_quoted_and_told_apart() {
        let cases = [
            (10054, "refused"),
            (10097, "refused"),
            (10077, "failed"),
            (10023, "failed"),
            (10109, "failed"),
            (10167, "failed"),
            (10008, "down"),
            (10039, "down"),
            (10076, "down"),
        ];
        for (code, expected) in cases {
            let error = refused_by_stream(&refusal(code), "a.b");
            let found = match &error {
                Error::Down(_) => "down",
                Error::Failed(_) => "failed",
                Error::Refused(_) => "refused",
            };
            assert_eq!(found, expected, "{code}");
            assert!(error.to_string().contains("the server's words"), "{error}");
        }
    }

    #[test]
    fn what_no_stream_said_is_told_apart() {
        let cases = [(PublishErrorKind::BrokenPipe, "down"), (PublishErrorKind::Other, "failed")];
        for (kind, expected) in cases {
            let found = match not_acknowledged(&PublishError::new(kind), "a") {
                Error::Down(_) => "down",
                Error::Failed(_) => "failed",
                Error::Refused(_) => "refused",
            };
            assert_eq!(found, expected, "{kind:?}");
        }
        let too_large = PublishError::new(PublishErrorKind::MaxPayloadExceeded);
        assert!(matches!(not_sent(&too_large, "a"), Error::Refused(_)));
    }
}
