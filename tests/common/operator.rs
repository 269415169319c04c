//! What operators do: look at a daemon's admin listener.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    daemon::Daemon,
    raw::{Answer, Raw},
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request to the admin listener; `further` are header lines.
#[track_caller]
pub fn ask(daemon: &Daemon, method: &str, path: &str, further: &[&str]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    for line in further {
        request.push_str(&format!("{line}\r\n"));
    }
    Raw::connect(daemon.admin_listen).ask(request + "\r\n")
}

/// A page as JSON, with the status it came with.
#[track_caller]
pub fn json(daemon: &Daemon, path: &str) -> (u16, serde_json::Value) {
    let answer = ask(daemon, "GET", path, &[]);
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
}

/// The daemon's metrics at a time.
#[derive(Clone, Debug)]
pub struct Scrape {
    pub text: String,
    /// Each series, as it is written, with its value.
    pub series: BTreeMap<String, f64>,
}

impl Scrape {
    #[track_caller]
    pub fn of(daemon: &Daemon) -> Scrape {
        let answer = ask(daemon, "GET", "/metrics", &[]);
        assert_eq!(answer.status, 200, "{answer:?}");
        let samples = answer.body.lines().filter(|line| !line.starts_with('#'));
        let series = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        let series: BTreeMap<String, f64> = series.collect();
        assert_eq!(
            series.len(),
            answer.body.lines().filter(|line| !line.starts_with('#')).count(),
            "no series is there twice"
        );
        Scrape { series, text: answer.body }
    }

    #[track_caller]
    pub fn get(&self, series: &str) -> f64 {
        match self.series.get(series) {
            Some(value) => *value,
            None => panic!("no {series} in:\n{}", self.text),
        }
    }

    /// Every series is there with its value.
    #[track_caller]
    pub fn assert(&self, expected: &[(&str, f64)]) {
        for (series, value) in expected {
            assert_eq!(self.get(series), *value, "{series}");
        }
    }

    /// All series of one family that are not 0.
    pub fn nonzero(&self, family: &str) -> Vec<(&str, f64)> {
        let of_family = |name: &str| {
            name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let series = self.series.iter().filter(|(name, value)| of_family(name) && **value != 0.0);
        series.map(|(name, value)| (name.as_str(), *value)).collect()
    }
}

/// Scrapes until the metrics are as they must come to be.
#[track_caller]
pub fn await_metrics(daemon: &Daemon, what: &str, come: impl Fn(&Scrape) -> bool) -> Scrape {
    let started = Instant::now();
    loop {
        let scrape = Scrape::of(daemon);
        if come(&scrape) {
            return scrape;
        }
        assert!(started.elapsed() < PATIENCE, "{what} does not come about:\n{}", scrape.text);
        std::thread::sleep(Duration::from_millis(20));
    }
}
