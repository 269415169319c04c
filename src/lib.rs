//! Waypost turns signed webhooks into broker messages and loses nothing on the way.
//!
//! This page is the map: the life of an event, who knows what, and the invariants.
//!
//! # The life of an event
//!
//! 1. [`server`] accepts a connection within limits, over TLS or not; [`ingress`] finds the source
//!    that owns the path in the [`routing`] table and reads the raw body.
//! 2. The [`source`] verifies the [`signature`] over the raw bytes, before anything is parsed, and
//!    builds the [`event`]. [`body`] reads the few fields that takes.
//! 3. [`admit`] is the one way in. Known already ([`dedupe`])? Then it is answered like the first.
//!    Otherwise the table resolves it: every matching route's targets, rendered into messages.
//! 4. The record (event and messages) is appended to the [`journal`]; the 2xx goes out when the group
//!    commit that holds it is on disk.
//! 5. Each broker's [`dispatch`]er reads the journal at its own cursor, publishes through its
//!    [`broker`] with many messages in flight, and settles each: confirmed, or durably a dead letter.
//!    What it settles it tells the [`feed`].
//! 6. Segments that every cursor has passed are deleted.
//!
//! What was not pushed enters at 3: [`sonzai`] polls what is pending and fetches what an outage lost, and takes
//! it upstream only once it is on disk.
//!
//! The other direction: [`commands`] are taken from a broker and carried out through Sonzai's API.
//!
//! When `routes.yaml` changes, [`daemon`] reads it again, does first all that can fail, swaps the table
//! and tells the dispatchers.
//!
//! [`daemon`] wires all of this together and is the only module that knows all others; [`cli`] runs
//! it, and is what people call. [`admin`] is the operators' listener: whoever counts owns its
//! [`meter`]s, and there everything counted is shown. `service` tells systemd, and [`telemetry`] is the log.
//!
//! # Who may import whom
//!
//! `cli` → `daemon` → {`ingress`, `sonzai`, `commands`, `dispatch`, `admin`, `server`} → `admit` → {`journal`,
//! `dedupe`, `broker`, `routing`, `source`, `signature`} → `event`. `commands` use `sonzai`'s client and
//! the dead letters of `dispatch`, and admit nothing. A source says by which
//! keys of `dedupe` its events are known. The ingress never sees brokers, brokers never see the journal, and
//! the journal knows bytes and positions only. `footprint` sums the bounds of `settings` up. `certificates`, `clock`,
//! `host`, `meter`, `nearest`, `printable`, `private`, `quiet`, `secret`, `small_file`, `body` and `feed` are small
//! and know nothing of the rest.
//!
//! # Invariants
//!
//! 1. A 2xx is sent only when the event is on disk; nothing acknowledged depends on the page cache,
//!    on memory, on a broker being up, or on `routes.yaml` staying as it was.
//! 2. What an event owes is decided once, at receipt, and recorded with it.
//! 3. A message settles only when its broker has confirmed it, or when it is durably parked or
//!    durably a dead letter. A cursor never passes an unsettled message.
//! 4. Nothing is parsed before it is verified, and the body is published byte for byte.
//! 5. One broker's trouble is its own: no dispatcher waits for another, and memory is bounded by
//!    [`settings`] whatever the backlog.
//! 6. A bad `routes.yaml` changes nothing. A request finishes on the table that it began with, and a
//!    broker that is named no more is served until it has what such requests owe it.
//! 7. A secret is held in a type that does not print, and never reaches a log, an error, a message or
//!    the journal.
//! 8. The log changes nothing: nobody waits for a line, or fails for one.

// They panic where nobody reads. Commands have `cli::print` and `cli::tell`, and the daemon its log.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod admin;
pub mod admit;
mod backoff;
pub mod body;
pub mod broker;
pub mod certificates;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod daemon;
pub mod dedupe;
mod descriptors;
pub mod dispatch;
pub mod event;
pub mod feed;
pub mod footprint;
mod host;
pub mod ingress;
pub mod journal;
pub mod meter;
mod nearest;
mod printable;
mod private;
pub mod quiet;
pub mod routing;
pub mod secret;
pub mod server;
mod service;
pub mod settings;
pub mod shutdown;
pub mod signature;
mod small_file;
pub mod sonzai;
pub mod source;
pub mod telemetry;
