//! A server on loopback that answers what a test says, and remembers what it was asked.

use std::{
    convert::Infallible,
    future, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};

use crate::common::certificates::Pair;

type Body = BoxBody<Bytes, io::Error>;

/// What becomes of one request.
pub enum Act {
    Answer(Response<Bytes>),
    /// The connection is closed without an answer.
    Close,
    /// The connection is closed within the answer's body.
    Cut,
    /// No answer, ever.
    Silence,
    /// The head of an answer, some of its body, and no more, ever.
    Stall,
    /// A body of so many bytes that does not say how many.
    Stream(usize),
}

/// An answer with a status and a JSON body.
pub fn answer(status: u16, body: &str) -> Act {
    with(status, &[], body)
}

/// The same with headers.
pub fn with(status: u16, headers: &[(&str, &str)], body: &str) -> Act {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Act::Answer(response.body(Bytes::copy_from_slice(body.as_bytes())).expect("an answer"))
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

type Script = dyn Fn(usize) -> Act + Send + Sync;

struct Shared {
    script: Box<Script>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
}

/// The server. It ends when it is dropped.
pub struct Api {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Api {
    /// One that answers the request with this number, from 0, like this.
    pub async fn start(script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Api {
        Api::serve(script, None).await
    }

    /// One that gives these answers, one after the other, and the last one from then on.
    pub async fn scripted(acts: Vec<fn() -> Act>) -> Api {
        Api::start(move |index| acts[index.min(acts.len() - 1)]()).await
    }

    /// One that shows a certificate.
    pub async fn with_tls(
        pair: &Pair,
        script: impl Fn(usize) -> Act + Send + Sync + 'static,
    ) -> Api {
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![pair.der()], key)
            .expect("a certificate");
        Api::serve(script, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(
        script: impl Fn(usize) -> Act + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("to bind");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        let accepting = shared.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Relaxed);
                let (shared, tls) = (accepting.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => speak(stream, shared).await,
                        // A client that does not trust us has its test see that.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                speak(stream, shared).await;
                            }
                        }
                    }
                });
            }
        });
        Api { address, shared, _tasks: tasks }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no panic").clone()
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.shared.asked.lock().expect("no panic").len()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Relaxed)
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(|request| receive(request, shared.clone()));
    // Connections that end early are what some tests are about.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn receive(request: Request<Incoming>, shared: Arc<Shared>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let asked = Asked {
        method: head.method,
        target: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8(body.into()).expect("text"),
    };
    let index = {
        let mut all = shared.asked.lock().expect("no panic");
        all.push(asked);
        all.len() - 1
    };
    let streamed = |frames: Vec<io::Result<Bytes>>| {
        BodyExt::boxed(StreamBody::new(stream::iter(frames).map(|frame| frame.map(Frame::data))))
    };
    let part = || Ok(Bytes::from_static(b"{\"webhooks\":"));
    Ok(match (shared.script)(index) {
        Act::Answer(response) => {
            response.map(|body| Full::new(body).map_err(|never: Infallible| match never {}).boxed())
        }
        Act::Close => return Err(io::Error::other("closed")),
        Act::Silence => future::pending().await,
        Act::Cut => {
            let body = streamed(vec![part(), Err(io::Error::other("cut"))]);
            Response::builder().header("content-length", "1000").body(body).expect("an answer")
        }
        Act::Stall => {
            let frames = stream::iter([part().map(Frame::data)]).chain(stream::pending());
            Response::new(BodyExt::boxed(StreamBody::new(frames)))
        }
        Act::Stream(bytes) => {
            let frames = (0..bytes / 100).map(|_| Ok(Bytes::from_static(&[b' '; 100])));
            Response::new(streamed(frames.collect()))
        }
    })
}
