//! Opens everything that the daemon keeps on disk, and recovers what the last one left.

use std::{path::Path, sync::Arc};

use bytestring::ByteString;

use super::Error;
use crate::{
    admin::{Token, TokenError},
    commands::{self, Commands},
    dedupe,
    dispatch::{self, Capacity, DeadLetters, Dispatcher, Shared, dead_letter},
    feed::Feed,
    footprint::parked_max_bytes,
    journal::{self, Journal, RealDisk, Reserve, Storage, is_no_space},
    settings::Settings,
};

/// A small journal holds parked messages or dead letters.
const SMALL_SEGMENT_BYTES: u64 = 8 << 20;
const SMALL_TAIL_BYTES: usize = 1 << 20;

/// Segments that a bound is at least made up of: it is told, and space is freed, by whole segments.
const MIN_SEGMENTS: u64 = 8;

/// Everything that is open before the daemon takes a request.
pub struct Opened {
    pub main: Journal,
    pub dead_letters: DeadLetters,
    pub window: Arc<dedupe::Window>,
    pub token: Token,
    pub opener: Opener,
}

pub fn open(settings: &Arc<Settings>) -> Result<Opened, Error> {
    let dir = &settings.data_dir;
    let storage: Arc<dyn Storage> = Arc::new(RealDisk);
    storage.create_dir_all(dir).map_err(|cause| Error::DataDir { path: dir.clone(), cause })?;
    let limits = remembered(settings);
    let reserve =
        Reserve::new(storage.clone(), dir.join("reserve"), settings.journal.reserve_bytes);
    let open_journal = |dir: &Path, options: journal::Options| {
        let open = || Journal::open(storage.clone(), dir, options.clone());
        reserve.open(open, journal::Error::is_no_space)
    };
    let main = open_journal(
        &dir.join("journal"),
        journal::Options {
            segment_bytes: settings.segment_bytes(),
            max_bytes: settings.journal.max_bytes,
            tail_bytes: settings.journal.tail_bytes,
            keep: settings.journal.keep,
            max_keys: limits.max_keys,
            ..journal_options(settings)
        },
    )?;
    let window = dedupe::Window::new(limits, main.keys);
    // The journal's lock is held by now: no other daemon makes one at the same time.
    let no_space = |error: &TokenError| match error {
        TokenError::Io { cause, .. } => is_no_space(cause),
        _ => false,
    };
    let token = reserve.open(|| Token::open(dir), no_space)?;
    let options = small_journal(settings, settings.dead_letters.max_bytes);
    let dead_letters = open_journal(&dead_letter::dir(dir), options)?;
    let shared = Shared {
        main: main.journal.clone(),
        dead_letters: DeadLetters::new(dead_letters.journal),
        backlogs: Arc::default(),
        holds: Arc::default(),
        feed: Feed::default(),
    };
    let opener = Opener { settings: settings.clone(), storage, reserve, shared };
    Ok(Opened {
        main: main.journal,
        dead_letters: opener.shared.dead_letters.clone(),
        window,
        token,
        opener,
    })
}

/// Opens what a broker has on disk: at the start, and when a reload brings one. A cheap handle.
#[derive(Clone)]
pub struct Opener {
    pub settings: Arc<Settings>,
    pub reserve: Reserve,
    pub shared: Shared,
    storage: Arc<dyn Storage>,
}

impl Opener {
    /// What takes commands and carries them out.
    pub fn commands(&self) -> (Commands, commands::Service) {
        commands::Service::new(commands::Parts {
            storage: self.storage.clone(),
            reserve: self.reserve.clone(),
            data_dir: self.settings.data_dir.clone(),
            remembered: remembered(&self.settings),
            client: (&self.settings.sonzai).into(),
            dead_letters: self.shared.dead_letters.clone(),
            deadline: self.settings.shutdown.deadline,
            journal: journal_options(&self.settings),
        })
    }

    /// The dispatcher of a broker, and its parked messages, of which there may be so many bytes. From
    /// now on nothing is freed that its cursor has not passed. Blocks.
    pub fn dispatcher(
        &self,
        name: &ByteString,
        backlog_bytes: u64,
    ) -> Result<(Dispatcher, Journal), Error> {
        let dir = self.settings.data_dir.join("parked").join(&**name);
        let options = parked_journal(&self.settings, backlog_bytes);
        let open = || Journal::open(self.storage.clone(), &dir, options.clone());
        let parked = self.reserve.open(open, journal::Error::is_no_space)?.journal;
        let limits = dispatch_limits(&self.settings);
        let open = || Dispatcher::open(name.clone(), limits, parked.clone(), self.shared.clone());
        let dispatcher = self.reserve.open(open, dispatch::Error::is_no_space);
        let dispatcher =
            dispatcher.map_err(|cause| Error::Dispatcher { broker: name.clone(), cause })?;
        Ok((dispatcher, parked))
    }
}

/// How long, and how many, events are known again; and commands.
fn remembered(settings: &Settings) -> dedupe::Limits {
    dedupe::Limits { window: settings.dedupe.window, max_keys: settings.dedupe.max_keys }
}

/// The journal of a broker's parked messages.
pub fn parked_journal(settings: &Settings, backlog_bytes: u64) -> journal::Options {
    let max_bytes = parked_max_bytes(backlog_bytes);
    journal::Options { max_bytes, ..small_journal(settings, backlog_bytes) }
}

/// A journal whose bound is `max_bytes`.
fn small_journal(settings: &Settings, max_bytes: u64) -> journal::Options {
    journal::Options {
        segment_bytes: SMALL_SEGMENT_BYTES.min(max_bytes / MIN_SEGMENTS),
        tail_bytes: SMALL_TAIL_BYTES,
        max_bytes,
        ..journal_options(settings)
    }
}

/// What all journals have in common.
fn journal_options(settings: &Settings) -> journal::Options {
    let journal = &settings.journal;
    journal::Options {
        commit_timeout: journal.commit_timeout,
        read_patience: journal.read_patience,
        quarantine_bytes: journal.quarantine_max_bytes,
        write_version: journal.write_version,
        ..journal::Options::default()
    }
}

pub fn dispatch_limits(settings: &Settings) -> dispatch::Limits {
    dispatch::Limits {
        window: Capacity {
            messages: settings.dispatch.window_messages,
            bytes: settings.dispatch.window_bytes,
        },
        retry_for: settings.dispatch.retry_for,
        backlog_bytes: settings.backlog_bytes(),
        drain: settings.shutdown.deadline,
    }
}
