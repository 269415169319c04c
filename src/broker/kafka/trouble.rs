//! What keeps a client from the cluster, in words that say what to check.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use tokio_rustls::rustls::{ClientConnection, pki_types::ServerName};

use super::{super::tls, config::Settings};
use crate::certificates;

/// How long each step of a handshake may take that is only made to see what is wrong with it.
const STEP_DEADLINE: Duration = Duration::from_secs(2);

/// Why no broker answered. `trouble` is the last one in librdkafka's words, if it had any. Blocks.
pub fn explain(trouble: Option<&str>, settings: &Settings) -> String {
    let Some(trouble) = trouble else { return format!(": {}", check("", settings)) };
    match why_no_handshake(trouble, settings) {
        Some(why) => format!(": {why}"),
        None => format!(" ({trouble}): {}", check(trouble, settings)),
    }
}

fn check(trouble: &str, settings: &Settings) -> &'static str {
    if trouble.contains("SASL") && trouble.contains("mechanism handshake") {
        return "check `sasl.mechanism` against what the brokers support";
    }
    if trouble.contains("SASL") {
        return "check `sasl.user` and `sasl.password`, and that the brokers know this user by \
                `sasl.mechanism`";
    }
    match (&settings.tls, &settings.sasl) {
        // What a listener does with a client that speaks another protocol is to hang up.
        (None, _) | (_, None) => {
            "check that the brokers run, that `bootstrap` names them, that their advertised \
             listeners can be reached from here, and whether the listener wants `tls:` or `sasl:`"
        }
        (Some(_), Some(_)) => {
            "check that the brokers run, that `bootstrap` names them, and that their advertised \
             listeners can be reached from here"
        }
    }
}

/// OpenSSL says of a certificate only that it is refused. So where TLS failed, a handshake of our own
/// shows why: with the same settings, and nothing sent in it.
fn why_no_handshake(trouble: &str, settings: &Settings) -> Option<String> {
    let tls = settings.tls.as_ref()?;
    if trouble.contains("SASL") {
        return None;
    }
    let (host, port) = place(trouble)?;
    let error = shake_hands(host, port, tls).err()?;
    let why = match (certificates::tls_cause(&error), error.kind()) {
        (Some(cause), _) => tls.why(cause),
        // librdkafka words this one differently from one attempt to the next.
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "the broker hung up in the TLS handshake: check that the port speaks TLS".to_owned()
        }
        (None, _) => return None,
    };
    Some(format!("{host}:{port}: {why}"))
}

/// Of `ssl://host:port/bootstrap: what happened`, host and port.
fn place(trouble: &str) -> Option<(&str, u16)> {
    let (_, rest) = trouble.split_once("://")?;
    let (address, _) = rest.split_once('/')?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

fn shake_hands(host: &str, port: u16, tls: &tls::Settings) -> io::Result<()> {
    let config = tls.client_config().map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let address = (host, port).to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut socket = TcpStream::connect_timeout(&address, STEP_DEADLINE)?;
    socket.set_read_timeout(Some(STEP_DEADLINE))?;
    socket.set_write_timeout(Some(STEP_DEADLINE))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    connection.complete_io(&mut socket)?;
    // In TLS 1.3 the broker looks at our certificate when we are done (RFC 8446, section 4.4.2.4).
    connection.complete_io(&mut socket)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::kafka::{Mechanism, Sasl};

    #[test]
    fn a_trouble_names_its_place() {
        for (trouble, expected) in [
            (
                "ssl://kafka.example:9093/bootstrap: SSL handshake failed",
                Some(("kafka.example", 9093)),
            ),
            ("sasl_ssl://[::1]:9093/1: Disconnected", Some(("::1", 9093))),
            ("kafka.example:9092/bootstrap: Connection refused", None),
            ("nothing of the kind", None),
        ] {
            assert_eq!(place(trouble), expected, "{trouble}");
        }
    }

    #[test]
    fn each_trouble_says_what_to_check() {
        let plain =
            Settings { bootstrap: "a".into(), client_id: "w".into(), tls: None, sasl: None };
        let sasl = Some(Sasl {
            mechanism: Mechanism::Plain,
            user: "me".into(),
            password: "hunter2".into(),
        });
        let sasl = Settings { sasl, ..plain.clone() };
        for (settings, trouble, expected) in [
            (&plain, None, "whether the listener wants `tls:` or `sasl:`"),
            (&plain, Some("a:1/bootstrap: Connection refused"), "that the brokers run"),
            (
                &sasl,
                Some(
                    "sasl_plaintext://a:1/bootstrap: SASL authentication error: Authentication failed",
                ),
                "check `sasl.user` and `sasl.password`",
            ),
            (
                &sasl,
                Some(
                    "sasl_plaintext://a:1/1: SASL PLAIN mechanism handshake failed: broker's \
                      supported mechanisms: SCRAM-SHA-256",
                ),
                "check `sasl.mechanism`",
            ),
        ] {
            let words = explain(trouble, settings);
            assert!(words.contains(expected), "{expected}: {words}");
            assert!(!words.contains("hunter2"), "{words}");
        }
    }
}
