//! Sonzai's own SDK goes through all calls that Waypost makes, against the stand-in: so the stand-in
//! is what the SDK takes for Sonzai.

use std::{env, path::Path, process::Command};

use crate::common::sonzai_stub::{KEY, PROJECT, SonzaiStub};

/// Where `scripts/install.sh test` puts it, from the project's directory.
const PYTHON: &str = ".tools/sonzai-sdk/bin/python";

/// Whether there is a Python that could have had the SDK.
fn has_recent_python() -> bool {
    let is_recent = "import sys, venv; sys.exit(sys.version_info < (3, 12))";
    ["python3.12", "python3.13", "python3.14", "python3"].iter().any(|python| {
        let output = Command::new(python).args(["-c", is_recent]).output();
        output.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn the_real_sdk_works_against_the_stand_in() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = dir.join(PYTHON);
    if !python.exists() {
        let is_ci = env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(
            !is_ci || !has_recent_python(),
            "Python is here, and Sonzai's SDK is not installed"
        );
        println!("skipped: no SDK at {}; it wants Python 3.12", python.display());
        return;
    }
    let flags = ["--answers", "strict", "--retry-delay", "10ms", "--tick", "50ms"];
    let stub = SonzaiStub::start(&flags);
    let output = Command::new(python)
        .args([dir.join("tests/sonzai/sdk.py").as_os_str(), PROJECT.as_ref()])
        .env_clear()
        .env("SONZAI_BASE_URL", stub.url())
        .env("SONZAI_API_KEY", KEY)
        .output()
        .expect("to run Python");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
