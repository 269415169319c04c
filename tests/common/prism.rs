//! Prism: a published mock server, run from Sonzai's OpenAPI document. It refuses with 422 what the
//! document does not allow.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    brokers::{leash::Leash, ports},
    openapi::Document,
};

/// Where `scripts/install.sh test` puts it, from the project's directory.
const PROGRAM: &str = ".tools/prism/node_modules/.bin/prism";

/// How long it may take to start on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);

/// A running mock server; it ends when this is dropped, or with the process.
pub struct Prism {
    pub address: SocketAddr,
    _leash: Leash,
}

impl Prism {
    /// Starts it and waits until it listens; or says that the test is skipped, where Prism is not.
    /// Its base URL is `http://ADDRESS`, without a path.
    ///
    /// # Panics
    ///
    /// In continuous integration where Node.js is there and Prism is not.
    pub fn start(document: &Document) -> Option<Prism> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(PROGRAM);
        if !program.exists() {
            let node = Command::new("node").arg("--version").stdout(Stdio::null()).status();
            let is_ci = env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!is_ci || node.is_err(), "Node.js is here, and Prism is not installed");
            println!("skipped: no Prism at {}; it wants Node.js and npm", program.display());
            return None;
        }
        let dir = tempfile::Builder::new().prefix("waypost-prism-").tempdir().expect("a directory");
        // The leash removes it.
        let dir = dir.keep();
        let file = dir.join("openapi.json");
        fs::write(&file, document.for_mock().to_string()).expect("to write the document");
        let port = ports::free().expect("a free port");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = dir.join("prism.log");
        let mut command = Command::new(program);
        command.args(["mock", "--errors", "--host", "127.0.0.1", "--port", &port.to_string()]);
        command.arg(&file);
        let leash = Leash::start(&command, &dir, &log).expect("to start Prism");
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(!leash.has_ended(), "Prism ended:\n{}", said());
            assert!(started.elapsed() < WITHIN, "Prism does not listen:\n{}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Prism { address, _leash: leash })
    }
}
