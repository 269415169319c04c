//! `waypost send`: signs a sample or a file as a source would, and posts it.

use std::{fs, io::Read, path::PathBuf};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};

use super::{Error, block_on, client, print, printable, read_table, sample};
use crate::{
    clock::now_ms, daemon::Addresses, ingress::EVENT_ID, routing::Table, routing::path::Path,
    settings::Settings, source::Source,
};

/// Longest answer that is shown.
const MAX_ANSWER_CHARS: usize = 500;

/// Send a signed webhook to a daemon, as the given source would send it.
///
/// Secrets come from the routing table. Prints the status and the event's id; exits with 1 unless
/// the event was accepted.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost send                                      Sonzai's agent.message, to the running daemon
  waypost send sonzai agent.mood_change
  waypost send miibo function_calling
  waypost send sonzai --type agent.message --file body.json
  echo '{\"webhookType\":\"user_utterance\"}' | waypost send miibo --file -
  waypost send --url http://127.0.0.1:8080")]
pub struct Arguments {
    /// Name of a source in the routing table [default: the one of type sonzai, else the first]
    source: Option<String>,
    /// Name of a sample [default: the first of the provider]
    #[arg(conflicts_with = "file")]
    sample: Option<String>,
    /// Send this file's bytes instead of a sample; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The event type in the path, where the source's path has one [default: the sample's]
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Where the daemon listens [default: the one that runs on the data directory]
    #[arg(long, value_name = "URL")]
    url: Option<Uri>,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<(), Error> {
    let table = read_table(&settings.routes)?;
    let (path, source) = find(&table, arguments.source.as_deref())?;
    let (sample_type, body) = body(&arguments, source)?;
    let event_type = arguments.event_type.clone().or(sample_type);
    if path.has_type() && event_type.is_none() {
        return Err(Error("the source's path names the event type: say which with --type".into()));
    }
    let event_type = event_type.unwrap_or_default();
    let signing_type = path.has_type().then_some(&*event_type);
    let signed = source
        .sign(signing_type, &body, now_ms() / 1000)
        .map_err(|why| Error(format!("cannot sign as source `{}`: {why}", source.name)))?;
    let authority = authority(&arguments, settings)?;
    let mut request = Request::post(path.of_type(&event_type))
        .header("host", &authority)
        .header("content-type", "application/json");
    for (name, value) in signed {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(body)).map_err(Error::new)?;
    block_on(post(&authority, request))
}

/// Posts, and says what came back.
async fn post(authority: &str, request: Request<Full<Bytes>>) -> Result<(), Error> {
    let response = client::request(authority, request).await?;
    let status = response.status();
    let id = response.headers().get(EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let answer = response.into_body().collect().await.map_err(Error::new)?.to_bytes();
    let answer = printable(&String::from_utf8_lossy(&answer), MAX_ANSWER_CHARS);
    if status == StatusCode::OK {
        return print(&format!("{status}  {}\n", id.unwrap_or_default()));
    }
    Err(Error(format!("not accepted: {status} {answer}{}", advice(status))))
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            "\nThe daemon has another secret than this command: do both read the same routes.yaml, \
             .env and environment?"
        }
        StatusCode::NOT_FOUND => "\nThe daemon runs with another routes.yaml than this command.",
        _ => "",
    }
}

fn find<'t>(table: &'t Table, name: Option<&str>) -> Result<(&'t Path, &'t Source), Error> {
    use crate::source::Provider;
    let is_default = |source: &Source| matches!(source.provider, Provider::Sonzai(_));
    let found = match name {
        Some(name) => table.sources().find(|(_, source)| source.name == name),
        None => table
            .sources()
            .find(|(_, source)| is_default(source))
            .or_else(|| table.sources().next()),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = table.sources().map(|(_, source)| &*source.name).collect();
        let name = name.unwrap_or_default();
        Error(format!("no such source `{name}`; the routing table has: {}", names.join(", ")))
    })
}

/// The body to send, and the type it stands for.
fn body(arguments: &Arguments, source: &Source) -> Result<(Option<String>, Bytes), Error> {
    if let Some(file) = &arguments.file {
        let cannot = |cause| Error(format!("cannot read {}: {cause}", file.display()));
        let body = if file.as_os_str() == "-" {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body).map_err(cannot)?;
            body
        } else {
            fs::read(file).map_err(cannot)?
        };
        return Ok((None, body.into()));
    }
    let samples = sample::of(&source.provider);
    let sample = match &arguments.sample {
        None => samples.first(),
        Some(name) => samples.iter().find(|sample| sample.name == name),
    };
    let sample = sample.ok_or_else(|| {
        let names: Vec<&str> = samples.iter().map(|sample| sample.name).collect();
        let (name, names) = (arguments.sample.as_deref().unwrap_or_default(), names.join(", "));
        Error(format!("no such sample `{name}` for source `{}`; there are: {names}", source.name))
    })?;
    Ok((Some(sample.name.to_owned()), Bytes::from_static(sample.body.trim_end().as_bytes())))
}

/// Where to send it: host and port.
fn authority(arguments: &Arguments, settings: &Settings) -> Result<String, Error> {
    let Some(url) = &arguments.url else {
        let mut address = Addresses::read(&settings.data_dir)
            .map_or(settings.listen, |addresses| addresses.listen);
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        return Ok(address.to_string());
    };
    match (url.scheme_str(), url.host()) {
        (Some("http"), Some(host)) if matches!(url.path(), "" | "/") => {
            Ok(format!("{host}:{}", url.port_u16().unwrap_or(80)))
        }
        _ => Err(Error(format!(
            "--url {url}: write http://HOST:PORT; plain HTTP only, and the path is the source's"
        ))),
    }
}
