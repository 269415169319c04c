//! What arrived, told by the events' ids.

use super::consume::Consumed;

/// The ids of messages, from the header that carries them on their broker.
pub fn ids(messages: &[Consumed], header: &str) -> Vec<String> {
    messages.iter().map(|message| message.header(header).expect("an id").to_owned()).collect()
}

/// The same ids, each as often as the other has it.
#[track_caller]
pub fn assert_ids(mut found: Vec<String>, mut expected: Vec<String>) {
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}
