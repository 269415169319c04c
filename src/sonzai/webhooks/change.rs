//! One change of a secret, from before its call is sent until what came of it is kept and in force.
//!
//! A register or a rotate call whose answer is lost has perhaps happened, and its secret can only be had
//! by rotating again. The same is true of a first registration that brings no secret: an attempt of ours
//! was there before. So a change ends in one of three ways: its secret is kept; it certainly had no
//! effect; or it is written down as under way, and [`recover`](super::recover) goes on.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    task::{JoinError, spawn_blocking},
    time::sleep,
};

use super::plan::digest;
use crate::{
    clock::now_ms,
    sonzai::{
        client,
        service::Account,
        store::{self, Change, Content, OVERLAP, Store, Times, What},
    },
};

/// How often a change is tried while somebody waits for it; each call tries several times by itself.
const TRIES: u32 = 4;

/// Between the first two of those; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Why a change did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent.
    #[error("nothing was changed, since it cannot be kept: {0}")]
    NotBegun(store::Error),
    /// It had no effect.
    #[error("{0}")]
    Refused(client::Error),
    /// There is no such webhook.
    #[error("it is not registered: `waypost sonzai webhooks sync` registers it")]
    NotRegistered,
    /// It may have had an effect.
    #[error(
        "{0}; its secret may be another one now: the daemon goes on until it has it, and has its \
         deliveries sent again meanwhile"
    )]
    UnderWay(client::Error),
    /// It was registered or rotated, and the API gave no secret that can be used.
    #[error("the API gave no secret; the daemon goes on until it has one")]
    NoSecret,
    /// Its secret is in force, and lost at the next start.
    #[error("its new secret is in force, and cannot be kept yet: {0}; the daemon tries again")]
    NotKept(store::Error),
    /// A thread of the daemon's ended in a panic.
    #[error("{0}; see the daemon's log")]
    Panicked(#[from] JoinError),
}

impl Failure {
    /// Whether the next call would be denied as well.
    pub fn is_denied(&self) -> bool {
        matches!(self, Failure::Refused(error) | Failure::UnderWay(error) if error.is_denied())
    }
}

/// Makes a change. What it writes down first says what is wanted in the end.
pub async fn make(account: &Account, change: Change) -> Result<(), Failure> {
    let store = &account.store;
    let began = change.clone();
    let was_under_way = with(store, move |store| {
        store.change(|content| {
            let was_under_way = content.change_of(&began.name).is_some();
            content.begin(began);
            was_under_way
        })
    });
    let is_uncertain = was_under_way.await?.map_err(Failure::NotBegun)?;
    let next = change.what;
    call(account, change, Next { call: next, is_uncertain, tries: TRIES }).await
}

/// Makes one again that is written down as under way, with so many calls at most.
pub async fn make_again(account: &Account, change: Change, tries: u32) -> Result<(), Failure> {
    let next = Next { call: What::Rotate, is_uncertain: true, tries };
    call(account, change, next).await
}

/// What is known before the first call.
struct Next {
    call: What,
    /// Whether a call before may have had an effect whose secret is not here.
    is_uncertain: bool,
    tries: u32,
}

async fn call(account: &Account, change: Change, next: Next) -> Result<(), Failure> {
    // From here on, whoever signs with a secret that is not here yet is told to come again.
    let calling = account.store.call(&change.name.event_type);
    let obtained = obtain(account, &change, next).await;
    let outcome = finish(account, change, obtained).await;
    drop(calling);
    outcome
}

async fn finish(
    account: &Account,
    change: Change,
    obtained: Result<Obtained, Failure>,
) -> Result<(), Failure> {
    let store = &account.store;
    match obtained {
        Ok(Obtained { secret, registers }) => {
            store.stats.changed.inc();
            let authorization = registers.then(|| digest(account.authorization.as_ref()));
            let keep = move |store: &Arc<Store>| {
                store.keep(|content| content.finish(&change, secret, authorization, times()))
            };
            with(store, keep).await?.map_err(Failure::NotKept)
        }
        Err(failure @ (Failure::Refused(_) | Failure::NotRegistered)) => {
            store.stats.refused.inc();
            let abandon = move |content: &mut Content| content.abandon(&change.name);
            if let Err(error) = with(store, move |store| store.keep(abandon)).await? {
                tracing::warn!(%error, source = %account.source,
                    "a change that had no effect is written down as under way");
            }
            Err(failure)
        }
        Err(failure) => {
            store.stats.uncertain.inc();
            Err(failure)
        }
    }
}

struct Obtained {
    secret: SecretString,
    /// Whether the webhook was registered on the way, and not only its secret changed.
    registers: bool,
}

/// Calls until there is a secret.
async fn obtain(account: &Account, change: &Change, next: Next) -> Result<Obtained, Failure> {
    let (client, scope) = (&account.client, change.name.scope());
    let (event_type, authorization) = (&*change.name.event_type, account.authorization.as_ref());
    let Next { call: mut next, mut is_uncertain, tries } = next;
    let mut pause = FIRST_PAUSE;
    let mut registers = false;
    let mut last = None;
    for _ in 0..tries {
        if last.is_some() {
            sleep(pause).await;
            pause *= 2;
        }
        registers |= next == What::Register;
        let answer = match next {
            What::Register => client.register(&scope, event_type, &change.url, authorization).await,
            What::Rotate => client.rotate(&scope, event_type).await.map(Some),
        };
        match answer {
            Ok(Some(secret)) if is_key(&secret) => return Ok(Obtained { secret, registers }),
            // It was registered before: by somebody else, or by an attempt whose answer was lost.
            Ok(_) => (next, is_uncertain) = (What::Rotate, true),
            Err(error) if next == What::Rotate && is_not_there(&error) => match change.what {
                // So it certainly is not registered.
                What::Register => (next, is_uncertain, last) = (What::Register, false, Some(error)),
                What::Rotate => return Err(Failure::NotRegistered),
            },
            Err(error) if error.is_uncertain() => {
                (next, is_uncertain, last) = (What::Rotate, true, Some(error));
            }
            Err(error) if !is_uncertain => return Err(Failure::Refused(error)),
            Err(error) if error.is_denied() => return Err(Failure::UnderWay(error)),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) if is_uncertain => Failure::UnderWay(error),
        Some(error) => Failure::Refused(error),
        None => Failure::NoSecret,
    })
}

/// Whether a secret is one. An empty one would be no key.
fn is_key(secret: &SecretString) -> bool {
    crate::signature::sonzai::key(secret.expose_secret()).is_ok()
}

fn is_not_there(error: &client::Error) -> bool {
    matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::GONE))
}

/// What is replaced now stays valid for the overlap.
pub fn times() -> Times {
    let now_ms = now_ms();
    Times { now_ms, until_ms: now_ms.saturating_add(OVERLAP.as_millis() as u64) }
}

/// Works with a store where a thread may block.
pub async fn with<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Arc<Store>) -> T + Send + 'static,
) -> Result<T, JoinError> {
    let store = store.clone();
    spawn_blocking(move || work(&store)).await
}
