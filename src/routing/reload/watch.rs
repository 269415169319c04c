//! Notices that files may have changed: an editor's save in place, a rename over them, Kubernetes'
//! swap of the `..data` symlink that they are reached through.
//!
//! The directories are watched, not the files, which come and go: those of each file as it is named,
//! and of every symlink on the way to it. What is noticed is looked at once it is quiet, which for a
//! file that is being written is its writer's close. Network file systems tell nothing, and a system
//! may have no watches left: so there is a look now and then anyway.

use std::{
    collections::{BTreeSet, VecDeque},
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
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

/// How long it must be quiet after something was put in place.
const QUIET: Duration = Duration::from_millis(50);

/// How long after something was written, whose writer has not closed it.
const WRITING: Duration = Duration::from_secs(1);

/// A writer that never rests is looked at after this.
const AT_MOST: Duration = Duration::from_secs(5);

/// Symlinks on the way to a file; as many as Linux follows.
const MAX_LINKS: usize = 40;

/// What was noticed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stir {
    /// A file's content is coming.
    Writing,
    /// Something is in place.
    Done,
}

/// See the module.
pub struct Watch {
    /// `None` where the system has none.
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    /// What to notice in them.
    names: Arc<ArcSwap<BTreeSet<PathBuf>>>,
    stirs: watch::Receiver<Stir>,
    /// Since when it has not been quiet, and until when it must be.
    unrest: Option<(Instant, Instant)>,
    look_at: Instant,
    is_warned: bool,
}

impl Watch {
    /// Watches a file from now on; [`follow`](Self::follow) tells what else.
    pub fn new(file: &Path) -> Watch {
        let names = Arc::<ArcSwap<BTreeSet<PathBuf>>>::default();
        let (tell, stirs) = watch::channel(Stir::Done);
        let noticed = names.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(stir) = stir(event, &noticed.load()) {
                tell.send_replace(stir);
            }
        });
        let mut watch = Watch {
            watcher: None,
            directories: BTreeSet::new(),
            names,
            stirs,
            unrest: None,
            look_at: Instant::now() + WRITING,
            is_warned: false,
        };
        match watcher {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.warn(&error),
        }
        watch.follow([file]);
        watch
    }

    /// Watches these files from now on, instead of others. Blocks shortly.
    pub fn follow<'f>(&mut self, files: impl IntoIterator<Item = &'f Path>) {
        let ways: BTreeSet<PathBuf> = files.into_iter().flat_map(way_to).collect();
        let parents = ways.iter().filter_map(|name| name.parent());
        let directories: BTreeSet<PathBuf> = parents.map(Path::to_owned).collect();
        self.names.store(Arc::new(ways));
        let before = std::mem::replace(&mut self.directories, directories);
        let Some(watcher) = &mut self.watcher else { return };
        for gone in before.difference(&self.directories) {
            // One that was removed is watched no more already.
            let _unwatched = watcher.unwatch(gone);
        }
        // Also those from before: one that was removed and made again is another.
        let watched: Result<(), notify::Error> = self
            .directories
            .iter()
            .try_for_each(|directory| watcher.watch(directory, RecursiveMode::NonRecursive));
        if let Err(error) = watched {
            self.warn(&error);
        }
    }

    /// Returns when it is time to look. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let due = self.unrest.map_or(self.look_at, |(_, quiet_at)| quiet_at);
            tokio::select! {
                // The sender ends with the watcher; then the looks are all there is.
                Ok(()) = self.stirs.changed() => self.stirred(),
                () = sleep_until(due) => {
                    (self.unrest, self.look_at) = (None, Instant::now() + LOOK_EVERY);
                    return;
                }
            }
        }
    }

    fn stirred(&mut self) {
        let now = Instant::now();
        let since = self.unrest.map_or(now, |(since, _)| since);
        let quiet = match *self.stirs.borrow_and_update() {
            Stir::Writing => WRITING,
            Stir::Done => QUIET,
        };
        self.unrest = Some((since, (now + quiet).min(since + AT_MOST)));
    }

    /// Once: nothing depends on it but how soon a change is noticed.
    fn warn(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.is_warned, true) {
            let every = humantime::format_duration(LOOK_EVERY);
            tracing::warn!(%error, "cannot watch all files for changes; looking every {every}");
        }
    }
}

/// What an event says of the files that are to be noticed.
fn stir(event: notify::Result<Event>, names: &BTreeSet<PathBuf>) -> Option<Stir> {
    // Events may have been lost.
    let Ok(event) = event else { return Some(Stir::Done) };
    let is_ours = event.need_rescan() || event.paths.iter().any(|path| names.contains(path));
    if !is_ours {
        return None;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Stir::Done),
        EventKind::Access(_) => None,
        // Its content follows, unless it is a link.
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => Some(Stir::Writing),
        _ => Some(Stir::Done),
    }
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

    #[test]
    fn only_what_is_named_is_noticed_and_reading_is_not() {
        let names = BTreeSet::from([PathBuf::from("/d/routes.yaml")]);
        let of = |kind, path: &str| stir(Ok(Event::new(kind).add_path(path.into())), &names);
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        assert_eq!(of(close, "/d/routes.yaml"), Some(Stir::Done));
        assert_eq!(of(close, "/d/other"), None);
        assert_eq!(of(open, "/d/routes.yaml"), None);
        let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        assert_eq!(of(written, "/d/routes.yaml"), Some(Stir::Writing));
        let renamed = EventKind::Modify(ModifyKind::Name(notify::event::RenameMode::To));
        assert_eq!(of(renamed, "/d/routes.yaml"), Some(Stir::Done));
    }
}
