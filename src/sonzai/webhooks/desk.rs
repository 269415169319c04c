//! Where the admin API asks: shows what is registered and what there is to do, and does it.

use std::sync::Arc;

use super::{
    apply,
    document::{Action, Answer, Asked, Attempt, Row},
    plan::{self, Known, Planned, Step, Wanted},
};
use crate::{
    nearest::listed,
    sonzai::{
        client::{self, Webhook},
        service::{Account, Service},
        store::Store,
        webhooks::change,
    },
    source::{Provider, sonzai::settings::Scope},
};

/// Attempts on a page, unless it is said; and the most.
pub const DEFAULT_ATTEMPTS: u32 = 50;
pub const MAX_ATTEMPTS: u32 = 500;

/// Of how many of these the newest is the last attempt: nobody publishes in which order they come.
const NEWEST_OF: u32 = 20;

/// Why nothing is shown or done, in words for people.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As things are.
    #[error("{0}")]
    Impossible(String),
    /// For now.
    #[error("{0}")]
    Busy(&'static str),
}

impl From<client::Error> for Refusal {
    fn from(error: client::Error) -> Refusal {
        Refusal::Impossible(error.to_string())
    }
}

/// Webhooks of an account, compared with what is wanted.
pub struct Compared {
    pub scope: Scope,
    /// The project of the key, if known.
    pub own: Option<String>,
    pub planned: Vec<Planned>,
}

impl Service {
    /// Answers what is asked about webhooks. Once something is being changed, that goes on to its end
    /// even if nobody waits for the answer.
    pub async fn webhooks(&self, asked: Asked) -> Result<Answer, Refusal> {
        let account = self.account(asked.source.as_deref())?;
        match asked.action {
            Action::List => self.list(&account, &asked).await,
            Action::Attempts => attempts(&account, &asked).await,
            Action::Sync | Action::Rotate | Action::Delete => {
                let place = self.place().ok_or(Refusal::Busy(
                    "too many changes wait for their turn, or the daemon is ending; ask again",
                ))?;
                let service = self.clone();
                let work = self.spawn(async move {
                    let _place = place;
                    let _turn = account.store.turn.lock().await;
                    // Another table may have come into force meanwhile.
                    let now = service.account(asked.source.as_deref())?;
                    if !Arc::ptr_eq(&now.store, &account.store) {
                        return Err(Refusal::Busy("the routing table has changed; ask again"));
                    }
                    if now.stop.is_cancelled() {
                        return Err(Refusal::Busy("the daemon is ending; ask the next one"));
                    }
                    service.change(&now, &asked).await
                });
                let ended = work.await.ok().flatten();
                ended.unwrap_or(Err(Refusal::Busy("the daemon is ending; see its log")))
            }
        }
    }

    /// The account of the source that is named, or the only one.
    pub fn account(&self, name: Option<&str>) -> Result<Arc<Account>, Refusal> {
        let accounts = self.accounts();
        let names: Vec<&str> = accounts.iter().map(|account| &*account.source).collect();
        let impossible = |words| Err(Refusal::Impossible(words));
        match (name, &accounts[..]) {
            (_, []) => impossible(
                "no source has `api:` in the routing table that is in force: give the API's key, \
                 like `api: { key: \"${SONZAI_API_KEY}\" }`"
                    .to_owned(),
            ),
            (None, [only]) => Ok(only.clone()),
            (None, _) => impossible(format!(
                "several sources have `api:`: name one of {} with --source",
                listed(&names)
            )),
            (Some(name), all) => match all.iter().find(|account| account.source == name) {
                Some(account) => Ok(account.clone()),
                None => impossible(format!(
                    "no source `{name}` has `api:` in the routing table; there is {}",
                    listed(&names)
                )),
            },
        }
    }

    async fn list(&self, account: &Account, asked: &Asked) -> Result<Answer, Refusal> {
        let compared = self.compare(account, asked).await?;
        let mut answer = answer(account, &compared);
        let registered = answer.webhooks.iter_mut().filter(|row| row.registered);
        for row in registered {
            let attempts =
                account.client.attempts(&compared.scope, &row.event_type, NEWEST_OF, None);
            match attempts.await {
                Ok(page) => {
                    let newest = page.attempts.iter().max_by_key(|attempt| attempt.created_ms);
                    row.last_attempt = newest.map(Attempt::from);
                }
                // What is registered is worth telling all the same.
                Err(error) => row.error = Some(format!("its deliveries are not known: {error}")),
            }
        }
        Ok(answer)
    }

    async fn change(&self, account: &Account, asked: &Asked) -> Result<Answer, Refusal> {
        if account.settings.register.is_none() {
            let source = &account.source;
            match (asked.action, &asked.event_type) {
                (Action::Sync, _) => {
                    return Err(Refusal::Impossible(format!(
                        "source `{source}` has no `register:`: say there which types to register, and \
                         for which public_url"
                    )));
                }
                // Another Waypost may have the same path at another host.
                (_, None) => {
                    return Err(Refusal::Impossible(format!(
                        "source `{source}` has no `register:`, so nobody knows at which host its own \
                         webhooks lead here: name the event type"
                    )));
                }
                (_, Some(_)) => {}
            }
        }
        let mut compared = self.compare(account, asked).await?;
        match asked.action {
            Action::Rotate => compared.choose(asked, |planned| {
                (planned.step, planned.rotates) = (Step::Keep, true);
            })?,
            Action::Delete => compared.choose(asked, |planned| {
                (planned.step, planned.rotates) = (Step::Delete, false);
            })?,
            _ => self.refuse_rivals(account, &compared).await?,
        }
        let mut answer = answer(account, &compared);
        if asked.apply {
            if let Some(trouble) = account.store.trouble() {
                return Err(Refusal::Impossible(trouble.to_string()));
            }
            apply::apply(account, &compared, &mut answer.webhooks).await;
            answer.applied = true;
            answer.project = project(&compared.scope, account.known_own_project());
        }
        Ok(answer)
    }

    /// Compares what is registered with what is wanted.
    async fn compare(&self, account: &Account, asked: &Asked) -> Result<Compared, Refusal> {
        let scope = match &asked.project {
            Some(project) => Scope::Project(project.clone()),
            None => account.scope(),
        };
        let webhooks = account.client.webhooks(&scope).await?;
        let own = own_project(account, &scope, &webhooks).await;
        // Only for who has the turn: whoever changes something goes by the name it had when he began.
        let learns = !matches!(asked.action, Action::List | Action::Attempts)
            && account.store.content().wants_own_project();
        if let Some(own) = own.clone().filter(|_| learns) {
            let learn = move |store: &Arc<Store>| store.change(|content| content.learn(&own));
            let learnt = change::with(&account.store, learn).await;
            let learnt = learnt.map_err(|error| Refusal::Impossible(error.to_string()))?;
            learnt.map_err(|error| Refusal::Impossible(error.to_string()))?;
        }
        let table = self.table().load();
        let source = table.sources().find(|(_, source)| source.name == account.source);
        let lists_key = |event_type: &str| match source.map(|(_, source)| &source.provider) {
            Some(Provider::Sonzai(sonzai)) => sonzai.lists_key(event_type),
            _ => false,
        };
        let content = account.store.content();
        let known =
            Known { content: &content, scope: &scope, own: own.as_deref(), lists_key: &lists_key };
        let planned = plan::plan(wanted(account), known, &webhooks, asked.rotate_unknown);
        Ok(Compared { scope, own, planned })
    }

    /// Two sources that register the same webhook would take it from each other for ever.
    async fn refuse_rivals(&self, account: &Account, compared: &Compared) -> Result<(), Refusal> {
        let ours = account.settings.register.as_ref().map(|it| &it.types[..]).unwrap_or_default();
        for rival in self.accounts().iter() {
            let Some(register) = &rival.settings.register else { continue };
            let shared = register.types.iter().find(|of| ours.contains(of));
            let Some(shared) = shared
                .filter(|_| rival.source != account.source && rival.api.url == account.api.url)
            else {
                continue;
            };
            if is_same_project(account, compared, rival, &register.scope).await {
                return Err(Refusal::Impossible(format!(
                    "sources `{}` and `{}` both register `{shared}` of the same project, and there \
                     is one webhook for it: take it out of one of them",
                    account.source, rival.source
                )));
            }
        }
        Ok(())
    }
}

/// Whether another source means webhooks of the same project. What cannot be told is taken not to be.
async fn is_same_project(
    account: &Account,
    compared: &Compared,
    rival: &Account,
    theirs: &Scope,
) -> bool {
    let same_key = crate::secret::same(&account.api.key, &rival.api.key);
    match (&compared.scope, theirs) {
        (Scope::Project(ours), Scope::Project(theirs)) => ours == theirs,
        (Scope::Tenant, Scope::Tenant) if same_key => true,
        (Scope::Tenant, Scope::Project(theirs)) => compared.own.as_ref() == Some(theirs),
        (ours, Scope::Tenant) => {
            let theirs = rival.own_project().await.ok().flatten();
            let ours = match ours {
                Scope::Project(ours) => Some(ours),
                Scope::Tenant => compared.own.as_ref(),
            };
            theirs.is_some() && theirs.as_ref() == ours
        }
    }
}

impl Compared {
    /// Leaves those that are meant, and says what is done with them.
    fn choose(&mut self, asked: &Asked, mark: fn(&mut Planned)) -> Result<(), Refusal> {
        let impossible = |words| Err(Refusal::Impossible(words));
        if let Some(event_type) = &asked.event_type {
            let found = self.planned.iter().find(|planned| planned.event_type == *event_type);
            match found.filter(|planned| planned.listed.is_some()) {
                None => {
                    return impossible(format!("no webhook is registered for `{event_type}`"));
                }
                Some(foreign) if !foreign.is_ours => {
                    return impossible(format!(
                        "the webhook for `{event_type}` leads to {}, which is none of this source's: \
                         it is left alone",
                        foreign.listed.as_ref().map(|listed| &*listed.url).unwrap_or_default()
                    ));
                }
                Some(_) => {}
            }
        }
        let is_meant = |planned: &Planned| match &asked.event_type {
            Some(event_type) => planned.event_type == *event_type,
            None => planned.is_ours && planned.listed.is_some(),
        };
        self.planned.retain(is_meant);
        self.planned.iter_mut().for_each(mark);
        Ok(())
    }
}

/// What the file wants of an account.
pub fn wanted(account: &Account) -> Wanted<'_> {
    Wanted {
        register: account.settings.register.as_ref(),
        path: &account.path,
        authorization: account.authorization.as_ref(),
    }
}

/// The project of the key, where it matters: what was kept by way of the tenant is to be found by way of
/// the project, too. What cannot be told is not known.
async fn own_project(account: &Account, scope: &Scope, listed: &[Webhook]) -> Option<String> {
    if *scope == Scope::Tenant {
        if let Some(own) = account.learn_own_project(listed) {
            return Some(own);
        }
    } else if !account.store.content().wants_own_project() {
        return account.known_own_project().map(str::to_owned);
    }
    account.own_project().await.unwrap_or_else(|error| {
        tracing::info!(%error, source = %account.source, "the project of the API's key is not known");
        None
    })
}

fn project(scope: &Scope, own: Option<&str>) -> Option<String> {
    match scope {
        Scope::Tenant => own.map(str::to_owned),
        Scope::Project(id) => Some(id.clone()),
    }
}

fn answer(account: &Account, compared: &Compared) -> Answer {
    Answer {
        source: account.source.to_string(),
        project: project(&compared.scope, compared.own.as_deref()),
        webhooks: compared.planned.iter().map(Row::of).collect(),
        ..Answer::default()
    }
}

async fn attempts(account: &Account, asked: &Asked) -> Result<Answer, Refusal> {
    let Some(event_type) = &asked.event_type else {
        let words = "say of which event type: attempts are listed by it";
        return Err(Refusal::Impossible(words.to_owned()));
    };
    let scope = asked.project.clone().map_or_else(|| account.scope(), Scope::Project);
    let limit = asked.limit.unwrap_or(DEFAULT_ATTEMPTS).clamp(1, MAX_ATTEMPTS);
    let cursor = asked.cursor.as_deref();
    let page = account.client.attempts(&scope, event_type, limit, cursor).await?;
    Ok(Answer {
        source: account.source.to_string(),
        project: project(&scope, account.known_own_project()),
        attempts: page.attempts.iter().map(Attempt::from).collect(),
        next_cursor: page.next_cursor,
        ..Answer::default()
    })
}
