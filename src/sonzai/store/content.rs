//! What is kept of a source's webhooks, and the steps by which that changes. How it stands in its file
//! is in `format`.

use std::collections::HashMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{
    signature,
    source::sonzai::{
        keyring::{Held, OfType, Registered, Stored},
        settings::Scope,
    },
};

mod format;

pub use format::Error;

/// Most secrets of one webhook that are kept after they were replaced: who makes more than that within
/// the overlap loses the oldest.
pub const MAX_REPLACED: usize = 8;

/// All that is kept of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    pub webhooks: Vec<Kept>,
    pub changes: Vec<Change>,
}

/// A webhook's name: there is one of a project and event type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The project's id; `None` for the key's own as long as nobody has said which that is.
    pub project: Option<String>,
    /// Which of the API's two path families it was reached by.
    pub scope: Family,
    #[serde(rename = "type")]
    pub event_type: String,
}

/// See [`Name::scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Tenant,
    Project,
}

/// What is known of a webhook.
#[derive(Clone, Debug)]
pub struct Kept {
    pub name: Name,
    /// Where it leads.
    pub url: String,
    /// What stands for the `Authorization` header that was registered with it
    /// ([`digest`](crate::source::sonzai::keyring::digest)): the API may show it masked. `None` where
    /// somebody else registered it.
    pub authorization: Option<String>,
    /// Those that were registered before; the newest first.
    pub replaced_authorizations: Vec<ReplacedAuthorization>,
    /// What signs now; `None` once it was deleted.
    pub secret: Option<SecretString>,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// The newest first.
    pub replaced: Vec<Replaced>,
}

/// A secret that signs no more.
#[derive(Clone, Debug)]
pub struct Replaced {
    pub secret: SecretString,
    /// Until when it is valid, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// What stands for an `Authorization` header that is registered no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedAuthorization {
    pub sha256: String,
    /// Until when deliveries may come with it, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// A call that changes a secret and whose answer is not kept yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    #[serde(flatten)]
    pub name: Name,
    pub what: What,
    /// Where the webhook leads, or will.
    pub url: String,
    /// What stands for the `Authorization` header that it is registered with, if it is.
    #[serde(default, rename = "authorization_sha256")]
    pub authorization: Option<String>,
    pub since_ms: u64,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Register,
    Rotate,
}

impl Name {
    /// Whether it is of this scope, where `own` is the project of the key, if that is known.
    pub fn is_of(&self, scope: &Scope, own: Option<&str>) -> bool {
        let asked = match scope {
            Scope::Tenant => own,
            Scope::Project(id) => Some(&**id),
        };
        match (&self.project, asked) {
            (Some(project), Some(asked)) => project == asked,
            // Both are the key's own, whichever that is.
            (None, Some(asked)) => own == Some(asked),
            (None, None) => true,
            (Some(_), None) => self.scope == Family::Tenant,
        }
    }

    /// The webhook of a type that is reached by this scope.
    pub fn new(scope: &Scope, own: Option<&str>, event_type: &str) -> Name {
        let (family, project) = match scope {
            Scope::Tenant => (Family::Tenant, own),
            Scope::Project(id) => (Family::Project, Some(&**id)),
        };
        let (project, event_type) = (project.map(str::to_owned), event_type.to_owned());
        Name { project, scope: family, event_type }
    }

    /// Whether both name the same webhook, by whichever path family.
    pub fn is_same_as(&self, other: &Name) -> bool {
        self.project == other.project && self.event_type == other.event_type
    }

    /// The scope to reach it by.
    pub fn scope(&self) -> Scope {
        match (self.scope, &self.project) {
            (Family::Project, Some(project)) => Scope::Project(project.clone()),
            _ => Scope::Tenant,
        }
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        let text = |secret: &SecretString| secret.expose_secret().to_owned();
        (&self.name, &self.url, self.since_ms, &self.replaced)
            == (&other.name, &other.url, other.since_ms, &other.replaced)
            && (&self.authorization, &self.replaced_authorizations)
                == (&other.authorization, &other.replaced_authorizations)
            && self.secret.as_ref().map(text) == other.secret.as_ref().map(text)
    }
}

impl PartialEq for Replaced {
    fn eq(&self, other: &Replaced) -> bool {
        self.until_ms == other.until_ms && crate::secret::same(&self.secret, &other.secret)
    }
}

impl Kept {
    /// Has another secret sign from now on, or none; the one before stays valid until then.
    pub fn replace(&mut self, secret: Option<SecretString>, now_ms: u64, until_ms: u64) {
        if let Some(before) = std::mem::replace(&mut self.secret, secret) {
            self.replaced.insert(0, Replaced { secret: before, until_ms });
        }
        self.since_ms = now_ms;
        self.replaced.retain(|replaced| now_ms < replaced.until_ms);
        self.replaced.truncate(MAX_REPLACED);
    }

    /// It is registered with another header from now on, or nobody knows with which; deliveries may
    /// come with the one before until then.
    fn register_with(&mut self, authorization: Option<String>, times: Times) {
        let before = std::mem::replace(&mut self.authorization, authorization);
        let replaced = &mut self.replaced_authorizations;
        if let Some(sha256) = before.filter(|before| self.authorization.as_ref() != Some(before)) {
            replaced.insert(0, ReplacedAuthorization { sha256, until_ms: times.until_ms });
        }
        replaced.retain(|replaced| times.now_ms < replaced.until_ms);
        replaced.truncate(MAX_REPLACED);
    }

    /// Whether there is anything left to keep.
    pub fn is_of_use(&self, now_ms: u64) -> bool {
        let is_valid = |until_ms: u64| now_ms < until_ms;
        self.secret.is_some()
            || self.authorization.is_some()
            || self.replaced.iter().any(|each| is_valid(each.until_ms))
            || self.replaced_authorizations.iter().any(|each| is_valid(each.until_ms))
    }

    /// Takes in what is kept of the same webhook under another name.
    fn join(&mut self, other: Kept) {
        let (newer, older) = if other.since_ms > self.since_ms {
            (other, self.clone())
        } else {
            (self.clone(), other)
        };
        *self = newer;
        self.replaced.extend(older.replaced);
        self.replaced_authorizations.extend(older.replaced_authorizations);
        if self.secret.is_none() {
            self.secret = older.secret;
        }
        if self.authorization.is_none() {
            self.authorization = older.authorization;
        }
    }
}

/// When a secret takes the place of another, and until when that one is valid all the same, both in
/// milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub now_ms: u64,
    pub until_ms: u64,
}

/// What changes what is kept. Each is one step between two states of the file.
impl Content {
    /// What is kept of a webhook of this scope, where `own` is the project of the key, if known.
    pub fn of(&self, scope: &Scope, own: Option<&str>, event_type: &str) -> Option<&Kept> {
        let is_it = |name: &Name| name.event_type == event_type && name.is_of(scope, own);
        self.webhooks.iter().find(|kept| is_it(&kept.name))
    }

    /// The change that is under way there.
    pub fn change_of(&self, name: &Name) -> Option<&Change> {
        self.changes.iter().find(|change| change.name.is_same_as(name))
    }

    /// A call is about to be sent.
    pub fn begin(&mut self, change: Change) {
        match self.changes.iter_mut().find(|known| known.name.is_same_as(&change.name)) {
            // What began first has not come to its end either.
            Some(known) => {
                (known.what, known.url) = (change.what, change.url);
                known.authorization = change.authorization.or(known.authorization.take());
            }
            None => self.changes.push(change),
        }
    }

    /// It had no effect, or none that matters any more.
    pub fn abandon(&mut self, name: &Name) {
        self.changes.retain(|change| !change.name.is_same_as(name));
    }

    /// Its secret has come. `authorization` stands for the header that it was just registered with; if
    /// it was not, what was written down before counts.
    pub fn finish(
        &mut self,
        change: &Change,
        secret: SecretString,
        authorization: Option<String>,
        times: Times,
    ) {
        let begun = self.change_of(&change.name).and_then(|begun| begun.authorization.clone());
        self.abandon(&change.name);
        let kept = self.entry(&change.name, &change.url);
        if let Some(registered) = authorization.or(begun) {
            kept.register_with(Some(registered), times);
        }
        kept.replace(Some(secret), times.now_ms, times.until_ms);
        self.webhooks.retain(|kept| kept.is_of_use(times.now_ms));
    }

    /// A webhook leads there now, with this header, and its secret is the same.
    pub fn updated(&mut self, name: &Name, url: &str, authorization: String, times: Times) {
        self.entry(name, url).register_with(Some(authorization), times);
        self.webhooks.retain(|kept| kept.is_of_use(times.now_ms));
    }

    /// A webhook is no more. Deliveries of it may be under way.
    pub fn deleted(&mut self, name: &Name, times: Times) {
        self.abandon(name);
        for kept in self.webhooks.iter_mut().filter(|kept| kept.name.is_same_as(name)) {
            kept.register_with(None, times);
            kept.replace(None, times.now_ms, times.until_ms);
        }
        self.webhooks.retain(|kept| kept.is_of_use(times.now_ms));
    }

    /// The keys by event type, what signs now first.
    pub(super) fn keys(&self) -> HashMap<String, OfType> {
        let mut held: HashMap<String, OfType> = HashMap::new();
        for kept in &self.webhooks {
            let OfType { keys, authorizations, .. } =
                held.entry(kept.name.event_type.clone()).or_default();
            keys.extend(kept.secret.as_ref().and_then(|secret| stored(secret, None)));
            let replaced = kept.replaced.iter();
            keys.extend(replaced.filter_map(|each| stored(&each.secret, Some(each.until_ms))));
            let registered =
                |sha256: &String, until_ms| Registered { sha256: sha256.clone(), until_ms };
            authorizations.extend(kept.authorization.iter().map(|sha256| registered(sha256, None)));
            let replaced = kept.replaced_authorizations.iter();
            authorizations.extend(replaced.map(|it| registered(&it.sha256, Some(it.until_ms))));
        }
        for of in held.values_mut() {
            of.keys.sort_by_key(|stored| stored.until_ms.is_some());
        }
        held
    }

    /// The keys, for who looks from outside and knows of no call that is under way.
    pub fn held(&self) -> Held {
        Held::new(self.keys())
    }

    /// Every secret with its event type, replaced ones included.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.webhooks.iter().flat_map(|kept| {
            let replaced = kept.replaced.iter().map(|replaced| &replaced.secret);
            let all = kept.secret.iter().chain(replaced);
            all.map(|secret| (&*kept.name.event_type, secret))
        })
    }

    /// Whether something is kept of a project that is not known.
    pub fn wants_own_project(&self) -> bool {
        let names = self.webhooks.iter().map(|kept| &kept.name);
        names
            .chain(self.changes.iter().map(|change| &change.name))
            .any(|name| name.project.is_none())
    }

    /// The key's own project is this one.
    pub fn learn(&mut self, own: &str) {
        let learn = |name: &mut Name| {
            name.project.get_or_insert_with(|| own.to_owned());
        };
        let mut changes: Vec<Change> = Vec::new();
        for mut change in std::mem::take(&mut self.changes) {
            learn(&mut change.name);
            if !changes.iter().any(|known| known.name.is_same_as(&change.name)) {
                changes.push(change);
            }
        }
        self.changes = changes;
        let mut webhooks: Vec<Kept> = Vec::new();
        for mut kept in std::mem::take(&mut self.webhooks) {
            learn(&mut kept.name);
            match webhooks.iter_mut().find(|known| known.name.is_same_as(&kept.name)) {
                Some(known) => known.join(kept),
                None => webhooks.push(kept),
            }
        }
        self.webhooks = webhooks;
    }

    fn entry(&mut self, name: &Name, url: &str) -> &mut Kept {
        let at = self.webhooks.iter().position(|kept| kept.name.is_same_as(name));
        let at = at.unwrap_or_else(|| {
            self.webhooks.push(Kept {
                name: name.clone(),
                url: url.to_owned(),
                authorization: None,
                replaced_authorizations: Vec::new(),
                secret: None,
                since_ms: 0,
                replaced: Vec::new(),
            });
            self.webhooks.len() - 1
        });
        let kept = &mut self.webhooks[at];
        (kept.name, kept.url) = (name.clone(), url.to_owned());
        kept
    }
}

/// The key of a secret; an empty one is none.
fn stored(secret: &SecretString, until_ms: Option<u64>) -> Option<Stored> {
    let key = signature::sonzai::key(secret.expose_secret()).ok()?;
    Some(Stored { key, until_ms })
}

#[cfg(test)]
mod tests;
