//! Which resource of `/api/v1` a path names, and what may be done with it.

use http::{HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// What a path ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Agents,
    AgentNotifications,
    History,
    Consume,
    Wakeups,
    ProjectNotifications,
    Acknowledge,
    AcknowledgeAll,
    Webhooks,
    Webhook,
    Attempts,
    Rotate,
}

/// A resource with the names in its path, decoded; those that it has none of are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: Kind,
    /// `None` on the tenant's paths, which are the key's own project's.
    pub project: Option<String>,
    pub agent: String,
    pub message: String,
    pub event_type: String,
}

impl Resource {
    /// # Errors
    ///
    /// 404 for a path that is none, 405 for a method that it does not have.
    pub fn find(method: &Method, path: &str) -> Result<Resource, Problem> {
        let resource = Resource::of(path).ok_or_else(|| Problem::not_found("path"))?;
        let methods = resource.kind.methods();
        if methods.contains(method) {
            return Ok(resource);
        }
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        let allow = HeaderValue::from_str(&names.join(", "));
        Err(match allow {
            Ok(allow) => problem.with(header::ALLOW, allow),
            Err(_) => problem,
        })
    }

    fn of(path: &str) -> Option<Resource> {
        let decoded = |part: &str| percent_decode_str(part).decode_utf8().ok().map(String::from);
        let parts: Option<Vec<String>> =
            path.strip_prefix("/api/v1/")?.split('/').map(decoded).collect();
        let parts = parts?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if parts.contains(&"") {
            return None;
        }
        let (project, parts) = match *parts {
            ["projects", project, ref rest @ ..] => (Some(project.to_owned()), rest),
            ref rest => (None, rest),
        };
        let (agent, message, event_type) = Default::default();
        let resource = |kind| Resource { kind, project, agent, message, event_type };
        Some(match *parts {
            ["webhooks"] => resource(Kind::Webhooks),
            ["webhooks", event_type] => resource(Kind::Webhook).typed(event_type),
            ["webhooks", event_type, "attempts"] => resource(Kind::Attempts).typed(event_type),
            ["webhooks", event_type, "rotate-secret"] => resource(Kind::Rotate).typed(event_type),
            ["notifications"] => resource(Kind::ProjectNotifications).of_project()?,
            ["notifications", "acknowledge"] => resource(Kind::Acknowledge).of_project()?,
            ["notifications", "acknowledge-all"] => resource(Kind::AcknowledgeAll).of_project()?,
            ["agents"] => resource(Kind::Agents).of_none()?,
            ["agents", agent, "wakeups"] => resource(Kind::Wakeups).of_agent(agent)?,
            ["agents", agent, "notifications"] => {
                resource(Kind::AgentNotifications).of_agent(agent)?
            }
            ["agents", agent, "notifications", "history"] => {
                resource(Kind::History).of_agent(agent)?
            }
            ["agents", agent, "notifications", message, "consume"] => {
                let resource = resource(Kind::Consume).of_agent(agent)?;
                Resource { message: message.to_owned(), ..resource }
            }
            _ => return None,
        })
    }

    fn typed(self, event_type: &str) -> Resource {
        Resource { event_type: event_type.to_owned(), ..self }
    }

    fn of_agent(self, agent: &str) -> Option<Resource> {
        Some(Resource { agent: agent.to_owned(), ..self.of_none()? })
    }

    fn of_project(self) -> Option<Resource> {
        self.project.is_some().then_some(self)
    }

    fn of_none(self) -> Option<Resource> {
        self.project.is_none().then_some(self)
    }
}

impl Kind {
    fn methods(self) -> &'static [Method] {
        match self {
            Kind::Agents
            | Kind::AgentNotifications
            | Kind::History
            | Kind::ProjectNotifications
            | Kind::Webhooks
            | Kind::Attempts => &[Method::GET],
            Kind::Consume | Kind::Acknowledge | Kind::AcknowledgeAll | Kind::Rotate => {
                &[Method::POST]
            }
            Kind::Wakeups => &[Method::GET, Method::POST],
            Kind::Webhook => &[Method::DELETE, Method::PUT],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_resource_and_its_parts_are_decoded() {
        for (path, kind, project, name) in [
            ("agents", Kind::Agents, None, ""),
            (
                "agents/Luna%20%E6%9C%88%2Fa%3Fb%23c/notifications",
                Kind::AgentNotifications,
                None,
                "Luna 月/a?b#c",
            ),
            ("agents/a/notifications/history", Kind::History, None, "a"),
            ("agents/a/notifications/m/consume", Kind::Consume, None, "am"),
            ("agents/a/wakeups", Kind::Wakeups, None, "a"),
            ("webhooks", Kind::Webhooks, None, ""),
            ("webhooks/t", Kind::Webhook, None, "t"),
            ("webhooks/a%2Fb", Kind::Webhook, None, "a/b"),
            ("projects/p/webhooks", Kind::Webhooks, Some("p"), ""),
            ("projects/p/webhooks/t/attempts", Kind::Attempts, Some("p"), "t"),
            ("webhooks/t/rotate-secret", Kind::Rotate, None, "t"),
            ("projects/p/notifications", Kind::ProjectNotifications, Some("p"), ""),
            ("projects/p/notifications/acknowledge", Kind::Acknowledge, Some("p"), ""),
            ("projects/p/notifications/acknowledge-all", Kind::AcknowledgeAll, Some("p"), ""),
        ] {
            let found = Resource::of(&format!("/api/v1/{path}")).expect(path);
            let names = format!("{}{}{}", found.agent, found.message, found.event_type);
            assert_eq!((found.kind, found.project.as_deref(), &*names), (kind, project, name));
        }
    }

    #[test]
    fn what_is_no_path_is_not_found_and_a_wrong_method_not_allowed() {
        for (method, path, status) in [
            (Method::GET, "/api/v1/", 404),
            (Method::GET, "/api/v1/notifications", 404),
            (Method::GET, "/api/v1/projects/p/agents", 404),
            (Method::GET, "/api/v1/projects/p/agents/a/wakeups", 404),
            (Method::GET, "/api/v1/agents//wakeups", 404),
            (Method::GET, "/api/v1/webhooks/a/b", 404),
            (Method::GET, "/api/v1/webhooks/", 404),
            (Method::GET, "/webhooks", 404),
            (Method::PUT, "/api/v1/agents", 405),
            (Method::GET, "/api/v1/webhooks/t", 405),
            (Method::POST, "/api/v1/webhooks/t/attempts", 405),
            (Method::HEAD, "/api/v1/agents", 405),
        ] {
            let problem = Resource::find(&method, path).unwrap_err();
            assert_eq!(problem.status.as_u16(), status, "{method} {path}");
        }
    }
}
