//! Goes on with changes whose answer was lost: it rotates again, by itself, until a secret is in hand.
//! Those of a daemon that was killed are found in the [`Store`](crate::sonzai::store::Store).

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::change::{self, Failure};
use crate::sonzai::{
    service::Account,
    store::{Change, Error, What},
};

/// Between the first two tries; each further pause is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Calls in one try: to rotate, to register where that finds nothing, to rotate where that gives nothing.
const CALLS: u32 = 3;

/// Works until the account's `stop`. What was begun is not cut off by it.
pub async fn run(account: Arc<Account>) {
    let (store, stop) = (&account.store, &account.stop);
    let mut pause = FIRST_PAUSE;
    let mut told: Option<String> = None;
    loop {
        let changed = store.changed.notified();
        let has_work = store.is_behind() || !store.content().changes.is_empty();
        if !has_work {
            if told.take().is_some() {
                tracing::info!(source = %account.source, "all changes of secrets are done and kept");
            }
            pause = FIRST_PAUSE;
            if stop.run_until_cancelled(changed).await.is_none() {
                return;
            }
            // Whoever began it goes on with it first.
            if stop.run_until_cancelled(sleep(FIRST_PAUSE)).await.is_none() {
                return;
            }
        }
        let Some(turn) = stop.run_until_cancelled(store.turn.lock()).await else { return };
        let failure = go_on(&account).await;
        drop(turn);
        let Some(words) = failure else { continue };
        if told.as_ref() != Some(&words) {
            tracing::warn!(source = %account.source, error = words,
                "a change of a secret is not done; it is tried again, at longer and longer intervals");
            told = Some(words);
        }
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Tries what is left to do once; why something still is.
async fn go_on(account: &Account) -> Option<String> {
    let mut failure = None;
    for change in account.store.content().changes {
        let event_type = change.name.event_type.clone();
        match change_again(account, change).await {
            Ok(()) => tracing::info!(source = %account.source, event_type,
                "a change of a secret whose answer was lost is done"),
            // What it was about is gone, and so is the secret.
            Err(Failure::NotRegistered) => tracing::info!(source = %account.source, event_type,
                "a change of a secret came to nothing: the webhook is not registered"),
            Err(error) => failure = Some(format!("{event_type}: {error}")),
        }
    }
    let saved = change::with(&account.store, |store| store.save()).await;
    let saved = saved.map_err(|error| error.to_string());
    let saved = saved.and_then(|saved| saved.map_err(|error: Error| error.to_string()));
    failure.or(saved.err())
}

async fn change_again(account: &Account, change: Change) -> Result<(), Failure> {
    // Only what is still wanted there is registered anew.
    let register = account.settings.register.as_ref();
    let url = register.filter(|register| register.types.contains(&change.name.event_type));
    let url = url.map(|register| {
        format!("{}{}", register.public_url, account.path.of_type(&change.name.event_type))
    });
    let is_wanted = change.what == What::Register && url.as_ref() == Some(&change.url);
    let what = if is_wanted { What::Register } else { What::Rotate };
    change::make_again(account, Change { what, ..change }, CALLS).await
}
