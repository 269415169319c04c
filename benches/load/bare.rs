//! What everything is measured against: a hyper server that reads the body, checks the HMAC, and
//! answers. It keeps nothing.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use waypost::{
    clock::now_ms,
    signature::{self, Key},
};

use super::generator::SECRET;

/// The bare server in a process of its own; killed when dropped.
pub struct Bare {
    child: Child,
    pub address: SocketAddr,
}

impl Bare {
    pub fn start() -> Bare {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg("--serve-bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("to start the bare server");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its address");
        Bare { address: line.trim().parse().expect("an address"), child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.child.kill().expect("to end the bare server");
        self.child.wait().expect("its end");
    }
}

/// Serves until standard input ends.
pub fn serve() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _serving = runtime.spawn(accept());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("to wait for the end");
    runtime.shutdown_background();
}

async fn accept() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
    println!("{}", listener.local_addr().expect("its address"));
    let key = Arc::new([signature::sonzai::key(SECRET).expect("a key")]);
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let key = key.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, key.clone()));
            // A client that goes away is the end of a run.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    key: Arc<[Key; 1]>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let verified = match body.collect().await {
        Ok(body) => {
            let (body, now_s) = (body.to_bytes(), now_ms() / 1000);
            signature::sonzai::verify(&key[..], &head.headers, &body, now_s).is_ok()
        }
        Err(_) => false,
    };
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
    if !verified {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Ok(response)
}
