//! Notifications: what is pending for polling, by project and by agent, and taking it.

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Client, Error, Listed,
    answer::{Object, Unreadable, entries},
    call::Call,
    target::Target,
};

/// The largest page of a project's notifications.
pub const MAX_PROJECT_PAGE: u32 = 200;

/// The largest page of an agent's notifications, and of its history.
pub const MAX_AGENT_PAGE: u32 = 500;

/// A notification of a project: what its webhook would have brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectNotification {
    pub id: ByteString,
    pub event_type: ByteString,
    /// As it stands in the list, byte for byte. It shares the answer's memory.
    pub payload: Bytes,
    pub agent_id: Option<ByteString>,
    pub user_id: Option<ByteString>,
    pub project_id: Option<ByteString>,
    /// Unix time; `None` if it cannot be read.
    pub created_ms: Option<u64>,
    pub status: Option<ByteString>,
}

/// A notification of an agent: a proactive message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentNotification {
    /// Its `message_id`.
    pub id: ByteString,
    /// The whole entry as it stands in the list, byte for byte. It shares the answer's memory.
    pub raw: Bytes,
    pub agent_id: Option<ByteString>,
    pub user_id: Option<ByteString>,
    pub wakeup_id: Option<ByteString>,
    /// Unix time; `None` if it cannot be read.
    pub created_ms: Option<u64>,
    pub status: Option<ByteString>,
}

/// Which of a project's notifications are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProjectFilter<'f> {
    pub agent_id: Option<&'f str>,
    pub event_type: Option<&'f str>,
}

/// What is taken.
#[derive(Serialize)]
struct Taken<'t> {
    notification_ids: Vec<&'t str>,
}

/// What the list is called, today and in the older guide.
const LIST: [&str; 2] = ["notifications", "items"];

impl Client {
    /// What is pending in a project. `limit` is 1 to [`MAX_PROJECT_PAGE`].
    pub async fn project_notifications(
        &self,
        project: &str,
        filter: ProjectFilter<'_>,
        limit: u32,
    ) -> Result<Listed<ProjectNotification>, Error> {
        let target = of_project(project)
            .query("agent_id", filter.agent_id)
            .query("event_type", filter.event_type)
            .number("limit", limit.clamp(1, MAX_PROJECT_PAGE));
        self.call(Call::get(target), |answer| listed(answer, project_notification)).await
    }

    /// Takes notifications of a project; says how many the API took. Without any, nobody is asked.
    pub async fn acknowledge(&self, project: &str, ids: &[ByteString]) -> Result<u64, Error> {
        if ids.is_empty() {
            return Ok(0);
        }
        let taken = Taken { notification_ids: ids.iter().map(|id| &**id).collect() };
        let call = Call::post(of_project(project).word("acknowledge")).json(&taken);
        self.call(call, |answer| {
            let count = Object::read(answer)?.number("acknowledged");
            count.and_then(|count| count.try_into().ok()).ok_or(Unreadable::Lacks("acknowledged"))
        })
        .await
    }

    /// What is pending for an agent, of one user or of all. `limit` is 1 to [`MAX_AGENT_PAGE`].
    pub async fn agent_notifications(
        &self,
        agent: &str,
        user: Option<&str>,
        limit: u32,
    ) -> Result<Listed<AgentNotification>, Error> {
        let target = of_agent(agent)
            .query("status", Some("pending"))
            .query("user_id", user)
            .number("limit", limit.clamp(1, MAX_AGENT_PAGE));
        self.call(Call::get(target), |answer| listed(answer, agent_notification)).await
    }

    /// Takes one notification of an agent.
    pub async fn consume(&self, agent: &str, message: &str) -> Result<(), Error> {
        let target = of_agent(agent).part("the message", message).word("consume");
        self.call(Call::post(target), |answer| match &answer[..] {
            b"" => Ok(()),
            answer => Object::read(answer)?.succeeded(),
        })
        .await
    }

    /// An agent's notifications of every status. `limit` is 1 to [`MAX_AGENT_PAGE`].
    pub async fn history(
        &self,
        agent: &str,
        limit: u32,
    ) -> Result<Listed<AgentNotification>, Error> {
        let target =
            of_agent(agent).word("history").number("limit", limit.clamp(1, MAX_AGENT_PAGE));
        self.call(Call::get(target), |answer| listed(answer, agent_notification)).await
    }
}

fn of_project(project: &str) -> Target {
    Target::root().word("projects").part("the project", project).word("notifications")
}

fn of_agent(agent: &str) -> Target {
    Target::root().word("agents").part("the agent", agent).word("notifications")
}

fn listed<T>(
    answer: &Bytes,
    read: fn(&Bytes, &RawValue) -> Option<T>,
) -> Result<Listed<T>, Unreadable> {
    let list = Object::read(answer)?.list(&LIST)?;
    let (items, unreadable) = entries(list, |raw| read(answer, raw));
    Ok(Listed { items, unreadable })
}

/// One of the entries of `answer`.
fn project_notification(answer: &Bytes, raw: &RawValue) -> Option<ProjectNotification> {
    let entry = Object::entry(raw)?;
    let payload = entry.raw("payload")?;
    let kind = entry.bytes(&["event_type", "type"]);
    let kind = kind.or_else(|| Object::read(payload.as_bytes()).ok()?.bytes(&["event_type"]));
    Some(ProjectNotification {
        id: entry.bytes(&["notification_id", "id", "message_id"])?,
        event_type: kind?,
        payload: answer.slice_ref(payload.as_bytes()),
        agent_id: entry.bytes(&["agent_id"]),
        user_id: entry.bytes(&["user_id"]),
        project_id: entry.bytes(&["project_id"]),
        created_ms: entry.time_ms("created_at"),
        status: entry.bytes(&["status"]),
    })
}

/// One of the entries of `answer`.
fn agent_notification(answer: &Bytes, raw: &RawValue) -> Option<AgentNotification> {
    let entry = Object::entry(raw)?;
    Some(AgentNotification {
        id: entry.bytes(&["message_id", "notification_id", "id"])?,
        raw: answer.slice_ref(raw.get().as_bytes()),
        agent_id: entry.bytes(&["agent_id"]),
        user_id: entry.bytes(&["user_id"]),
        wakeup_id: entry.bytes(&["wakeup_id"]),
        created_ms: entry.time_ms("created_at"),
        status: entry.bytes(&["status"]),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn project(json: &str) -> Listed<ProjectNotification> {
        listed(&Bytes::copy_from_slice(json.as_bytes()), project_notification).unwrap()
    }

    fn agent(json: &str) -> Listed<AgentNotification> {
        listed(&Bytes::copy_from_slice(json.as_bytes()), agent_notification).unwrap()
    }

    #[test]
    fn payloads_stay_as_they_stand_in_the_list() {
        let payload = r#"{ "n" : 1.0, "big":123456789012345678901234567890,
              "s":"\u00e9\/", "n": 2 }"#;
        let json = format!(
            r#"{{"$schema":"x","count":1,"notifications":[
                {{"notification_id":"n-1","event_type":"t","payload": {payload} ,
                  "created_at":"1970-01-01T00:00:01Z","status":"pending","new":null}}]}}"#
        );
        let Listed { items, unreadable } = project(&json);
        assert_eq!((items.len(), unreadable), (1, 0));
        assert_eq!((&*items[0].id, items[0].created_ms), ("n-1", Some(1000)));
        assert_eq!(items[0].payload, payload.as_bytes());

        let Listed { items, .. } = agent(&format!(r#"{{"items":[{payload}, {{ "id" : 7 }}]}}"#));
        assert_eq!((&*items[0].id, &*items[0].raw), ("7", br#"{ "id" : 7 }"#.as_slice()));
    }

    #[test]
    fn raw_parts_share_the_answers_memory() {
        let answer = Bytes::from_static(br#"{"notifications":[{"message_id":"m"}]}"#);
        let Listed { items, .. } = listed(&answer, agent_notification).unwrap();
        assert!(answer.as_ptr_range().contains(&items[0].raw.as_ptr()));
    }

    #[test]
    fn ids_have_several_names_and_an_entry_without_one_loses_no_other() {
        let list = agent(
            r#"{"notifications":[{"message_id":"m","notification_id":"n","id":"i"},
                {"notification_id":"n","id":"i"}, {"message_id":null,"id":12}, {"content":"x"},
                null, "x", {"message_id":"last","wakeup_id":"w"}]}"#,
        );
        let ids: Vec<&str> = list.items.iter().map(|item| &*item.id).collect();
        assert_eq!((ids, list.unreadable), (vec!["m", "n", "12", "last"], 3));
        assert_eq!(list.items[3].wakeup_id.as_deref(), Some("w"));
    }

    #[test]
    fn a_project_notification_has_a_type_and_a_payload_or_is_told() {
        let list = project(
            r#"{"notifications":[{"id":"a","payload":{"event_type":"in.payload"}},
                {"id":"b","type":"older","payload":null}, {"id":"c","payload":"text"},
                {"id":"d","event_type":"t"}, {"event_type":"t","payload":{}}]}"#,
        );
        let read: Vec<(&str, &str)> =
            list.items.iter().map(|item| (&*item.id, &*item.event_type)).collect();
        assert_eq!(read, [("a", "in.payload"), ("b", "older")]);
        assert_eq!(list.unreadable, 3);
    }

    proptest! {
        #[test]
        fn no_answer_is_a_crash(body in "[\\[\\]{}:,\"a-z0-9 ]{0,60}") {
            for body in [format!(r#"{{"notifications":{body}}}"#), body] {
                let answer = Bytes::from(body);
                let _ = listed(&answer, agent_notification);
                let _ = listed(&answer, project_notification);
            }
        }
    }
}
