//! A message set aside on disk: parked (still being tried) or a dead letter (given up on).
//!
//! Whoever sets one aside waits until it is known whether that is durable, however long the disk takes:
//! one whose outcome was left open would be set aside a second time.
//!
//! # Layout (version 1)
//!
//! ```text
//! u8   version
//! u32  attempts
//! u64  first_ms
//! u64  at_ms
//! u32  length of the reason, and the reason in UTF-8
//! ...  a record with the one message
//! ```
//!
//! Integers are little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use tokio::sync::oneshot;

use crate::{
    event::{self, Event, Format, Message, Record},
    journal::{AppendError, Entry, Journal},
};

/// The type of what is kept to tell of damage. No source has its source: names are not empty.
const DAMAGE: ByteString = ByteString::from_static("waypost.journal.damage");

/// One message with its event, and what was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub event: Event,
    pub message: Message,
    /// How often it was published without being confirmed.
    pub attempts: u32,
    /// When it was first tried, Unix milliseconds; 0 if never.
    pub first_ms: u64,
    /// Parked: not tried again before this. Dead letter: when it was given up on. Unix milliseconds.
    pub at_ms: u64,
    /// Why it was set aside.
    pub reason: ByteString,
}

/// Why bytes are not a kept message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("version {0} of a kept message is not known to this version of waypost")]
    Version(u8),
    #[error("a kept message ends before its fields do, or holds not exactly one message")]
    Malformed,
    #[error(transparent)]
    Record(#[from] event::Error),
}

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 4 + 8 + 8 + 4;

impl Kept {
    /// Tells that records were lost by damage: no message, and no event of a source.
    pub fn of_damage(
        id: ByteString,
        broker: ByteString,
        body: Bytes,
        reason: ByteString,
        at_ms: u64,
    ) -> Kept {
        let event = Event {
            id,
            source: ByteString::new(),
            kind: DAMAGE,
            subject: None,
            time_ms: at_ms,
            content_type: Some(ByteString::from_static("application/json")),
            traceparent: None,
            extensions: Vec::new(),
            headers: Vec::new(),
            body,
        };
        let (route, headers) = Default::default();
        let address = Err(reason.clone());
        let message = Message { route, broker, address, format: Format::Binary, headers };
        Kept { event, message, attempts: 0, first_ms: 0, at_ms, reason }
    }

    /// Whether it tells of damage: then there is nothing to publish.
    pub fn is_damage(&self) -> bool {
        self.event.source.is_empty() && self.event.kind == DAMAGE
    }

    pub fn encode(self) -> Bytes {
        let record = Record { event: self.event, messages: vec![self.message] }.encode();
        let mut out = BytesMut::with_capacity(HEAD_BYTES + self.reason.len() + record.len());
        out.put_u8(VERSION);
        out.put_u32_le(self.attempts);
        out.put_u64_le(self.first_ms);
        out.put_u64_le(self.at_ms);
        out.put_u32_le(self.reason.len() as u32);
        out.put_slice(self.reason.as_bytes());
        out.put_slice(&record);
        out.freeze()
    }

    pub fn decode(mut input: Bytes) -> Result<Kept, Error> {
        if input.len() < HEAD_BYTES {
            return Err(Error::Malformed);
        }
        match input.get_u8() {
            VERSION => {}
            other => return Err(Error::Version(other)),
        }
        let attempts = input.get_u32_le();
        let (first_ms, at_ms) = (input.get_u64_le(), input.get_u64_le());
        let reason_len = input.get_u32_le() as usize;
        if input.len() < reason_len {
            return Err(Error::Malformed);
        }
        let reason = ByteString::try_from(input.split_to(reason_len));
        let reason = reason.map_err(|_| Error::Malformed)?;
        let Record { event, messages } = Record::decode(input)?;
        let [message] = <[Message; 1]>::try_from(messages).map_err(|_| Error::Malformed)?;
        Ok(Kept { event, message, attempts, first_ms, at_ms, reason })
    }
}

/// What will be known of a message that is handed to a journal.
pub(super) struct SettingAside(oneshot::Receiver<Result<(), AppendError>>);

impl SettingAside {
    /// Hands it over; those of one task are kept in the order in which they were.
    pub async fn begin(journal: &Journal, time_ms: u64, kept: Kept) -> SettingAside {
        let (tell, told) = oneshot::channel();
        let entry = Entry::new(kept.encode(), time_ms);
        // Whoever waits may be gone; the message is then set aside, and still where it was, too.
        let done = move |outcome: Result<_, _>| drop(tell.send(outcome.map(drop)));
        journal.append(entry, Box::new(done)).await;
        SettingAside(told)
    }

    /// Whether it is durable.
    pub async fn known(self) -> Result<(), AppendError> {
        self.0.await.unwrap_or(Err(AppendError::Closed))
    }
}

/// Sets one message aside; durable on return.
pub(super) async fn set_aside(
    journal: &Journal,
    time_ms: u64,
    kept: Kept,
) -> Result<(), AppendError> {
    SettingAside::begin(journal, time_ms, kept).await.known().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::{event, message, plain};

    proptest! {
        #[test]
        fn a_kept_message_is_read_back_as_it_was_written(
            event in event(), message in message(), attempts: u32, first_ms: u64, at_ms: u64,
            reason in "\\PC{0,20}", cut: prop::sample::Index,
        ) {
            let kept = Kept { event, message, attempts, first_ms, at_ms, reason: reason.into() };
            let bytes = kept.clone().encode();
            // The body is what is left, so a shorter entry may still be one; it never crashes.
            let _shorter = Kept::decode(bytes.slice(..cut.index(bytes.len())));
            prop_assert_eq!(Kept::decode(bytes).unwrap(), kept);
        }
    }

    #[test]
    fn what_tells_of_damage_is_known_as_that_and_no_event_is() {
        let letter = Kept::of_damage("1".into(), "live".into(), Bytes::new(), "why".into(), 7);
        let read = Kept::decode(letter.clone().encode()).unwrap();
        assert_eq!(read, letter);
        assert!(read.is_damage());
        // A source may have a type of this name.
        let of_source = Event { source: "s".into(), ..letter.event.clone() };
        assert!(!Kept { event: of_source, ..letter }.is_damage());
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        let record = Record { event: plain("1", "{}"), messages: vec![] }.encode();
        let mut bytes = vec![VERSION];
        bytes.extend([0; HEAD_BYTES - 1]);
        bytes.extend(&record);
        assert!(matches!(Kept::decode(bytes.into()), Err(Error::Malformed)));
        assert!(matches!(Kept::decode(Bytes::new()), Err(Error::Malformed)));
        assert!(matches!(Kept::decode(vec![7; HEAD_BYTES].into()), Err(Error::Version(7))));
    }
}
