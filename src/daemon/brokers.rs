//! The clients of the brokers of a table.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Error;
use crate::{
    broker::{Broker, kafka, log, nats, rabbitmq},
    dispatch::Client,
    routing::{BrokerKind, BrokerSettings},
};

/// Builds the client of a broker of the table; connects to nothing. Blocks while files are read.
pub fn client(settings: &BrokerSettings, data_dir: &Path) -> Result<Client, Error> {
    let BrokerSettings { name, kind, .. } = settings;
    let broker =
        broker(kind, data_dir).map_err(|cause| Error::Broker { broker: name.clone(), cause })?;
    let settings = Some(Arc::new(kind.clone()));
    Ok(Client { kind: Some(kind.of_type()), settings, broker })
}

/// Where a `log` broker writes that names no directory of its own.
pub fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("log")
}

fn broker(kind: &BrokerKind, data_dir: &Path) -> Result<Box<dyn Broker>, String> {
    Ok(match kind {
        BrokerKind::Kafka(settings) => {
            Box::new(kafka::Kafka::new(settings.clone()).map_err(|e| e.to_string())?)
        }
        BrokerKind::RabbitMq(settings) => {
            Box::new(rabbitmq::RabbitMq::new(settings.clone()).map_err(|e| e.to_string())?)
        }
        BrokerKind::Nats(settings) => {
            Box::new(nats::Nats::new(settings.clone()).map_err(|e| e.to_string())?)
        }
        BrokerKind::Log { dir, rotate_bytes, keep } => {
            let dir = dir.clone().unwrap_or_else(|| log_dir(data_dir));
            let rotate_bytes = rotate_bytes.unwrap_or(log::ROTATE_BYTES);
            Box::new(log::Log::new(log::Settings { dir, rotate_bytes, keep: *keep }))
        }
    })
}
