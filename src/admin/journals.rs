//! What operators do about a journal of which something cannot be read: give up on it, or send on what
//! can be read after all.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::future;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Admin, Body, JSON, Unreadable, line, read, refused, text, view::View};
use crate::{
    admit::Outcome,
    clock::now_ms,
    dedupe::{self, Key},
    event::Record,
};

/// Longest batch of what is salvaged: the largest record there can be, as text, fits.
const MAX_SALVAGE_BYTES: usize = 48 << 20;

/// `POST /api/journal/skip`: without `records` it only says what there is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// Give up on what cannot be read, if it is no more records than these.
    pub records: Option<u64>,
}

/// What cannot be read, and how many regions of it were given up on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SkipAnswer {
    pub unreadable: Unreadable,
    pub skipped: u64,
}

/// `POST /api/journal/salvage`: records that are to be delivered after all, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Salvage {
    pub records: Vec<SalvagedRecord>,
}

/// A record as it was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SalvagedRecord {
    /// Of a [`Record`], in Base64.
    pub payload: String,
    /// In hexadecimal digits; the first is its own.
    pub keys: Vec<String>,
}

/// What became of each record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SalvageAnswer {
    pub verdicts: Vec<Verdict>,
}

/// What became of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is durable, and will be delivered.
    Sent,
    /// It is known: it was delivered, or will be.
    Known,
    /// Nobody could deliver it: none of these brokers is in the routing table.
    NoBroker(Vec<String>),
    /// It cannot be taken now, for this reason, and left no trace.
    Later(String),
    /// It is no record.
    Unreadable(String),
}

impl SalvagedRecord {
    pub fn new(payload: &[u8], keys: &[Key]) -> SalvagedRecord {
        SalvagedRecord {
            payload: BASE64_STANDARD.encode(payload),
            keys: keys.iter().map(const_hex::encode).collect(),
        }
    }

    fn decode(&self) -> Result<(Record, Vec<dedupe::Key>), String> {
        let payload = BASE64_STANDARD.decode(&self.payload).map_err(|error| error.to_string())?;
        let record = Record::decode(Bytes::from(payload)).map_err(|error| error.to_string())?;
        let key = |hex: &String| const_hex::decode_to_array(hex).map_err(|error| error.to_string());
        Ok((record, self.keys.iter().map(key).collect::<Result<_, _>>()?))
    }
}

impl Admin {
    /// Gives up on what cannot be read; 422 if that is more than whoever asks has seen.
    pub(super) async fn journal_skip(self, body: Incoming) -> Response<Body> {
        let skip: Skip = match read(body, super::MAX_BODY_BYTES, r#"{"records": 12}"#).await {
            Ok(skip) => skip,
            Err(refused) => return refused,
        };
        let view = self.0.view.clone();
        let skipped = tokio::task::spawn_blocking(move || view.skip_unread(&skip)).await;
        match skipped {
            Ok(Ok(answer)) => text(JSON, line(json!(answer))),
            Ok(Err(words)) => refused(StatusCode::UNPROCESSABLE_ENTITY, &words),
            Err(error) => {
                tracing::error!(%error, "an operator's request failed");
                refused(StatusCode::INTERNAL_SERVER_ERROR, "see the daemon's log")
            }
        }
    }

    /// Takes records in that were read elsewhere, with what they owed when they were received.
    pub(super) async fn journal_salvage(self, body: Incoming) -> Response<Body> {
        let Ok(_alone) = self.0.salvaging.try_acquire() else {
            let words = "somebody else salvages; run this again when that is done";
            return refused(StatusCode::SERVICE_UNAVAILABLE, words);
        };
        let example = r#"{"records": [{"payload": "…", "keys": ["…"]}]}"#;
        let salvage: Salvage = match read(body, MAX_SALVAGE_BYTES, example).await {
            Ok(salvage) => salvage,
            Err(refused) => return refused,
        };
        let view = &self.0.view;
        let verdicts = salvage.records.iter().map(|record| view.readmit(record));
        // They are asked for in this order, so that they are appended in it.
        let verdicts = future::join_all(verdicts).await;
        text(JSON, line(json!(SalvageAnswer { verdicts })))
    }
}

impl View {
    /// Blocks.
    fn skip_unread(&self, skip: &Skip) -> Result<SkipAnswer, String> {
        let unreadable = self.damage().unreadable;
        let mut skipped = 0;
        if let Some(records) = skip.records {
            if unreadable.records > records {
                return Err(format!(
                    "up to {} records cannot be read by now, and not {records}: look again",
                    unreadable.records
                ));
            }
            for named in self.journals() {
                skipped += named.journal.skip_unread() as u64;
            }
            tracing::warn!(skipped, "what could not be read was given up on, as an operator asked");
        }
        Ok(SkipAnswer { unreadable, skipped })
    }

    async fn readmit(&self, salvaged: &SalvagedRecord) -> Verdict {
        let (mut record, keys) = match salvaged.decode() {
            Ok(decoded) => decoded,
            Err(error) => return Verdict::Unreadable(error),
        };
        if record.messages.is_empty() {
            // It said that an event came again, and is owed to nobody.
            return Verdict::Known;
        }
        // What nobody looks after would be appended and never read.
        let brokers = self.brokers.load();
        let is_served =
            |name: &str| brokers.iter().any(|broker| broker.name == *name && broker.is_served());
        let gone: BTreeSet<String> = record
            .messages
            .extract_if(.., |message| !is_served(&message.broker))
            .map(|message| message.broker.to_string())
            .collect();
        if record.messages.is_empty() {
            return Verdict::NoBroker(gone.into_iter().collect());
        }
        if !gone.is_empty() {
            let (id, brokers) = (&*record.event.id, gone);
            tracing::warn!(id, ?brokers, "what a record owed to brokers that are gone is left out");
        }
        match self.admit.readmit(&record, &keys, now_ms()).await {
            Ok(Outcome::Duplicate) => Verdict::Known,
            Ok(_) => Verdict::Sent,
            Err(error) => Verdict::Later(error.to_string()),
        }
    }
}
