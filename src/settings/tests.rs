use super::*;

fn load(toml: &str, flags: &Flags) -> Result<Settings, Error> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    std::fs::write(&file, toml).unwrap();
    Settings::load(&file, flags)
}

#[test]
fn without_anything_the_defaults_hold() {
    let settings = Settings::load(Path::new("/nonexistent.toml"), &Flags::default()).unwrap();
    assert_eq!(settings.listen.port(), 8080);
    assert_eq!(settings.backlog_bytes(), 4 << 30);
}

#[test]
fn the_file_is_read_and_a_flag_wins() {
    let toml = "listen = '127.0.0.1:1'\n[ingress]\nbody_timeout = '3s'\n[shutdown]\ndelay = '1s'\n";
    let flags = Flags { listen: Some(([127, 0, 0, 1], 2).into()), ..Flags::default() };
    let settings = load(toml, &flags).unwrap();
    assert_eq!(settings.listen.port(), 2);
    assert_eq!(settings.ingress.body_timeout, Duration::from_secs(3));
    assert_eq!(settings.shutdown.delay, Some(Duration::from_secs(1)));
}

#[test]
fn a_misspelt_or_ill_typed_setting_is_refused_by_name() {
    for (toml, expected) in [
        (
            "lisen = '127.0.0.1:1'",
            "there is no setting `lisen` (waypost.toml); did you mean `listen`?",
        ),
        (
            "[journal]\nmax_byte = 1",
            "there is no setting `journal.max_byte` (waypost.toml); did you mean \
             `journal.max_bytes`?",
        ),
        ("[ingress.tls]\nca = 'c.pem'", "there is no setting `ingress.tls.ca` (waypost.toml)"),
        (
            "[ingress]\nbody_timeout = 'soon'",
            "`ingress.body_timeout` (waypost.toml): \"soon\" is no duration",
        ),
        ("listen = 'here'", "`listen` (waypost.toml): "),
        (
            "[ingress]\nhttp2 = 'yes'",
            "`ingress.http2` is \"yes\" (waypost.toml); it must be true or false",
        ),
        (
            "[dedupe]\nmax_keys = -1",
            "`dedupe.max_keys` is -1 (waypost.toml); it must be a whole number from 0 on",
        ),
        (
            "[log]\nformat = 'xml'",
            "`log.format` is `xml` (waypost.toml); known are auto, text and json",
        ),
        (
            "[dispatch]\nwindow_messages = 0",
            "`dispatch.window_messages` is 0; it must be 1 to 4096",
        ),
        ("[log]\nmax_queued_lines = 0", "`log.max_queued_lines` is 0; it must be 64 to 1000000"),
        ("[ingress]\nmax_head_bytes = 100", "`ingress.max_head_bytes` is 100"),
        (
            "[ingress]\nbody_timeout = '0s'",
            "`ingress.body_timeout` is 0s; it must be at least 1ms, and 0 does not",
        ),
        ("[ingress]\nhead_timeout = '999us'", "`ingress.head_timeout` is 999us"),
        ("[ingress]\nfirst_byte_timeout = '0s'", "`ingress.first_byte_timeout` is 0s"),
        ("[ingress.tls]\ncert = 'c.pem'", "`ingress.tls.key` is not; set both"),
        ("[ingress.tls]\nkey = 'k.pem'", "`ingress.tls.cert` is not; set both"),
        (
            "[journal]\nmax_bytes = 2000000\n[dispatch]\nbacklog_max_bytes = 50000000",
            "`dispatch.backlog_max_bytes` is 50000000 and `journal.max_bytes` is 2000000: ",
        ),
        (
            "[dead_letters]\nmax_bytes = 100000",
            "`dead_letters.max_bytes` is 100000 and `ingress.max_body_bytes` is 2097152: ",
        ),
        (
            "[ingress]\nmax_in_flight_bytes = 100",
            "max_in_flight_bytes` is 100; it must be at least",
        ),
    ] {
        let error = load(toml, &Flags::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
