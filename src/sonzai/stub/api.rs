//! `/api/v1`: one request, its checks, its effect, its answer.

use std::time::Instant;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{
    Shared, answers,
    answers::{
        Acknowledged, Agent, AgentNotification, AgentsPage, Attempt, Attempts, Notifications,
        ProjectNotification, ProjectNotifications, Registered, Reply, Scheduled, Shapes, Success,
        Webhook, Webhooks,
    },
    bodies::{self, NewWakeup, Registration},
    checks::{Query, cursor},
    messages::{Consumed, Filter, Message},
    problem::Problem,
    resource::{Kind, Resource},
    state::{Agents, State, new_id},
    wakeups::Wakeup,
    webhooks::shown_authorization,
};
use crate::clock::{now_ms, rfc3339};

/// The limits of lists, from the document.
const MAX_AGENT_LIST: i64 = 500;
const MAX_PROJECT_LIST: i64 = 200;
const MAX_ATTEMPTS_PAGE: i64 = 500;
const MAX_AGENTS_PAGE: i64 = 100;
/// How many there are where nothing is said.
const DEFAULT_LIST: usize = 50;
const DEFAULT_AGENTS_PAGE: usize = 30;

/// What a request says.
pub struct Request<'r> {
    pub method: &'r Method,
    pub target: &'r Uri,
    pub headers: &'r HeaderMap,
    pub body: &'r Bytes,
}

/// Answers one request, with all its effects.
pub fn answer(shared: &Shared, request: &Request) -> Reply {
    answered(shared, request).unwrap_or_else(|problem| problem.reply(&shared.base))
}

fn answered(shared: &Shared, request: &Request) -> Result<Reply, Problem> {
    let resource = Resource::find(request.method, request.target.path())?;
    check_key(&shared.options.key, request.headers)?;
    let (now, now_ms) = (Instant::now(), now_ms());
    let mut state = shared.lock();
    if let Some(Err(retry_after)) = state.rate.as_mut().map(|rate| rate.take(now, now_ms)) {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate limit exceeded");
        return Err(match HeaderValue::from_str(&retry_after) {
            Ok(value) => problem.with(header::RETRY_AFTER, value),
            Err(_) => problem,
        });
    }
    if resource.project.as_ref().is_some_and(|project| *project != state.project) {
        return Err(Problem::not_found("project"));
    }
    state.messages.expire(now_ms);
    let query = Query::parse(request.target.query().unwrap_or_default());
    let shapes = Shapes { base: &shared.base, answers: shared.options.answers };
    let call = Call { shared, shapes, request, resource: &resource, now, now_ms };
    call.of(&mut state, query)
}

/// The key is the one that there is.
fn check_key(key: &SecretString, headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
    });
    let right = given.is_some_and(|given| given.ct_eq(key.expose_secret().as_bytes()).into());
    if right {
        return Ok(());
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "missing or invalid API key");
    Err(problem.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
}

/// One call that has passed the checks of all.
struct Call<'c> {
    shared: &'c Shared,
    shapes: Shapes<'c>,
    request: &'c Request<'c>,
    resource: &'c Resource,
    now: Instant,
    now_ms: u64,
}

impl Call<'_> {
    fn of(&self, state: &mut State, query: Query) -> Result<Reply, Problem> {
        match (self.resource.kind, self.request.method) {
            (Kind::Agents, _) => self.agents(state, query),
            (Kind::AgentNotifications, _) => self.agent_notifications(state, query),
            (Kind::History, _) => self.history(state, query),
            (Kind::Consume, _) => self.consume(state),
            (Kind::Wakeups, &Method::POST) => self.schedule(state),
            (Kind::Wakeups, _) => self.wakeups(state, query),
            (Kind::ProjectNotifications, _) => self.project_notifications(state, query),
            (Kind::Acknowledge, _) => self.acknowledge(state),
            (Kind::AcknowledgeAll, _) => self.acknowledge_all(state, &query),
            (Kind::Webhooks, _) => Ok(self.webhooks(state)),
            (Kind::Webhook, &Method::PUT) => self.register(state),
            (Kind::Webhook, _) => self.delete(state),
            (Kind::Attempts, _) => self.attempts(state, query),
            (Kind::Rotate, _) => self.rotate(state),
        }
    }

    fn agent(&self, state: &State) -> Result<usize, Problem> {
        state.agents.find(&self.resource.agent).ok_or_else(|| Problem::not_found("agent"))
    }

    fn agents(&self, state: &State, mut query: Query) -> Result<Reply, Problem> {
        let size = query.integer("page_size", None, MAX_AGENTS_PAGE);
        let from = query.cursor().unwrap_or(0);
        query.done()?;
        if query.text("project_id").is_some_and(|project| project != state.project) {
            return Err(Problem::not_found("project"));
        }
        let size = count(size.filter(|size| *size > 0), DEFAULT_AGENTS_PAGE);
        let search = query.text("search").unwrap_or_default();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let mut found = state.agents.search(search).skip(from);
        let page: Vec<usize> = found.by_ref().take(size).collect();
        let has_more = found.next().is_some();
        let counts = query.text("include_count") == Some("true");
        let total_count = if counts { state.agents.search(search).count() } else { 0 };
        let created_at = rfc3339(state.started_ms);
        let items = page.into_iter().map(|agent| Agent {
            agent_id: Agents::id(agent),
            name: Agents::name(agent),
            project_id: &state.project,
            tenant_id: "tenant-1",
            owner_user_id: "owner-1",
            instance_count: 1,
            is_active: true,
            created_at: &created_at,
        });
        let next_cursor = has_more.then(|| cursor((from + size) as u64));
        let items = self.shapes.list(items);
        let page = AgentsPage { items, has_more, total_count, next_cursor };
        Ok(self.shapes.top("PaginatedAgentsResponse", page))
    }

    fn agent_notifications(&self, state: &mut State, mut query: Query) -> Result<Reply, Problem> {
        let limit = query.integer("limit", Some(1), MAX_AGENT_LIST);
        query.done()?;
        let agent = self.agent(state)?;
        self.cached(state, Some(agent), |state| {
            let status = query.text("status").unwrap_or("pending");
            let listed = state.messages.of_agent(agent, Some(status), query.text("user_id"));
            self.notifications(listed.take(count(limit, DEFAULT_LIST)))
        })
    }

    fn history(&self, state: &State, mut query: Query) -> Result<Reply, Problem> {
        let limit = query.integer("limit", Some(1), MAX_AGENT_LIST);
        query.done()?;
        let agent = self.agent(state)?;
        let listed = state.messages.history(agent);
        Ok(self.notifications(listed.take(count(limit, DEFAULT_LIST))))
    }

    fn notifications<'m>(&self, listed: impl Iterator<Item = &'m Message>) -> Reply {
        let listed = listed.map(|message| AgentNotification {
            message_id: &message.message_id,
            agent_id: Agents::id(message.agent),
            user_id: &message.user_id,
            check_type: &message.check_type,
            intent: message.intent.as_deref(),
            generated_message: &message.generated_message,
            status: message.status(),
            wakeup_id: message.wakeup_id.as_deref(),
            created_at: rfc3339(message.created_ms),
            consumed_at: message.consumed_ms.map(rfc3339),
        });
        let notifications = self.shapes.list(listed);
        self.shapes.top("ProactiveNotificationsResponse", Notifications { notifications })
    }

    fn consume(&self, state: &mut State) -> Result<Reply, Problem> {
        let agent = self.agent(state)?;
        let message_id = &self.resource.message;
        let message = state.messages.of_message(message_id);
        let holds = message.is_some_and(|m| state.stubborn.holds(m, &Agents::id(m.agent)));
        let name = "ConsumeNotificationOutputBody";
        if holds {
            let nothing = Success { success: false };
            return state.stubborn.problem().map_or(Ok(self.shapes.top(name, nothing)), Err);
        }
        match state.messages.consume(agent, message_id, self.now_ms) {
            Consumed::Now => {
                state.caches.invalidate(agent);
                Ok(self.shapes.top(name, Success { success: true }))
            }
            Consumed::Before => {
                Err(Problem::new(StatusCode::CONFLICT, "notification was consumed already"))
            }
            Consumed::Unknown => Err(Problem::not_found("notification")),
        }
    }

    fn schedule(&self, state: &mut State) -> Result<Reply, Problem> {
        let new = NewWakeup::read(self.request.headers, self.request.body, self.now_ms)?;
        let (id, created_ms) = (new_id("wakeup"), self.now_ms);
        let wakeup = Wakeup { id, agent: self.agent(state)?, new, created_ms, executed_ms: None };
        let wakeup = state.wakeups.add(wakeup).map_err(full)?;
        let scheduled_at = rfc3339(wakeup.new.scheduled_ms);
        let scheduled = Scheduled { wakeup_id: wakeup.id.clone(), scheduled_at };
        Ok(self.shapes.top("ScheduleWakeupOutputBody", scheduled))
    }

    fn wakeups(&self, state: &State, mut query: Query) -> Result<Reply, Problem> {
        let limit = query.integer("limit", Some(1), MAX_AGENT_LIST);
        query.done()?;
        let agent = self.agent(state)?;
        let status = query.text("status");
        let wanted = |wakeup: &&Wakeup| status.is_none_or(|status| status == wakeup.status());
        let listed = state.wakeups.of_agent(agent).filter(wanted).take(count(limit, DEFAULT_LIST));
        let listed = listed.map(|wakeup| answers::Wakeup {
            wakeup_id: &wakeup.id,
            agent_id: Agents::id(wakeup.agent),
            user_id: &wakeup.new.user_id,
            check_type: &wakeup.new.check_type,
            intent: &wakeup.new.intent,
            occasion: wakeup.new.occasion.as_deref(),
            interest_topic: wakeup.new.interest_topic.as_deref(),
            event_description: wakeup.new.event_description.as_deref(),
            scheduled_at: rfc3339(wakeup.new.scheduled_ms),
            status: wakeup.status(),
            created_at: rfc3339(wakeup.created_ms),
            executed_at: wakeup.executed_ms.map(rfc3339),
        });
        let wakeups = self.shapes.list(listed);
        Ok(self.shapes.top("WakeupsResponse", answers::Wakeups { wakeups }))
    }

    fn project_notifications(&self, state: &mut State, mut query: Query) -> Result<Reply, Problem> {
        let limit = query.integer("limit", Some(1), MAX_PROJECT_LIST);
        query.done()?;
        self.cached(state, None, |state| {
            let filter = filter(state, &query);
            let listed = state.messages.of_project(filter).take(count(limit, DEFAULT_LIST));
            let listed: Vec<_> = listed
                .map(|message| ProjectNotification {
                    notification_id: &message.notification_id,
                    project_id: &state.project,
                    agent_id: Agents::id(message.agent),
                    user_id: &message.user_id,
                    event_type: &message.event_type,
                    payload: &message.payload,
                    status: "pending",
                    created_at: rfc3339(message.created_ms),
                    expires_at: message.expires_ms.map(rfc3339),
                })
                .collect();
            let count = listed.len();
            let notifications = self.shapes.list(listed);
            let page = ProjectNotifications { notifications, count };
            self.shapes.top("ProjectNotificationsListOutputBody", page)
        })
    }

    fn acknowledge(&self, state: &mut State) -> Result<Reply, Problem> {
        let ids = bodies::notification_ids(self.request.headers, self.request.body)?;
        let State { messages, stubborn, .. } = state;
        let holds = |id: &str| {
            let message = messages.of_notification(id);
            message.is_some_and(|m| stubborn.holds(m, &Agents::id(m.agent)))
        };
        let (held, free): (Vec<_>, Vec<_>) = ids.iter().partition(|id| holds(id));
        match stubborn.problem() {
            // A batch is refused as a whole.
            Some(problem) if !held.is_empty() => Err(problem),
            _ => {
                let free = free.into_iter();
                let taken = free.filter(|id| messages.acknowledge(id, self.now_ms)).count();
                let name = "AcknowledgeProjectNotificationsOutputBody";
                Ok(self.shapes.top(name, Acknowledged { acknowledged: taken }))
            }
        }
    }

    fn acknowledge_all(&self, state: &mut State, query: &Query) -> Result<Reply, Problem> {
        let filter = filter(state, query);
        let ids = state.messages.of_project(filter).map(|message| message.notification_id.clone());
        let ids: Vec<String> = ids.collect();
        let messages = &mut state.messages;
        let taken = ids.iter().filter(|id| messages.acknowledge(id, self.now_ms)).count();
        let name = "AcknowledgeAllProjectNotificationsOutputBody";
        Ok(self.shapes.top(name, Acknowledged { acknowledged: taken }))
    }

    fn webhooks(&self, state: &State) -> Reply {
        let listed = state.webhooks.all().map(|(event_type, webhook)| Webhook {
            project_id: &state.project,
            event_type,
            webhook_url: &webhook.url,
            auth_header: shown_authorization(webhook),
            is_active: true,
            created_at: rfc3339(webhook.created_ms),
            updated_at: rfc3339(webhook.updated_ms),
        });
        let webhooks = self.shapes.list(listed);
        self.shapes.top("ListWebhooksOutputBody", Webhooks { webhooks })
    }

    fn register(&self, state: &mut State) -> Result<Reply, Problem> {
        let registration = Registration::read(self.request.headers, self.request.body)?;
        let event_type = &self.resource.event_type;
        let registered = state.webhooks.register(event_type, registration, self.now_ms);
        let secret = registered.map_err(full)?;
        let signing_secret = secret.map(|secret| secret.expose_secret().to_owned());
        let registered = Registered { success: true, signing_secret };
        Ok(self.shapes.top("UpsertWebhookOutputBody", registered))
    }

    fn delete(&self, state: &mut State) -> Result<Reply, Problem> {
        match state.webhooks.delete(&self.resource.event_type) {
            true => Ok(Reply::nothing()),
            false => Err(Problem::not_found("webhook")),
        }
    }

    fn rotate(&self, state: &mut State) -> Result<Reply, Problem> {
        let secret = state.webhooks.rotate(&self.resource.event_type, self.now_ms);
        let secret = secret.ok_or_else(|| Problem::not_found("webhook"))?;
        let signing_secret = Some(secret.expose_secret().to_owned());
        let rotated = Registered { success: true, signing_secret };
        Ok(self.shapes.top("RotateSigningSecretOutputBody", rotated))
    }

    fn attempts(&self, state: &State, mut query: Query) -> Result<Reply, Problem> {
        let size = query.integer("page_size", Some(1), MAX_ATTEMPTS_PAGE);
        let before = query.cursor();
        query.done()?;
        let size = count(size, DEFAULT_LIST);
        let wanted = |(number, attempt): &(u64, &super::webhooks::Attempt)| {
            attempt.event_type == self.resource.event_type
                && before.is_none_or(|before| *number < before)
        };
        let mut found = state.webhooks.attempts().filter(wanted);
        let page: Vec<_> = found.by_ref().take(size).collect();
        let has_more = found.next().is_some();
        let last = page.last().map(|(number, _)| *number);
        let listed = page.iter().map(|(_, attempt)| Attempt {
            attempt_id: &attempt.id,
            project_id: &state.project,
            event_type: &attempt.event_type,
            webhook_url: &attempt.url,
            response_code: attempt.response_code,
            duration_ms: attempt.duration_ms,
            attempt_number: attempt.number,
            status: attempt.status(),
            created_at: rfc3339(attempt.created_ms),
            error_message: attempt.error.as_deref(),
            request_body: BASE64_STANDARD.encode(&attempt.request_body),
            response_body: attempt
                .response_body
                .as_ref()
                .map(|body| String::from_utf8_lossy(body).into_owned()),
        });
        let attempts = self.shapes.list(listed);
        let next_cursor = last.filter(|_| has_more).map(cursor);
        let page = Attempts { attempts, has_more, next_cursor };
        Ok(self.shapes.top("PaginatedDeliveryAttemptsResponse", page))
    }

    /// The list of this target as it was a while ago, or as it is.
    fn cached(
        &self,
        state: &mut State,
        agent: Option<usize>,
        list: impl FnOnce(&State) -> Reply,
    ) -> Result<Reply, Problem> {
        let target = self.request.target.to_string();
        if let Some(reply) = state.caches.get(&target, self.now) {
            return Ok(reply);
        }
        let reply = list(state);
        let fresh_for = self.shared.options.cache;
        state.caches.put(target, agent, reply.clone(), self.now, fresh_for);
        Ok(reply)
    }
}

fn filter<'q>(state: &State, query: &'q Query) -> Filter<'q> {
    Filter {
        agent: query.text("agent_id").map(|agent| state.agents.find(agent)),
        event_type: query.text("event_type"),
    }
}

/// A limit that was checked, or the one where nothing is said.
fn count(limit: Option<i64>, default: usize) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default)
}

fn full(why: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, why.to_string())
}
