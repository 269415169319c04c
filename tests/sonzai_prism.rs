//! What the client asks is what Sonzai's document allows: a published mock server, which is run from
//! that document, takes every call, and so does the document itself.

use std::time::Duration;

use secrecy::SecretString;
use waypost::{
    sonzai::client::{Client, Error, Limits, NewWakeup, ProjectFilter},
    source::sonzai::settings::{Api, Scope},
};

use crate::common::{
    openapi::{self, Document},
    prism::Prism,
    sonzai_stub::SonzaiStub,
};

const PROJECT: &str = "11111111-1111-4111-8111-111111111111";
const TYPE: &str = "on_wakeup_ready";
const URL: &str = "https://hooks.example.com/hooks/sonzai/on_wakeup_ready";

fn client(url: &str) -> Client {
    let api = Api { url: url.to_owned(), key: "sk_test".into(), ca: None };
    let limits = Limits {
        request_timeout: Duration::from_secs(30),
        max_attempts: 2,
        max_pause: Duration::from_secs(1),
        max_answer_bytes: 1 << 20,
        max_requests_per_second: 1000,
    };
    Client::new(&api, limits).expect("a client")
}

/// Makes every call that there is, with all that each may say; what came of them, by name.
async fn every_call(client: &Client) -> Vec<(&'static str, Result<(), Error>)> {
    let mut outcomes = Vec::new();
    let mut note = |name, outcome: Result<(), Error>| outcomes.push((name, outcome));
    let authorization = SecretString::from("Bearer for-webhooks");
    for scope in [Scope::Tenant, Scope::Project(PROJECT.to_owned())] {
        let auth = Some(&authorization);
        note("register", client.register(&scope, TYPE, URL, auth).await.map(drop));
        note("register again", client.register(&scope, TYPE, URL, None).await.map(drop));
        note("webhooks", client.webhooks(&scope).await.map(drop));
        note("rotate", client.rotate(&scope, TYPE).await.map(drop));
        note("attempts", client.attempts(&scope, TYPE, 500, None).await.map(drop));
        note("delete", client.delete_webhook(&scope, TYPE).await);
    }
    let all = ProjectFilter::default();
    note("notifications", client.project_notifications(PROJECT, all, 200).await.map(drop));
    let some = ProjectFilter { agent_id: Some("agent-1"), event_type: Some(TYPE) };
    note("some notifications", client.project_notifications(PROJECT, some, 1).await.map(drop));
    let ids = ["n-1".into(), "n-2".into()];
    note("acknowledge", client.acknowledge(PROJECT, &ids).await.map(drop));
    note("agents", client.agents(None, None).await.map(drop));
    note("agents of a project", client.agents(Some(PROJECT), None).await.map(drop));
    for agent in ["agent-1", "Luna 1"] {
        let pending = client.agent_notifications(agent, Some("user-1"), 500).await;
        note("agent's notifications", pending.map(drop));
        note("history", client.history(agent, 500).await.map(drop));
        note("wakeups", client.wakeups(agent, Some("pending"), 500).await.map(drop));
        let wakeup = NewWakeup {
            user_id: "user-1".to_owned(),
            check_type: "reminder".to_owned(),
            intent: "ask about the exam".to_owned(),
            delay_hours: 0,
            scheduled_at: Some("2030-01-02T03:04:05Z".to_owned()),
            occasion: Some("exam".to_owned()),
            interest_topic: Some("school".to_owned()),
            event_description: Some("the exam of physics".to_owned()),
        };
        let key = "0123456789abcdef0123456789abcdef";
        note("schedule", client.schedule_wakeup(agent, &wakeup, key).await.map(drop));
    }
    let pending = client.agent_notifications("agent-1", None, 1).await;
    let first = pending.map(|list| list.items.first().map(|item| item.id.to_string()));
    let message = first.ok().flatten().unwrap_or_else(|| "m-1".to_owned());
    note("consume", client.consume("agent-1", &message).await);
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mock_server_run_from_the_document_takes_every_call() {
    let Some(document) = Document::load() else { return };
    let Some(prism) = Prism::start(&document) else { return };
    for (name, outcome) in every_call(&client(&format!("http://{}", prism.address))).await {
        assert!(outcome.is_ok(), "{name}: {}", outcome.unwrap_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_takes_every_call_and_the_document_allows_each() {
    let stub = SonzaiStub::start(&[]);
    let outcomes = every_call(&client(&stub.url())).await;
    for (name, outcome) in &outcomes {
        assert!(outcome.is_ok(), "{name}: {}", outcome.as_ref().unwrap_err());
    }
    let requests = stub.requests();
    let count = requests["requests"].as_array().map(Vec::len);
    assert_eq!(count, Some(outcomes.len() + 1), "and what lists a message to consume");
    openapi::assert_allows(&requests);
}
