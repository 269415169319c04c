//! A stand-in for Sonzai's API: stateful, on loopback only, as strict as Sonzai's OpenAPI document,
//! and told to misbehave where a test wants that.
//!
//! | module | has |
//! | --- | --- |
//! | [`options`] | what a stand-in is started with, and the limits of what it keeps |
//! | `listener` | connections, and the answers that are cut, slow or late on purpose |
//! | `api`, `resource`, `checks`, `bodies` | `/api/v1`: which call it is, whether it is right, its answer |
//! | `answers`, `problem` | the shapes of answers |
//! | `state`, `messages`, `wakeups`, `webhooks`, `caches`, `rate`, `ids` | what is remembered |
//! | [`emit`], `deliver` | events: stored for polling, and sent to webhooks, signed, with retries |
//! | [`faults`], [`stubborn`] | what is to go wrong |
//! | `requests` | what was asked |
//! | `control` | `/-/`: all of this, told from outside |
//!
//! The state is behind one mutex that nobody holds while waiting for anything. What the document says
//! is written here in types of our own; tests compare both where the document is at hand.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::clock::now_ms;

mod answers;
mod api;
mod bodies;
mod caches;
mod checks;
mod control;
mod deliver;
pub mod emit;
pub mod faults;
mod ids;
mod listener;
mod messages;
pub mod options;
mod problem;
mod rate;
mod requests;
mod resource;
mod state;
pub mod stubborn;
mod wakeups;
mod webhooks;

pub use options::{Answers, Options};

use emit::{CannotEmit, Emit, Emitted};
use faults::Rule;
use state::State;
use stubborn::Stubborn;

/// Why a stand-in does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{0} is not on this machine: a stand-in listens on loopback only, such as 127.0.0.1:9900"
    )]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: SocketAddr, cause: io::Error },
    #[error("{0}")]
    Options(#[from] options::Wrong),
    #[error("cannot prepare deliveries: {0}")]
    Deliveries(#[from] deliver::SetupError),
}

/// A running stand-in. It ends when this is dropped.
pub struct Stub {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// What requests, deliveries and wakeups share.
struct Shared {
    options: Options,
    /// `http://ADDRESS`
    base: String,
    state: Mutex<State>,
    deliveries: deliver::Client,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until the stand-in ends.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }
}

impl Stub {
    /// Listens, and answers until it is dropped. Reads the CA's file, so blocks shortly.
    ///
    /// # Errors
    ///
    /// An address that is not on loopback or is taken, options out of bounds, a CA that cannot be read.
    pub async fn start(options: Options) -> Result<Stub, Error> {
        options.check()?;
        if !options.listen.ip().is_loopback() {
            return Err(Error::NotLoopback(options.listen));
        }
        let deliveries = deliver::Client::new(options.ca.as_deref(), options.delivery_timeout)?;
        let address = options.listen;
        let failed = |cause| Error::Listen { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let mut state = State::new(&options, now_ms());
        emit::first(&mut state, &options, now_ms());
        let shared = Arc::new(Shared {
            base: format!("http://{address}"),
            state: Mutex::new(state),
            options,
            deliveries,
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        });
        shared.spawn(listener::serve(listener, shared.clone()));
        shared.spawn(emit::due_wakeups(shared.clone()));
        Ok(Stub { address, shared, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for clients: `http://ADDRESS`.
    pub fn url(&self) -> &str {
        &self.shared.base
    }

    /// Makes events happen; as `POST /-/emit`.
    ///
    /// # Errors
    ///
    /// An agent that is not there, an id that is, or no more room.
    pub fn emit(&self, emit: Emit) -> Result<Emitted, CannotEmit> {
        emit::emit(&self.shared, emit)
    }

    /// Lets something go wrong; as `POST /-/faults`. `false`: there are too many already.
    pub fn fault(&self, rule: Rule) -> bool {
        self.shared.lock().faults.add(rule)
    }

    /// Nothing goes wrong any more; as `DELETE /-/faults`.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Makes items that can never be taken; as `POST /-/fail-take`.
    pub fn fail_take(&self, stubborn: Stubborn) {
        self.shared.lock().stubborn = stubborn;
    }

    /// What was asked of the API; as `GET /-/requests`.
    pub fn requests(&self) -> Value {
        self.shared.lock().requests.shown()
    }

    /// As `DELETE /-/requests`. The count goes on.
    pub fn forget_requests(&self) {
        self.shared.lock().requests.forget();
    }

    /// What is remembered; as `GET /-/state`.
    pub fn state(&self) -> Value {
        self.shared.lock().shown(now_ms())
    }
}
