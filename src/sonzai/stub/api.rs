//! `/api/v1`: one request, its checks, its effect, its answer.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{
    Shared,
    answers::{Reply, Shapes},
    checks::Query,
    problem::Problem,
    resource::{Kind, Resource},
    state::State,
};
use crate::clock::now_ms;

mod agents;
mod notifications;
mod webhooks;

/// Most of an agent's items in a list, from the document.
const MAX_AGENT_LIST: i64 = 500;
/// How many there are where nothing is said.
const DEFAULT_LIST: usize = 50;

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
}

/// A limit that was checked, or the one where nothing is said.
fn count(limit: Option<i64>, default: usize) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default)
}

fn full(why: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, why.to_string())
}
