//! How patient we are: `retry:`, `drain:`, `backlog:` and `when_full:`, which every type of broker
//! takes.

use std::time::Duration;

use bytesize::ByteSize;

use super::{Compiler, Skipped};
use crate::routing::{
    diagnostic::Code,
    file::{
        Place,
        mirror::{BrokerCommon, For, Size},
    },
    table::BrokerPolicy,
};

/// Least that a broker may hold back: below it there is no telling how much it is.
const LEAST_BACKLOG_BYTES: u64 = 64 << 10;

impl Compiler<'_> {
    pub(super) fn policy(
        &mut self,
        given: &BrokerCommon,
        place: Place,
    ) -> Result<BrokerPolicy, Skipped> {
        let retry_for = self.given_time(&given.retry, place.key("retry"));
        let drain_for = self.given_time(&given.drain, place.key("drain"));
        let backlog_bytes = given.backlog.as_ref().map(|backlog| {
            let place = place.key("backlog").key("max_bytes");
            self.size(&backlog.max_bytes, place)
        });
        Ok(BrokerPolicy {
            retry_for: retry_for?,
            drain_for: drain_for?,
            backlog_bytes: backlog_bytes.transpose()?,
            when_full: given.when_full.unwrap_or_default(),
        })
    }

    /// `{ for: 10m }`, where it is given.
    pub(super) fn given_time(
        &mut self,
        given: &Option<For>,
        place: Place,
    ) -> Result<Option<Duration>, Skipped> {
        let Some(For { r#for: text }) = given else { return Ok(None) };
        self.duration(text, place.key("for")).map(Some)
    }

    pub(super) fn duration(&mut self, text: &str, place: Place) -> Result<Duration, Skipped> {
        humantime::parse_duration(text).map_err(|error| {
            let message = format!("`{text}` is no duration ({error})");
            let help = "write `30s`, `10m` or `24h`";
            self.advise(Code::InvalidValue, place.span(), message, help)
        })
    }

    fn size(&mut self, given: &Size, place: Place) -> Result<u64, Skipped> {
        let bytes = match given {
            Size::Bytes(bytes) => *bytes,
            Size::Text(text) => match text.parse() {
                Ok(ByteSize(bytes)) => bytes,
                Err(_) => {
                    let message = format!("`{text}` is no size");
                    let help = "write a number of bytes, or `64MiB` or `2GiB`";
                    return Err(self.advise(Code::InvalidValue, place.span(), message, help));
                }
            },
        };
        if bytes < LEAST_BACKLOG_BYTES {
            let message = format!("a backlog is at least {}", ByteSize(LEAST_BACKLOG_BYTES));
            return Err(self.report(Code::InvalidValue, place.span(), message));
        }
        Ok(bytes)
    }
}
