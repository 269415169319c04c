//! How patient we are: `retry:`, `drain:`, `backlog:` and `when_full:`, which every type of broker
//! takes.

use std::time::Duration;

use bytesize::ByteSize;

use super::{Compiler, Reported};
use crate::routing::{
    file::{self, At, For},
    table::{BrokerPolicy, WhenFull},
};

/// Least that a broker may hold back: below it there is no telling how much it is.
const LEAST_BACKLOG_BYTES: u64 = 64 << 10;

impl Compiler<'_> {
    pub(super) fn policy(&mut self, broker: &file::Broker) -> Result<BrokerPolicy, Reported> {
        let retry_for = self.given_time(&broker.retry);
        let drain_for = self.given_time(&broker.drain);
        let backlog_bytes =
            broker.backlog.as_ref().map(|given| self.size(&given.value.max_bytes)).transpose();
        let when_full = self.when_full(&broker.when_full);
        Ok(BrokerPolicy {
            retry_for: retry_for?,
            drain_for: drain_for?,
            backlog_bytes: backlog_bytes?,
            when_full: when_full?,
        })
    }

    /// `{ for: 10m }`, where it is given.
    pub(super) fn given_time(
        &mut self,
        given: &Option<At<For>>,
    ) -> Result<Option<Duration>, Reported> {
        let Some(given) = given else { return Ok(None) };
        let text = &given.value.r#for;
        humantime::parse_duration(&text.value).map(Some).map_err(|error| {
            let message =
                format!("`{}` is no duration ({error}): write `30s`, `10m` or `24h`", text.value);
            self.report(text, message)
        })
    }

    fn size(&mut self, text: &At<String>) -> Result<u64, Reported> {
        let Ok(ByteSize(bytes)) = text.value.parse() else {
            let message = format!(
                "`{}` is no size: write a number of bytes, or `64MiB` or `2GiB`",
                text.value
            );
            return Err(self.report(text, message));
        };
        if bytes < LEAST_BACKLOG_BYTES {
            let message = format!("a backlog is at least {}", ByteSize(LEAST_BACKLOG_BYTES));
            return Err(self.report(text, message));
        }
        Ok(bytes)
    }

    fn when_full(&mut self, given: &Option<At<String>>) -> Result<WhenFull, Reported> {
        let Some(given) = given else { return Ok(WhenFull::default()) };
        match &*given.value {
            "refuse" => Ok(WhenFull::Refuse),
            "dead_letter_oldest" => Ok(WhenFull::DeadLetterOldest),
            other => {
                let message = format!(
                    "unknown `when_full: {other}`; known are `refuse` and `dead_letter_oldest`"
                );
                Err(self.report(given, message))
            }
        }
    }
}
