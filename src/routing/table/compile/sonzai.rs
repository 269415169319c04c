//! What a Sonzai source says of Sonzai's API: `api:`, `register:` and `poll:`.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use super::{Compiler, Skipped, web_url::WebUrl};
use crate::{
    certificates::{self, PEM_SIGN},
    routing::{
        diagnostic::{Code, Diagnostic},
        file::{
            Place,
            mirror::{self, OneOrMany, SonzaiSource},
        },
        path::is_type,
    },
    small_file,
    source::sonzai::{
        Settings,
        settings::{
            AGENT_NOTIFICATION, Agents, Api, DEFAULT_EVERY, DEFAULT_URL, Poll, Register, Scope,
            Whose,
        },
    },
};

/// Between two looks at a list: shorter is a load, longer no fallback.
const EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60 * 60)];

/// Farthest that a start repairs: what happened before is for a command that somebody watches.
const MAX_REPAIR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Longest id or name of a project, an agent or a user, in bytes: it stands in a URL.
const MAX_ID_BYTES: usize = 255;

/// Whoever polls all agents says so.
const ALL_AGENTS: &str = "all";

impl Compiler<'_> {
    // Each looks at every part before it gives up on one, so that all problems are reported.

    pub(super) fn sonzai_settings(
        &mut self,
        given: &SonzaiSource,
        source: Place,
    ) -> Result<Settings, Skipped> {
        let api = given.api.as_ref().map(|given| self.api(given, source.key("api")));
        let register = given.register.as_ref();
        let register = register.map(|given| self.register(given, source.key("register")));
        let poll = given.poll.as_ref().map(|given| self.poll(given, source.key("poll")));
        self.needs_api(given, source)?;
        Ok(Settings {
            api: api.transpose()?,
            register: register.transpose()?,
            poll: poll.transpose()?,
        })
    }

    fn needs_api(&mut self, given: &SonzaiSource, source: Place) -> Result<(), Skipped> {
        let needing = [("register", given.register.is_some()), ("poll", given.poll.is_some())];
        let Some((name, _)) = needing.into_iter().find(|(_, given)| *given) else { return Ok(()) };
        if given.api.is_some() {
            return Ok(());
        }
        // What is misspelt, or wrong in it, is reported as that.
        if source.is_cut() {
            return Err(Skipped);
        }
        let message = format!("`{name}:` needs `api:` beside it");
        let help = "give the API's key: `api: { key: \"${SONZAI_API_KEY}\" }`";
        Err(self.advise(Code::MissingKey, source.key(name).at_key(), message, help))
    }

    fn api(&mut self, given: &mirror::Api, place: Place) -> Result<Api, Skipped> {
        let url = match &given.url {
            None => Ok(DEFAULT_URL.to_owned()),
            Some(text) => self.api_url(text, place.key("url")),
        };
        let key = self.api_key(&given.key, place.key("key"));
        let ca = given.ca.as_ref().map(|ca| self.authorities(ca, place.key("ca")));
        Ok(Api { url: url?, key: key?, ca: ca.transpose()? })
    }

    fn api_url(&mut self, text: &str, place: Place) -> Result<String, Skipped> {
        let url = self.web_url("url", text, place)?;
        if !url.is_private {
            let message = "the API's key would cross the network in the clear";
            let help = "write `https://`; `http://` is for this machine alone, like `http://127.0.0.1:8089`";
            return Err(self.advise(Code::InsecureUrl, place.span(), message, help));
        }
        Ok(url.text)
    }

    fn api_key(&mut self, text: &str, place: Place) -> Result<SecretString, Skipped> {
        let key = self.filled("key", place, text)?;
        // It stands in a header.
        if !key.expose_secret().bytes().all(|b| b.is_ascii_graphic()) {
            let message = "the API's key holds white space, or a character that is not ASCII";
            return Err(self.report(Code::InvalidSecret, place.span(), message));
        }
        Ok(key)
    }

    /// The file is read to say what is wrong with it before a connection would.
    fn authorities(&mut self, text: &str, place: Place) -> Result<PathBuf, Skipped> {
        let path = self.filled("ca", place, text)?;
        let path = path.expose_secret();
        if path.contains(PEM_SIGN) {
            let message = "`ca:` is the path of a PEM file, not what it holds";
            return Err(self.report(Code::InvalidMaterial, place.span(), message));
        }
        let path = PathBuf::from(path);
        if self.env.is_none() {
            return Ok(path);
        }
        let wrong = match small_file::read(&path) {
            Err(cause) => Some(format!("cannot read `ca:`, {text}: {cause}")),
            Ok(pem) => {
                let wrong = certificates::authorities(&pem).err();
                wrong.map(|why| format!("`ca:`, {text}, {why}"))
            }
        };
        match wrong {
            None => Ok(path),
            Some(message) => Err(self.report(Code::InvalidMaterial, place.span(), message)),
        }
    }

    fn register(&mut self, given: &mirror::Register, place: Place) -> Result<Register, Skipped> {
        let public_url = self.public_url(&given.public_url, place.key("public_url"));
        let project = given.project.as_ref();
        let project = project.map(|id| self.id("project", id, place.key("project"))).transpose();
        let types = self.registered_types(&given.types, place.key("types"));
        Ok(Register {
            public_url: public_url?,
            scope: project?.map_or(Scope::Tenant, Scope::Project),
            types: types?,
        })
    }

    fn public_url(&mut self, text: &str, place: Place) -> Result<String, Skipped> {
        let url = self.web_url("public_url", text, place)?;
        if !url.is_private {
            let message = "webhooks for this URL cross the network in the clear";
            let help = "write `https://`: without it, whoever is on the way reads along";
            let doubt = Diagnostic::warning(Code::InsecureUrl, place.span(), message);
            self.problems.push(doubt.help(help));
        }
        Ok(url.text)
    }

    fn registered_types(
        &mut self,
        given: &OneOrMany,
        place: Place,
    ) -> Result<Vec<String>, Skipped> {
        let types = given.as_slice();
        if types.is_empty() && !place.is_cut() {
            let message = "the list `types:` is empty: there is nothing to register";
            let help = "name the event types, or leave `register:` out";
            return Err(self.advise(Code::InvalidValue, place.span(), message, help));
        }
        let each = types.iter().enumerate();
        let checked = each.map(|(index, text)| self.event_type("types", text, place.item(index)));
        let checked: Vec<Result<String, Skipped>> = checked.collect();
        let types = checked.into_iter().collect::<Result<Vec<String>, Skipped>>()?;
        self.each_once("types", &types, place)?;
        Ok(types)
    }

    fn poll(&mut self, given: &mirror::Poll, place: Place) -> Result<Poll, Skipped> {
        let whose = self.whose(given, place);
        let every = given.every.as_ref().map(|text| self.every(text, place.key("every")));
        let repair = given.repair.as_ref().map(|text| self.repair(text, place.key("repair")));
        let kind = given.r#type.as_deref().unwrap_or(AGENT_NOTIFICATION);
        let kind = self.event_type("type", kind, place.key("type"));
        Ok(Poll {
            whose: whose?,
            every: every.transpose()?.unwrap_or(DEFAULT_EVERY),
            mode: given.mode.unwrap_or_default(),
            take: given.take.unwrap_or(true),
            repair: repair.transpose()?,
            kind: kind?.into(),
        })
    }

    fn whose(&mut self, given: &mirror::Poll, place: Place) -> Result<Whose, Skipped> {
        match (&given.project, &given.agents) {
            (Some(project), None) => {
                let project = self.id("project", project, place.key("project"));
                self.only_of_agents(place)?;
                Ok(Whose::Project(project?))
            }
            (None, Some(agents)) => {
                let agents = self.agents(agents, place.key("agents"));
                let users = given.users.as_ref();
                let users = users.map(|users| self.ids("users", users, place.key("users")));
                Ok(Whose::Agents { agents: agents?, users: users.transpose()?.unwrap_or_default() })
            }
            (Some(_), Some(_)) => {
                let message = "`project:` and `agents:` are two ways to poll: keep one";
                let help = "a project's notifications say their types; agents' are of one type";
                let span = place.key("agents").at_key();
                Err(self.advise(Code::MisplacedKey, span, message, help))
            }
            (None, None) if place.is_cut() => Err(Skipped),
            (None, None) => {
                let message = "`poll:` needs `project:` or `agents:`";
                let help = "`agents: all` polls every agent of the key's project";
                Err(self.advise(Code::MissingKey, place.at_key(), message, help))
            }
        }
    }

    /// Reports what means nothing where a project is polled.
    fn only_of_agents(&mut self, place: Place) -> Result<(), Skipped> {
        let mut outcome = Ok(());
        for (name, help) in [
            ("users", "a project's notifications are those of all its users: leave it out"),
            ("type", "a project's notifications say their types: leave it out"),
        ] {
            let value = place.key(name);
            if value.is_given() {
                let message = format!("`{name}:` goes with `agents:`, not with `project:`");
                outcome = Err(self.advise(Code::MisplacedKey, value.at_key(), message, help));
            }
        }
        outcome
    }

    fn agents(&mut self, given: &OneOrMany, place: Place) -> Result<Agents, Skipped> {
        match given {
            OneOrMany::One(all) if all == ALL_AGENTS => Ok(Agents::All),
            named => self.ids("agents", named, place).map(Agents::Named),
        }
    }

    fn every(&mut self, text: &str, place: Place) -> Result<Duration, Skipped> {
        let every = self.duration(text, place)?;
        let [least, most] = EVERY;
        if (least..=most).contains(&every) {
            return Ok(every);
        }
        let message = "`every:` is from `1s` to `1h`";
        Err(self.report(Code::InvalidValue, place.span(), message))
    }

    fn repair(&mut self, text: &str, place: Place) -> Result<Duration, Skipped> {
        let repair = self.duration(text, place)?;
        let wrong = if repair > MAX_REPAIR {
            ("`repair:` is at most `7d`", "`waypost sonzai repair --since` goes back further")
        } else if repair.is_zero() {
            ("`repair:` of no time repairs nothing", "leave it out")
        } else {
            return Ok(repair);
        };
        let (message, help) = wrong;
        Err(self.advise(Code::InvalidValue, place.span(), message, help))
    }

    /// It may stand in a URL.
    fn event_type(&mut self, name: &str, text: &str, place: Place) -> Result<String, Skipped> {
        if is_type(text) {
            return Ok(text.to_owned());
        }
        let message = match text {
            "" => format!("an event type in `{name}:` is empty"),
            text => format!("`{text}` cannot be an event type here"),
        };
        let help = "it has 1 to 255 letters, digits, `.`, `_`, `-` and `:`";
        Err(self.advise(Code::InvalidValue, place.span(), message, help))
    }

    fn ids(&mut self, name: &str, given: &OneOrMany, place: Place) -> Result<Vec<String>, Skipped> {
        let texts = given.as_slice();
        if texts.is_empty() && !place.is_cut() {
            let message = format!("the list `{name}:` is empty: nothing would be polled");
            let help = match name {
                "agents" => "`agents: all` polls every agent of the key's project",
                _ => "leave it out to poll for all",
            };
            return Err(self.advise(Code::InvalidValue, place.span(), message, help));
        }
        let each = texts.iter().enumerate();
        let ids: Vec<Result<String, Skipped>> =
            each.map(|(index, text)| self.id(name, text, place.item(index))).collect();
        let ids = ids.into_iter().collect::<Result<Vec<String>, Skipped>>()?;
        // What is not looked at may differ.
        if !texts.iter().any(|text| self.is_unseen(text)) {
            self.each_once(name, &ids, place)?;
        }
        Ok(ids)
    }

    fn id(&mut self, name: &str, text: &str, place: Place) -> Result<String, Skipped> {
        let id = self.filled(name, place, text)?;
        let id = id.expose_secret();
        let fits = id.len() <= MAX_ID_BYTES
            && !id.contains(char::is_control)
            && id.trim() == id
            && !matches!(id, "." | "..");
        if fits {
            return Ok(id.to_owned());
        }
        let message = format!("`{name}:` holds what is no id");
        let help = format!(
            "it stands in a URL: at most {MAX_ID_BYTES} bytes, no control characters, no space \
             around it"
        );
        Err(self.advise(Code::InvalidValue, place.span(), message, help))
    }

    /// Reports what a list says again.
    fn each_once(&mut self, name: &str, values: &[String], place: Place) -> Result<(), Skipped> {
        let mut before = BTreeSet::new();
        let mut outcome = Ok(());
        for (index, value) in values.iter().enumerate() {
            if !before.insert(value) {
                let message = format!("this stands in `{name}:` twice");
                outcome = Err(self.report(Code::DuplicateName, place.item(index).span(), message));
            }
        }
        outcome
    }

    /// A URL that others are made of. What depends on something that is not looked at is taken to be
    /// one.
    fn web_url(&mut self, name: &str, text: &str, place: Place) -> Result<WebUrl, Skipped> {
        let url = self.filled(name, place, text)?;
        let url = url.expose_secret();
        if self.is_unseen(text) {
            return Ok(WebUrl { text: url.to_owned(), is_private: true });
        }
        WebUrl::parse(url).map_err(|why| self.report(Code::InvalidValue, place.span(), why))
    }
}
