//! A TCP proxy between the daemon and a broker that makes the way sick on purpose.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// Bytes moved at a time: fewer than a window of messages, so that sickness is noticed within one.
const CHUNK_BYTES: usize = 4096;

/// What is wrong with the way; it concerns connections there are and those that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sickness {
    /// Everything comes, each part of it later by so much.
    Delay(Duration),
    /// So many bytes a second pass, each way.
    Throttle(usize),
    /// What is said is lost, and nobody hangs up.
    Swallow,
    /// Connections are reset; new ones are accepted and never answered.
    HalfOpen,
    /// Connections are reset, new ones at once.
    Reset,
    /// Connections end after a few more bytes towards the broker: in the middle of a frame.
    Cut,
}

impl Sickness {
    pub const ALL: [Sickness; 6] = [
        Sickness::Delay(Duration::from_millis(50)),
        Sickness::Throttle(20_000),
        Sickness::Reset,
        Sickness::Cut,
        Sickness::HalfOpen,
        Sickness::Swallow,
    ];

    /// Whether a connection that this befalls is over.
    fn is_the_end(self) -> bool {
        matches!(self, Sickness::Reset | Sickness::HalfOpen)
    }
}

/// The present sickness, if there is any.
type State = watch::Receiver<Option<Sickness>>;

/// See the module. Ends with its connections when dropped.
pub struct Proxy {
    address: SocketAddr,
    sickness: watch::Sender<Option<Sickness>>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Listens on a loopback port (0 picks a free one) and forwards to `broker`.
    pub async fn start(port: u16, broker: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port for the proxy");
        let address = listener.local_addr().expect("its address");
        let (sickness, state) = watch::channel(None);
        let task = tokio::spawn(accept(listener, broker, state));
        Proxy { address, sickness, _task: AbortOnDropHandle::new(task) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn sicken(&self, sickness: Sickness) {
        self.sickness.send_replace(Some(sickness));
    }

    /// What was swallowed stays so: connections that lost something end.
    pub fn cure(&self) {
        self.sickness.send_replace(None);
    }
}

async fn accept(listener: TcpListener, broker: SocketAddr, state: State) {
    let mut running = JoinSet::new();
    for number in 0.. {
        let (client, _) = listener.accept().await.expect("a connection");
        let state = state.clone();
        running.spawn(async move {
            // However it ended, both sides are closed.
            let _ended = forward(client, broker, state, cut_after(number)).await;
        });
        while running.try_join_next().is_some() {}
    }
}

/// How many bytes a connection still carries to the broker once it is to be cut: sometimes not the
/// handshake, sometimes a few messages, and each time another part of the last one.
fn cut_after(number: usize) -> usize {
    (number * 997) % 6000 + 1
}

async fn forward(
    client: TcpStream,
    broker: SocketAddr,
    mut state: State,
    cut_after: usize,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let now = *state.borrow_and_update();
    match now {
        Some(Sickness::Reset) => return client.set_zero_linger(),
        Some(Sickness::HalfOpen) => {
            // Until the cure; then the client learns that nobody is there.
            let _changed = state.changed().await;
            return client.set_zero_linger();
        }
        _ => {}
    }
    let broker = TcpStream::connect(broker).await?;
    broker.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let mut sent =
        Pump { from: from_client, to: to_broker, state: state.clone(), cut_after: Some(cut_after) };
    let mut received = Pump { from: from_broker, to: to_client, state, cut_after: None };
    let ended = tokio::select! {
        ended = sent.run() => ended,
        ended = received.run() => ended,
    };
    if let Err(error) = &ended
        && error.kind() == io::ErrorKind::ConnectionReset
    {
        let whole = sent.from.reunite(received.to).expect("two halves of one");
        whole.set_zero_linger()?;
    }
    ended
}

/// One direction of a connection.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    state: State,
    /// Bytes left once it is to be cut; `None` where it never is.
    cut_after: Option<usize>,
}

impl Pump {
    /// Moves bytes until either side ends, or the way does.
    async fn run(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut lost = false;
        loop {
            let read = tokio::select! {
                biased;
                changed = self.state.changed() => {
                    changed.map_err(|_| io::ErrorKind::NotConnected)?;
                    None
                }
                read = self.from.read(&mut chunk) => Some(read?),
            };
            let sickness = *self.state.borrow_and_update();
            // A stream with a hole in it is none any more.
            if sickness.is_some_and(Sickness::is_the_end) || lost && sickness.is_none() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let Some(read) = read else { continue };
            if read == 0 {
                return Ok(());
            }
            match (sickness, self.cut_after) {
                (Some(Sickness::Swallow), _) => lost = true,
                (Some(Sickness::Cut), Some(left)) => {
                    self.to.write_all(&chunk[..read.min(left)]).await?;
                    if read >= left {
                        return Ok(());
                    }
                    self.cut_after = Some(left - read);
                }
                _ => {
                    tokio::time::sleep(pause(sickness, read)).await;
                    self.to.write_all(&chunk[..read]).await?;
                }
            }
        }
    }
}

fn pause(sickness: Option<Sickness>, bytes: usize) -> Duration {
    match sickness {
        Some(Sickness::Delay(pause)) => pause,
        Some(Sickness::Throttle(a_second)) => {
            Duration::from_secs_f64(bytes as f64 / a_second as f64)
        }
        _ => Duration::ZERO,
    }
}
