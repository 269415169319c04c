//! Many webhooks at the same time.

use std::{net::SocketAddr, sync::Arc};

use tokio::task::JoinSet;

use super::sender::{Answer, Sender, Webhook};

/// Posts all, over so many connections at once; the answers in the order of the webhooks.
pub async fn post_all(
    address: SocketAddr,
    webhooks: &[Webhook],
    connections: usize,
) -> Vec<Answer> {
    let webhooks: Arc<[Webhook]> = webhooks.into();
    let mut tasks = JoinSet::new();
    for first in 0..connections {
        let webhooks = webhooks.clone();
        tasks.spawn(async move {
            let mut sender = Sender::connect(address).await.expect("a connection");
            let mut answers = Vec::new();
            for n in (first..webhooks.len()).step_by(connections) {
                answers.push((n, sender.post(&webhooks[n]).await.expect("an answer")));
            }
            answers
        });
    }
    let mut answers: Vec<(usize, Answer)> = tasks.join_all().await.into_iter().flatten().collect();
    answers.sort_by_key(|(n, _)| *n);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The same, where all must be accepted: their events' ids.
pub async fn accept_all(
    address: SocketAddr,
    webhooks: &[Webhook],
    connections: usize,
) -> Vec<String> {
    let accepted = |answer: Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.event_id.expect("an id")
    };
    let answers = post_all(address, webhooks, connections).await;
    answers.into_iter().map(accepted).collect()
}
