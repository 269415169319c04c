//! Webhooks: registered, listed, rotated, deleted, and the attempts to deliver to them.

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret;

use super::{
    super::{
        answers::{self, Attempts, Registered, Reply, Webhooks},
        bodies::Registration,
        checks::{Query, cursor},
        problem::Problem,
        state::State,
        webhooks::{Attempt, shown_authorization},
    },
    Call, DEFAULT_LIST, count, full,
};
use crate::clock::rfc3339;

/// Most attempts in a page, from the document.
const MAX_ATTEMPTS_PAGE: i64 = 500;

impl Call<'_> {
    pub(super) fn webhooks(&self, state: &State) -> Reply {
        let listed = state.webhooks.all().map(|(event_type, webhook)| answers::Webhook {
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

    pub(super) fn register(&self, state: &mut State) -> Result<Reply, Problem> {
        let registration = Registration::read(self.request.headers, self.request.body)?;
        let event_type = &self.resource.event_type;
        let registered = state.webhooks.register(event_type, registration, self.now_ms);
        let secret = registered.map_err(full)?;
        let signing_secret = secret.map(|secret| secret.expose_secret().to_owned());
        let registered = Registered { success: true, signing_secret };
        Ok(self.shapes.top("UpsertWebhookOutputBody", registered))
    }

    pub(super) fn delete(&self, state: &mut State) -> Result<Reply, Problem> {
        match state.webhooks.delete(&self.resource.event_type) {
            true => Ok(Reply::nothing()),
            false => Err(Problem::not_found("webhook")),
        }
    }

    pub(super) fn rotate(&self, state: &mut State) -> Result<Reply, Problem> {
        let secret = state.webhooks.rotate(&self.resource.event_type, self.now_ms);
        let secret = secret.ok_or_else(|| Problem::not_found("webhook"))?;
        let signing_secret = Some(secret.expose_secret().to_owned());
        let rotated = Registered { success: true, signing_secret };
        Ok(self.shapes.top("RotateSigningSecretOutputBody", rotated))
    }

    pub(super) fn attempts(&self, state: &State, mut query: Query) -> Result<Reply, Problem> {
        let size = query.integer("page_size", Some(1), MAX_ATTEMPTS_PAGE);
        let before = query.cursor();
        query.done()?;
        let size = count(size, DEFAULT_LIST);
        let wanted = |(number, attempt): &(u64, &Attempt)| {
            attempt.event_type == self.resource.event_type
                && before.is_none_or(|before| *number < before)
        };
        let mut found = state.webhooks.attempts().filter(wanted);
        let page: Vec<_> = found.by_ref().take(size).collect();
        let has_more = found.next().is_some();
        let last = page.last().map(|(number, _)| *number);
        let listed = page.iter().map(|(_, attempt)| answers::Attempt {
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
}
