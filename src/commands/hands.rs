//! Carries out one command: the life of a message from its being taken to its acknowledgement.
//!
//! 1. What is no command, or one that the API will never take, is kept as a dead letter; durably, then
//!    it is acknowledged.
//! 2. One that is done already, by its id, is acknowledged.
//! 3. That the API is about to be asked is noted, durably, before it is asked; that it has taken the
//!    command, before the message is acknowledged.
//! 4. So wherever a process ends, the message comes again, and is either done, or was begun: then its
//!    wakeup is looked for first among those that the API lists. So it is after a call whose outcome is
//!    not known.
//! 5. A failing API is waited for, however long it takes; a key that it refuses, until somebody has
//!    seen to it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    bounds::MAX_BODY_BYTES,
    delivery::Delivery,
    ledger::{Identity, Ledger, Past},
    look,
    message::{self, Command, Label},
    refused::Refused,
    stats::{State, Stats},
    verdict::Verdict,
};
use crate::{
    backoff::Backoff,
    clock::now_ms,
    dispatch::{dead_letter::DeadLetters, kept::Kept},
    event::{Event, Format, Message},
    journal::AppendError,
    routing::CommandSettings,
    sonzai::client::{Client, Error, Scheduled},
};

/// Pauses between calls of an API that fails.
const API_PAUSE: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };

/// Pauses between calls with a key that was refused. A change of `routes.yaml` ends one at once.
const DENIED_PAUSE: Backoff =
    Backoff { first: Duration::from_secs(60), max: Duration::from_secs(300) };

/// Pauses between attempts to write to a full disk.
const DISK_PAUSE: Backoff =
    Backoff { first: Duration::from_millis(500), max: Duration::from_secs(10) };

/// However long the API wants to be left alone, it is asked again after this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How many wakeups of an agent the API lists at most.
const MAX_LISTED: u32 = 500;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing more is to be done for it.
    Ack,
    /// It is to come again.
    LetGo,
}

/// What it takes to carry out the commands of one place.
pub struct Hands {
    pub settings: CommandSettings,
    pub client: Client,
    pub ledger: Arc<Ledger>,
    pub dead_letters: DeadLetters,
    pub stats: Arc<Stats>,
    /// Changes whenever a routing table comes into force.
    pub tables: watch::Receiver<u64>,
}

/// Told to give up while waiting.
struct GivenUp;

impl Hands {
    /// Carries out what a message asks for. Once `give_up` is cancelled it waits for nothing more, but
    /// for the answer to a call that was sent.
    pub async fn carry_out(&self, delivery: &Delivery, give_up: &CancellationToken) -> Fate {
        self.stats.taken.inc();
        let (label, command) = message::read(delivery);
        let done = match command {
            Ok(command) => self.schedule(delivery, &label, &command, give_up).await,
            Err(refused) => self.refuse(delivery, &label, &refused, give_up).await,
        };
        match done {
            Ok(()) => Fate::Ack,
            Err(GivenUp) => Fate::LetGo,
        }
    }

    async fn refuse(
        &self,
        delivery: &Delivery,
        label: &Label,
        refused: &Refused,
        give_up: &CancellationToken,
    ) -> Result<(), GivenUp> {
        self.keep(delivery, label, None, (0, 0), &format!("it is no command: {refused}"), give_up)
            .await
    }

    async fn schedule(
        &self,
        delivery: &Delivery,
        label: &Label,
        command: &Command,
        give_up: &CancellationToken,
    ) -> Result<(), GivenUp> {
        let name = &self.settings.name;
        let identity = Identity::of(name, command);
        let mut begun_ms = match self.ledger.past(&identity) {
            Past::Done => {
                self.stats.duplicates.inc();
                return Ok(());
            }
            // Perhaps the API was asked, and perhaps it did as it was told.
            Past::Begun { at_ms } => Some(at_ms),
            Past::Unknown => None,
        };
        if begun_ms.is_none() {
            self.durably(give_up, || self.ledger.begin(&identity, now_ms())).await?;
        }
        let (first_ms, mut attempts) = (now_ms(), 0);
        loop {
            let started = now_ms();
            let outcome = self.ask(command, &identity, begun_ms).await;
            attempts += 1;
            let error = match outcome {
                Ok(wakeup) => return self.finish(&identity, &wakeup, give_up).await,
                Err(error) => error,
            };
            if error.is_uncertain() {
                begun_ms.get_or_insert(started);
            }
            let trouble = error.to_string();
            match Verdict::of(&error) {
                Verdict::Refused => {
                    let (agent, tried) = (Some(&*command.agent), (attempts, first_ms));
                    return self.keep(delivery, label, agent, tried, &trouble, give_up).await;
                }
                Verdict::Denied => {
                    self.stats.is_in_trouble(name, State::Denied, &trouble);
                    self.wait(DENIED_PAUSE.jittered(attempts), give_up).await?;
                }
                Verdict::Wait(after) => {
                    self.stats.is_in_trouble(name, State::Waiting, &trouble);
                    let after = after.unwrap_or_default().min(MAX_RETRY_AFTER);
                    self.wait(API_PAUSE.jittered(attempts).max(after), give_up).await?;
                }
            }
            self.stats.retries.inc();
        }
    }

    /// Asks the API for the wakeup; where it may have been asked before, only if it is not there.
    async fn ask(
        &self,
        command: &Command,
        identity: &Identity,
        begun_ms: Option<u64>,
    ) -> Result<String, Error> {
        let source = &*self.settings.source;
        if let Some(begun_ms) = begun_ms {
            let listed = self.client.wakeups(&command.agent, None, MAX_LISTED).await?;
            let of_another = |wakeup: &_| self.is_of_another(wakeup);
            if let Some(made) = look::made(command, begun_ms, &listed.items, of_another) {
                tracing::info!(
                    command = &*self.settings.name,
                    id = &*command.id,
                    wakeup = made.wakeup_id,
                    "a command whose outcome was not known had been carried out"
                );
                return Ok(made.wakeup_id.clone());
            }
        }
        let key = identity.idempotency_key(source);
        let scheduled = self.client.schedule_wakeup(&command.agent, &command.wakeup, &key).await?;
        let Scheduled { wakeup_id, .. } = scheduled;
        Ok(wakeup_id)
    }

    fn is_of_another(&self, wakeup: &crate::sonzai::client::Wakeup) -> bool {
        self.ledger.made(&self.settings.source, &wakeup.wakeup_id)
    }

    async fn finish(
        &self,
        identity: &Identity,
        wakeup: &str,
        give_up: &CancellationToken,
    ) -> Result<(), GivenUp> {
        let made = (&*self.settings.source, wakeup);
        self.durably(give_up, || self.ledger.finish(identity, made, now_ms())).await?;
        self.stats.scheduled.inc();
        self.stats.is_well(&self.settings.name, State::Working);
        Ok(())
    }

    /// Keeps the message as a dead letter.
    async fn keep(
        &self,
        delivery: &Delivery,
        label: &Label,
        agent: Option<&str>,
        tried: (u32, u64),
        reason: &str,
        give_up: &CancellationToken,
    ) -> Result<(), GivenUp> {
        let kept = self.dead_letter(delivery, label, agent, tried, reason);
        self.durably(give_up, || self.dead_letters.keep(kept.clone())).await?;
        self.stats.dead_letters.inc();
        tracing::warn!(
            command = &*self.settings.name,
            id = &*label.id,
            reason,
            "a command becomes a dead letter"
        );
        self.stats.is_well(&self.settings.name, State::Working);
        Ok(())
    }

    /// It stands where it would be sent to come again.
    fn dead_letter(
        &self,
        delivery: &Delivery,
        label: &Label,
        agent: Option<&str>,
        (attempts, first_ms): (u32, u64),
        reason: &str,
    ) -> Kept {
        let CommandSettings { name, source, broker, .. } = &self.settings;
        let at_ms = now_ms();
        let (body, reason) = match delivery.body.len() > MAX_BODY_BYTES {
            true => (
                Bytes::copy_from_slice(&delivery.body[..MAX_BODY_BYTES]),
                format!("{reason}; only the first {MAX_BODY_BYTES} bytes are kept"),
            ),
            false => (delivery.body.clone(), reason.to_owned()),
        };
        let event = Event {
            id: label.id.clone(),
            source: source.clone(),
            kind: label.kind.clone(),
            subject: agent.map(ByteString::from),
            time_ms: at_ms,
            content_type: delivery.content_type.as_deref().map(ByteString::from),
            traceparent: None,
            extensions: vec![("command".into(), name.clone())],
            headers: Vec::new(),
            body,
        };
        let message = Message {
            route: name.clone(),
            broker: broker.clone(),
            address: Ok(delivery.address.clone()),
            format: Format::default(),
            headers: Vec::new(),
        };
        Kept { event, message, attempts, first_ms, at_ms, reason: reason.into() }
    }

    /// Writes something down, however long there is no room for it.
    async fn durably<F: Future<Output = Result<(), AppendError>>>(
        &self,
        give_up: &CancellationToken,
        mut write: impl FnMut() -> F,
    ) -> Result<(), GivenUp> {
        let mut failures = 0;
        while let Err(error) = write().await {
            failures += 1;
            self.stats.is_in_trouble(&self.settings.name, State::NoRoom, &error.to_string());
            self.wait(DISK_PAUSE.jittered(failures), give_up).await?;
        }
        Ok(())
    }

    async fn wait(&self, pause: Duration, give_up: &CancellationToken) -> Result<(), GivenUp> {
        let mut tables = self.tables.clone();
        tables.mark_unchanged();
        let is_denied = self.stats.condition().state == State::Denied;
        tokio::select! {
            () = give_up.cancelled() => Err(GivenUp),
            () = sleep(pause) => Ok(()),
            // The source has gone with the daemon.
            changed = tables.changed(), if is_denied => changed.map_err(|_| GivenUp),
        }
    }
}
