//! Does what a plan says, one webhook after the other.

use std::sync::Arc;

use super::{
    change::{self, Failure, times, with},
    desk::Compared,
    document::Row,
    plan::{Planned, Step, digest},
};
use crate::{
    clock::now_ms,
    sonzai::{
        client,
        service::Account,
        store::{Change, Name, Store, What},
    },
    source::sonzai::settings::Scope,
};

/// Why nothing further is begun.
const STOPPED: &str = "not tried: the routing table has changed, or the daemon is ending";

/// Does what is planned, and notes in its row what became of each. Where one is denied, so would be the
/// rest; and once the account has to stop, the rest is for whoever comes next.
pub async fn apply(account: &Account, compared: &Compared, rows: &mut [Row]) {
    let mut denied = false;
    for (planned, row) in compared.planned.iter().zip(rows) {
        if !planned.changes() {
            continue;
        }
        let not_tried = match account.stop.is_cancelled() {
            true => Some(STOPPED),
            false => denied.then_some("not tried"),
        };
        if let Some(why) = not_tried {
            (row.done, row.error) = (Some(false), Some(why.to_owned()));
            continue;
        }
        match carry_out(account, compared, planned).await {
            Ok(()) => {
                tracing::info!(source = %account.source, event_type = planned.event_type,
                    done = planned.done(), "a webhook was changed");
                row.done = Some(true);
            }
            Err(failure) => {
                tracing::warn!(source = %account.source, event_type = planned.event_type,
                    error = %failure, "a webhook was not changed as it should be");
                denied = failure.is_denied();
                (row.done, row.error) = (Some(false), Some(failure.to_string()));
            }
        }
    }
    learn_own_project(account, &compared.scope).await;
}

async fn carry_out(
    account: &Account,
    compared: &Compared,
    planned: &Planned,
) -> Result<(), Failure> {
    let Compared { scope, own, .. } = compared;
    let name = Name::new(scope, own.as_deref(), &planned.event_type);
    let registered_with = digest(account.authorization.as_ref());
    let change = |what| Change {
        name: name.clone(),
        what,
        url: planned.url.clone(),
        authorization: (what == What::Register).then(|| registered_with.clone()),
        since_ms: now_ms(),
    };
    match planned.step {
        Step::Keep | Step::LeaveAlone => {}
        Step::Register => change::make(account, change(What::Register)).await?,
        Step::Update(_) => update(account, scope, change(What::Register)).await?,
        Step::Delete => delete(account, scope, name.clone()).await?,
    }
    if planned.rotates {
        change::make(account, change(What::Rotate)).await?;
    }
    Ok(())
}

/// Updates what is registered: its secret stays as it is.
async fn update(account: &Account, scope: &Scope, change: Change) -> Result<(), Failure> {
    let authorization = account.authorization.as_ref();
    // Its deliveries may come with another header at once, or not yet.
    let calling = account.store.call(&change.name.event_type);
    let answer =
        account.client.register(scope, &change.name.event_type, &change.url, authorization).await;
    let (secret, authorization) = (answer.map_err(Failure::Refused)?, digest(authorization));
    let keep = move |store: &Arc<Store>| {
        store.keep(|content| match secret {
            None => content.updated(&change.name, &change.url, authorization, times()),
            // It was deleted meanwhile, and this registered it again.
            Some(secret) => content.finish(&change, secret, Some(authorization), times()),
        })
    };
    let kept = with(&account.store, keep).await?;
    drop(calling);
    kept.map_err(Failure::NotKept)
}

async fn delete(account: &Account, scope: &Scope, name: Name) -> Result<(), Failure> {
    match account.client.delete_webhook(scope, &name.event_type).await {
        Err(error) if !is_deleted(&error) => return Err(Failure::Refused(error)),
        _ => {}
    }
    let kept =
        with(&account.store, move |store| store.keep(|content| content.deleted(&name, times())));
    kept.await?.map_err(Failure::NotKept)
}

fn is_deleted(error: &client::Error) -> bool {
    use http::StatusCode;
    matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::GONE))
}

/// The first webhook that is registered tells which project is the key's own.
async fn learn_own_project(account: &Account, scope: &Scope) {
    if *scope != Scope::Tenant || !account.store.content().wants_own_project() {
        return;
    }
    let own = match account.own_project().await {
        Ok(Some(own)) => own,
        // The next comparison asks again.
        Ok(None) | Err(_) => return,
    };
    let learnt = with(&account.store, move |store| store.keep(|content| content.learn(&own))).await;
    if let Ok(Err(error)) = learnt {
        tracing::warn!(%error, source = %account.source, "what was learnt is not kept yet");
    }
}
