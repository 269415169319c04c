use std::collections::BTreeSet;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use waypost::{
    sonzai::client::{Client, Error, NewWakeup, ProjectFilter},
    source::sonzai::settings::Scope,
};

use super::{
    LIMITS, PROJECT,
    api::{Api, answer},
    client,
};

/// What an SDK asked for, recorded: `tests/vectors/sonzai-requests.json`.
#[derive(Deserialize)]
struct Recorded {
    client: String,
    call: String,
    method: String,
    target: String,
    body: String,
    /// Whether it had an `Idempotency-Key`.
    idempotent: bool,
}

/// Answers every call.
const ALL: &str = r#"{"$schema":"x","success":true,"signing_secret":"whsec_x","webhooks":null,
    "attempts":null,"has_more":false,"items":null,"notifications":null,"wakeups":null,
    "acknowledged":2,"wakeup_id":"w-1","scheduled_at":"2026-12-05T09:00:00Z","new":{}}"#;

const HOOK: &str = "https://hooks.example.com/hooks/sonzai/on_wakeup_ready";

/// Makes the same call as an SDK did.
async fn make(client: &Client, call: &str) -> Result<(), Error> {
    let (tenant, project) = (Scope::Tenant, Scope::Project(PROJECT.into()));
    let kind = "on_wakeup_ready";
    let minimal = NewWakeup {
        user_id: "user-1".into(),
        check_type: "interest_followup".into(),
        intent: "ask about the interview".into(),
        delay_hours: 24,
        ..NewWakeup::default()
    };
    let full = NewWakeup {
        user_id: "user-1".into(),
        check_type: "birthday".into(),
        intent: "wish".into(),
        delay_hours: 0,
        scheduled_at: Some("2026-12-05T09:00:00Z".into()),
        occasion: Some("their 30th birthday".into()),
        interest_topic: Some("music".into()),
        event_description: Some("turns 30".into()),
    };
    let key = "0123456789abcdef0123456789abcdef";
    match call {
        "webhooks.register(first)" => {
            let secret = client.register(&tenant, kind, HOOK, None).await?;
            assert_eq!(secret.expect("a secret").expose_secret(), "whsec_x");
        }
        "webhooks.register(update, auth_header)" => {
            let authorization = SecretString::from("Bearer your-webhook-secret");
            client.register(&tenant, kind, HOOK, Some(&authorization)).await?;
        }
        "webhooks.list()" => drop(client.webhooks(&tenant).await?),
        "webhooks.rotate_secret()" => drop(client.rotate(&tenant, kind).await?),
        "webhooks.list_delivery_attempts(page_size=2).to_list()" => {
            client.attempts(&tenant, kind, 2, None).await?;
        }
        "webhooks.list_delivery_attempts(page_size=2).to_list() page 2" => {
            client.attempts(&tenant, kind, 2, Some("Mg==")).await?;
        }
        "webhooks.delete()" => client.delete_webhook(&tenant, kind).await?,
        "webhooks.register_for_project(first)" => {
            let authorization = SecretString::from("Bearer t");
            let url = "https://hooks.example.com/p";
            client.register(&project, kind, url, Some(&authorization)).await?;
        }
        "webhooks.list_for_project()" => drop(client.webhooks(&project).await?),
        "webhooks.rotate_secret_for_project()" => drop(client.rotate(&project, kind).await?),
        "webhooks.list_delivery_attempts_for_project(page_size=3).to_list() page 2" => {
            client.attempts(&project, kind, 3, Some("Mw==")).await?;
        }
        "webhooks.delete_for_project()" => client.delete_webhook(&project, kind).await?,
        "agents.list()" => drop(client.agents(None, None).await?),
        "async page 2" => drop(client.agents(None, Some("Mg==")).await?),
        "agents.notifications.list(status,user_id)" => {
            client.agent_notifications("agent-1", Some("user-1"), 50).await?;
        }
        "agents.notifications.consume()" => client.consume("agent-1", "msg-0").await?,
        "agents.notifications.history(limit=5)" => drop(client.history("agent-1", 5).await?),
        "project_notifications.list(agent_id,event_type,limit)" => {
            let filter = ProjectFilter { agent_id: Some("agent-1"), event_type: Some(kind) };
            client.project_notifications(PROJECT, filter, 200).await?;
        }
        "project_notifications.acknowledge()" => {
            let ids = ["n-0".into(), "n-1".into()];
            assert_eq!(client.acknowledge(PROJECT, &ids).await?, 2);
            assert_eq!(client.acknowledge(PROJECT, &[]).await?, 0, "nobody is asked");
        }
        "agents.schedule_wakeup(minimal)" => {
            let scheduled = client.schedule_wakeup("agent-1", &minimal, key).await?;
            assert_eq!(scheduled.wakeup_id, "w-1");
        }
        "agents.schedule_wakeup(full)" => {
            client.schedule_wakeup("agent-1", &full, key).await?;
        }
        "Agents.Wakeups.List(Status,Limit)" => {
            client.wakeups("agent-1", Some("pending"), 10).await?;
        }
        "odd: project_notifications generated list_notifications(\"Luna 月/a?b#c\")" => {
            client.agent_notifications("Luna 月/a?b#c", None, 50).await?;
        }
        call => panic!("no such call: {call}"),
    }
    Ok(())
}

/// The path, and the query's members in any order. How large a page of agents is, and that only pending
/// notifications are asked for, is our own affair.
fn parts(target: &str) -> (&str, BTreeSet<&str>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let ours = |member: &&str| {
        let agents = path.ends_with("/agents") && member.starts_with("page_size=");
        !(member.is_empty() || agents || *member == "status=pending")
    };
    (path, query.split('&').filter(ours).collect())
}

#[tokio::test]
async fn every_call_is_asked_for_as_the_platforms_own_sdks_do() {
    let recorded: Vec<Recorded> =
        serde_json::from_str(include_str!("../vectors/sonzai-requests.json")).expect("a list");
    let api = Api::scripted(vec![|| answer(200, ALL)]).await;
    let client = client(&api, LIMITS);
    for (index, recorded) in recorded.iter().enumerate() {
        let what = format!("{}: {}", recorded.client, recorded.call);
        make(&client, &recorded.call).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(api.count(), index + 1, "{what}");
        let asked = &api.asked()[index];
        assert_eq!(asked.method.as_str(), recorded.method, "{what}");
        assert_eq!(parts(&asked.target), parts(&recorded.target), "{what}");
        let json = |body: &str| match body {
            "" => None,
            body => Some(serde_json::from_str::<Value>(body).expect("JSON")),
        };
        assert_eq!(json(&asked.body), json(&recorded.body), "{what}");
        assert_eq!(asked.header("idempotency-key").is_some(), recorded.idempotent, "{what}");
        let kind = asked.header("content-type");
        assert_eq!(kind, (!asked.body.is_empty()).then_some("application/json"), "{what}");
    }
}
