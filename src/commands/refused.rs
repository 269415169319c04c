//! Why a message is no command that could be carried out. The words are for who reads the dead letter.

use super::bounds::{KIND, MAX_BODY_BYTES, MAX_DELAY_HOURS, MAX_ID_BYTES};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it has {0} bytes, and a command has at most {MAX_BODY_BYTES}")]
    TooLarge(usize),
    #[error("it is a batch of CloudEvents: send each command as a message of its own")]
    Batch,
    #[error("it is not a CloudEvents document: {0}")]
    NotADocument(String),
    #[error("its CloudEvents attribute `{0}` is not text")]
    NotAnAttribute(&'static str),
    #[error("its CloudEvents version is {0:?}; only 1.0 is known")]
    Version(String),
    #[error(
        "it has no id, by which a second delivery would be known: send the CloudEvents attribute \
         `id`{0}"
    )]
    NoId(&'static str),
    #[error("its id is empty, longer than {MAX_ID_BYTES} bytes, or has control characters")]
    BadId,
    #[error("it has CloudEvents attributes but no `type`, which must be `{KIND}`")]
    NoType,
    #[error("its type is {0:?}, and only `{KIND}` is carried out")]
    OtherType(String),
    #[error("it has no data")]
    NoData,
    #[error("its data_base64 is not base64")]
    NotBase64,
    #[error("its data is not JSON: {0}")]
    NotJson(String),
    #[error("its data is not a JSON object")]
    NotAnObject,
    #[error("its data has `{name}`, which is not known{}", hint(*nearest))]
    Unknown { name: String, nearest: Option<&'static str> },
    #[error("its data has both `{0}` and `{1}`, which are the same: keep the second")]
    Both(&'static str, &'static str),
    #[error("its data has no `{0}`")]
    Missing(&'static str),
    #[error("`{0}` of its data must be text that is not empty")]
    NotText(&'static str),
    #[error("`delay_hours` of its data must be a whole number of hours, 0 to {MAX_DELAY_HOURS}")]
    NotHours,
    #[error("its data says neither `delay_hours` nor `scheduled_at`: when is it to be?")]
    NoTime,
    #[error("`scheduled_at` of its data is not a time of RFC 3339, such as 2026-01-02T03:04:05Z")]
    NotATime,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; is it `{name}`?")).unwrap_or_default()
}
