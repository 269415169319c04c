//! The brokers that there are dispatchers for.

use std::{collections::BTreeSet, path::Path};

use bytestring::ByteString;

use super::Error;
use crate::{
    broker::{Absent, Broker, kafka, log, nats, rabbitmq},
    journal::Journal,
    routing::{BrokerKind, BrokerSettings, Table, UNROUTED},
};

/// A broker with its name, and what kind it is for whoever looks.
pub struct Named {
    pub name: ByteString,
    pub kind: &'static str,
    pub broker: Box<dyn Broker>,
}

impl Named {
    /// One that is not there.
    fn absent(name: impl Into<ByteString>, kind: &'static str, reason: &str) -> Named {
        Named { name: name.into(), kind, broker: Box::new(Absent::new(reason)) }
    }
}

/// The brokers of the table, the built-in one, and one that only writes dead letters for each name
/// that has a cursor but is in the table no more: what it is still owed must not stay for ever.
pub fn brokers(table: &Table, journal: &Journal, data_dir: &Path) -> Result<Vec<Named>, Error> {
    let build = |settings: &BrokerSettings| {
        let (name, kind) = (settings.name.clone(), settings.kind.name());
        Ok(Named { name, kind, broker: broker(settings, data_dir)? })
    };
    let mut brokers: Vec<Named> =
        table.brokers().iter().map(build).collect::<Result<_, Error>>()?;
    let known: BTreeSet<ByteString> = brokers.iter().map(|named| named.name.clone()).collect();
    brokers.push(Named::absent(UNROUTED, "unrouted", "no route takes the event"));
    for name in journal.cursor_names()? {
        if name != UNROUTED && !known.contains(&*name) {
            tracing::warn!(
                broker = name,
                "not in the routing table; what it is owed becomes dead letters"
            );
            let reason = format!("broker `{name}` is not in the routing table");
            brokers.push(Named::absent(name, "removed", &reason));
        }
    }
    Ok(brokers)
}

/// Builds the client of a broker of the table; connects to nothing.
fn broker(settings: &BrokerSettings, data_dir: &Path) -> Result<Box<dyn Broker>, Error> {
    let wrong = |cause: String| Error::Broker { broker: settings.name.clone(), cause };
    Ok(match &settings.kind {
        BrokerKind::Kafka(settings) => {
            Box::new(kafka::Kafka::new(settings.clone()).map_err(|e| wrong(e.to_string()))?)
        }
        BrokerKind::RabbitMq(settings) => {
            Box::new(rabbitmq::RabbitMq::new(settings.clone()).map_err(|e| wrong(e.to_string()))?)
        }
        BrokerKind::Nats(settings) => {
            Box::new(nats::Nats::new(settings.clone()).map_err(|e| wrong(e.to_string()))?)
        }
        BrokerKind::Log { dir, rotate_bytes, keep } => {
            let dir = dir.clone().unwrap_or_else(|| data_dir.join("log"));
            let rotate_bytes = rotate_bytes.unwrap_or(log::ROTATE_BYTES);
            Box::new(log::Log::new(log::Settings { dir, rotate_bytes, keep: *keep }))
        }
    })
}
