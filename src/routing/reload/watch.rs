//! Notices that files may have changed: an editor's save in place, a rename over them, Kubernetes'
//! swap of the `..data` symlink that they are reached through.
//!
//! The directories are watched, not the files, which come and go: those of each file as it is named,
//! and of every symlink on the way to it. What is noticed is looked at once it is quiet and nobody
//! writes any of the files: half of one often is a valid one. Network file systems tell nothing, and a
//! system may have no watches left: so there is a look now and then anyway.

use std::{
    collections::{BTreeSet, VecDeque},
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// How often to look without having noticed anything.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The first look of a watch, at what changed before it saw anything.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// How long it must be quiet after something was put in place.
const QUIET: Duration = Duration::from_millis(50);

/// Where it is never quiet there is a look after this.
const AT_MOST: Duration = Duration::from_secs(5);

/// How long a writer may leave a file open before it is looked at anyway.
const UNCLOSED_AT_MOST: Duration = Duration::from_secs(60);

/// Symlinks on the way to a file; as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Files whose writer has not closed them.
type Unclosed = BTreeSet<PathBuf>;

/// See the module.
pub struct Watch {
    watched: Arc<Mutex<Watched>>,
    tell: watch::Sender<Unclosed>,
    stirs: watch::Receiver<Unclosed>,
    /// Since when it has not been quiet, and until when it must be.
    unrest: Option<(Instant, Instant)>,
    look_at: Instant,
}

/// What the system is asked to tell of. To ask may take as long as the file systems do.
struct Watched {
    /// `None` where the system has none.
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    /// What to notice in them.
    names: Arc<ArcSwap<BTreeSet<PathBuf>>>,
    is_warned: bool,
}

impl Watch {
    /// Watches a file from now on; [`follow`](Self::follow) tells what else. Blocks shortly.
    pub fn new(file: &Path) -> Watch {
        let (tell, stirs) = watch::channel(Unclosed::new());
        let mut watched = Watched::new(tell.clone());
        watched.follow(&BTreeSet::from([file.to_owned()]));
        let watched = Arc::new(Mutex::new(watched));
        Watch { watched, tell, stirs, unrest: None, look_at: Instant::now() + FIRST_LOOK }
    }

    /// What has these files watched from now on, instead of others. It blocks; where another still does
    /// it does nothing, and is to be done again later.
    pub fn follow(&self, files: BTreeSet<PathBuf>) -> impl FnOnce() + Send + 'static {
        let watched = self.watched.clone();
        move || {
            if let Ok(mut watched) = watched.try_lock() {
                watched.follow(&files);
            }
        }
    }

    /// Whether somebody writes any of the files just now.
    pub fn sees_a_writer(&self) -> bool {
        !self.stirs.borrow().is_empty()
    }

    /// Returns when it is time to look. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let due = self.unrest.map_or(self.look_at, |(_, quiet_at)| quiet_at);
            tokio::select! {
                // Both ends are here, so it never fails.
                Ok(()) = self.stirs.changed() => self.stirred(Instant::now()),
                () = sleep_until(due) => {
                    (self.unrest, self.look_at) = (None, Instant::now() + LOOK_EVERY);
                    // Whoever still writes has had its time.
                    self.tell.send_if_modified(|unclosed| {
                        unclosed.clear();
                        false
                    });
                    return;
                }
            }
        }
    }

    fn stirred(&mut self, now: Instant) {
        let since = self.unrest.map_or(now, |(since, _)| since);
        let quiet_at = match self.stirs.borrow_and_update().is_empty() {
            true => (now + QUIET).min(since + AT_MOST),
            false => since + UNCLOSED_AT_MOST,
        };
        self.unrest = Some((since, quiet_at));
    }
}

impl Watched {
    /// Nothing yet.
    fn new(tell: watch::Sender<Unclosed>) -> Watched {
        let names = Arc::<ArcSwap<BTreeSet<PathBuf>>>::default();
        let noticed = names.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            tell.send_if_modified(|unclosed| note(event, &noticed.load(), unclosed));
        });
        let mut watched =
            Watched { watcher: None, directories: BTreeSet::new(), names, is_warned: false };
        match watcher {
            Ok(watcher) => watched.watcher = Some(watcher),
            Err(error) => watched.warn(&error),
        }
        watched
    }

    fn follow(&mut self, files: &BTreeSet<PathBuf>) {
        let ways: BTreeSet<PathBuf> = files.iter().flat_map(|file| way_to(file)).collect();
        let parents = ways.iter().filter_map(|name| name.parent());
        let directories: BTreeSet<PathBuf> = parents.map(Path::to_owned).collect();
        self.names.store(Arc::new(ways));
        let before = std::mem::replace(&mut self.directories, directories);
        let Some(watcher) = &mut self.watcher else { return };
        for gone in before.difference(&self.directories) {
            // One that was removed is watched no more already.
            let _unwatched = watcher.unwatch(gone);
        }
        // Also those from before: one that was removed and made again is another. One that cannot be
        // watched keeps none of the others from it.
        let watch =
            |directory: &PathBuf| watcher.watch(directory, RecursiveMode::NonRecursive).err();
        let errors: Vec<notify::Error> = self.directories.iter().filter_map(watch).collect();
        errors.iter().for_each(|error| self.warn(error));
    }

    /// Once: nothing depends on it but how soon a change is noticed.
    fn warn(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.is_warned, true) {
            let every = humantime::format_duration(LOOK_EVERY);
            tracing::warn!(%error, "cannot watch all files for changes; looking every {every}");
        }
    }
}

/// Takes in what an event says of the files that are to be noticed; whether it says anything.
fn note(event: notify::Result<Event>, names: &BTreeSet<PathBuf>, unclosed: &mut Unclosed) -> bool {
    // Events may have been lost, and a writer's close among them.
    let Some(event) = event.ok().filter(|event| !event.need_rescan()) else { return true };
    let ours: Vec<PathBuf> = event.paths.into_iter().filter(|path| names.contains(path)).collect();
    let stirs = !ours.is_empty();
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Remove(_) => unclosed.retain(|path| !ours.contains(path)),
        EventKind::Access(_) => return false,
        EventKind::Create(_) => unclosed.extend(ours.into_iter().filter(|path| is_new(path))),
        EventKind::Modify(ModifyKind::Data(_)) => unclosed.extend(ours),
        _ => {}
    }
    stirs
}

/// Whether a file that was just made has its content still to come: a link is made whole.
fn is_new(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.nlink() == 1)
}

/// Every path whose replacement changes what a file's path leads to: the symlinks on the way, and
/// what they lead to in the end.
fn way_to(file: &Path) -> Vec<PathBuf> {
    walk(file).unwrap_or_else(|_| vec![file.to_owned()])
}

fn walk(file: &Path) -> io::Result<Vec<PathBuf>> {
    let mut way = Vec::new();
    let mut at = PathBuf::from("/");
    let mut rest = parts(&std::path::absolute(file)?);
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        match fs::read_link(&next) {
            Ok(target) if way.len() < MAX_LINKS => {
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                let mut through = parts(&target);
                through.append(&mut rest);
                rest = through;
                way.push(next);
            }
            _ if rest.is_empty() => way.push(next),
            _ => at = next,
        }
    }
    Ok(way)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_way_to_a_file_leads_over_every_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let paths =
            |names: &[&str]| -> Vec<PathBuf> { names.iter().map(|name| dir.join(name)).collect() };
        fs::create_dir(dir.join("..one")).unwrap();
        fs::write(dir.join("..one/routes.yaml"), "").unwrap();
        symlink("..one", dir.join("..data")).unwrap();
        symlink("..data/routes.yaml", dir.join("routes.yaml")).unwrap();
        let way = way_to(&dir.join("routes.yaml"));
        assert_eq!(way, paths(&["routes.yaml", "..data", "..one/routes.yaml"]));
        assert_eq!(way_to(&dir.join("..one/routes.yaml")), paths(&["..one/routes.yaml"]));
        // What is not there yet, and what leads in a circle.
        assert_eq!(way_to(&dir.join("none.yaml")), paths(&["none.yaml"]));
        symlink("circle", dir.join("circle")).unwrap();
        assert_eq!(way_to(&dir.join("circle")).len(), MAX_LINKS + 1);
    }

    /// An event of one path, and what is unclosed after it; `None` if it says nothing.
    fn noted(kind: EventKind, path: &Path, unclosed: &[&Path]) -> Option<Vec<PathBuf>> {
        let names = BTreeSet::from([PathBuf::from("/d/routes.yaml"), path.with_file_name("made")]);
        let mut unclosed = unclosed.iter().map(|path| path.to_path_buf()).collect();
        let stirs = note(Ok(Event::new(kind).add_path(path.to_owned())), &names, &mut unclosed);
        stirs.then(|| unclosed.into_iter().collect())
    }

    const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const CREATE: EventKind = EventKind::Create(notify::event::CreateKind::File);

    #[test]
    fn only_what_is_named_is_noticed_and_reading_is_not() {
        let (ours, other) = (Path::new("/d/routes.yaml"), Path::new("/d/other"));
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        assert_eq!(noted(CLOSE, ours, &[]), Some(vec![]));
        assert_eq!(noted(CLOSE, other, &[]), None);
        assert_eq!(noted(open, ours, &[]), None);
    }

    #[test]
    fn a_file_is_being_written_until_it_is_closed_or_another_takes_its_place() {
        let ours = Path::new("/d/routes.yaml");
        let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        let renamed = EventKind::Modify(ModifyKind::Name(notify::event::RenameMode::To));
        let touched = EventKind::Modify(ModifyKind::Metadata(notify::event::MetadataKind::Any));
        let removed = EventKind::Remove(notify::event::RemoveKind::File);
        assert_eq!(noted(written, ours, &[]), Some(vec![ours.to_owned()]));
        assert_eq!(noted(touched, ours, &[ours]), Some(vec![ours.to_owned()]));
        for end in [CLOSE, renamed, removed] {
            assert_eq!(noted(end, ours, &[ours]), Some(vec![]), "{end:?}");
        }
        let other = Path::new("/d/secret");
        assert_eq!(noted(CLOSE, ours, &[ours, other]), Some(vec![other.to_owned()]));
        let mut unclosed = BTreeSet::from([ours.to_owned()]);
        assert!(note(Err(notify::Error::generic("lost")), &BTreeSet::new(), &mut unclosed));
        assert_eq!(unclosed.len(), 1);
    }

    #[test]
    fn a_new_file_is_being_written_and_a_link_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        assert_eq!(noted(CREATE, &made, &[]), Some(vec![]), "it is gone already");
        fs::write(&made, "").unwrap();
        assert_eq!(noted(CREATE, &made, &[]), Some(vec![made.clone()]));
        fs::hard_link(&made, dir.path().join("other")).unwrap();
        assert_eq!(noted(CREATE, &made, &[]), Some(vec![]));
        fs::remove_file(&made).unwrap();
        symlink("other", &made).unwrap();
        assert_eq!(noted(CREATE, &made, &[]), Some(vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_never_closes_has_its_time_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&dir.path().join("routes.yaml"));
        let began = Instant::now();
        watch.tell.send_modify(|unclosed| {
            unclosed.insert("x".into());
        });
        assert!(watch.sees_a_writer());
        watch.changed().await;
        assert!(began.elapsed() >= UNCLOSED_AT_MOST);
        assert!(!watch.sees_a_writer());
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_keeps_no_other_from_being_watched() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        fs::create_dir(&there).unwrap();
        let watch = Watch::new(&there.join("routes.yaml"));
        let files = ["a/secret", "there/routes.yaml", "there/../b/secret"];
        watch.follow(files.iter().map(|file| dir.path().join(file)).collect())();
        let secret = dir.path().join("b");
        fs::create_dir(&secret).unwrap();
        watch.follow(files.iter().map(|file| dir.path().join(file)).collect())();
        let mut stirs = watch.stirs.clone();
        fs::write(secret.join("secret"), "").unwrap();
        tokio::time::timeout(Duration::from_secs(60), stirs.changed()).await.unwrap().unwrap();
    }
}
