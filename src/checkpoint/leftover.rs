//! Temporary files that killed runs left behind.

use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// What the names of all temporary files begin with.
const PREFIX: &str = ".vedm-";

/// What the names of what was moved aside go on with.
const MOVED: &str = "replaced";

/// What follows on the process in the names of directories under construction.
const UNFINISHED: &str = "unfinished";

/// A file whose process can't be asked for was forgotten if nobody wrote to it for so long.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// Folders that were looked through by this process.
static SWEPT: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// The beginning of the names of this process's temporary files: where its number counts, and the number.
pub(super) fn prefix() -> String {
    let realm = realm().unwrap_or_else(|| "x".to_string());
    format!("{PREFIX}{realm}-{}-", std::process::id())
}

/// A new directory in `folder` to be filled and renamed; dropped before, it is removed.
pub fn unfinished(folder: &Path) -> std::io::Result<tempfile::TempDir> {
    let prefix = format!("{}{UNFINISHED}-", prefix());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(folder)
}

/// Where to move a directory that another one replaces: half of it never has its name.
pub fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{PREFIX}{MOVED}-{}-{name}", std::process::id()))
}

/// Removes what killed runs left in `folder`; looks into each folder once.
pub fn sweep(folder: &Path) {
    // A poisoned lock means that another thread panicked; there is nothing here to be spoilt.
    let mut swept = SWEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !swept.get_or_insert_default().insert(folder.to_path_buf()) {
        return;
    }
    drop(swept);
    let Ok(entries) = fs::read_dir(folder) else { return };
    let realm = realm();
    let left = entries.flatten().filter(|entry| is_left(entry, realm.as_deref()));
    for entry in left {
        let path = entry.path();
        // Another run may have been faster.
        drop(if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) });
    }
}

/// A temporary file, or directory under construction, whose process is gone.
fn is_left(entry: &DirEntry, realm: Option<&str>) -> bool {
    let name = entry.file_name();
    let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { return false };
    let Ok(metadata) = entry.metadata() else { return false };
    let mut parts = rest.split('-');
    let [found, process, what] = std::array::from_fn(|_| parts.next());
    // No other directory is taken away: one that was moved aside is somebody's.
    let unfinished = what == Some(UNFINISHED) && found != Some(MOVED);
    if !(metadata.is_file() || metadata.is_dir() && unfinished) {
        return false;
    }
    if let (Some(found), Some(process)) = (found, process)
        && Some(found) == realm
        && let Ok(process) = process.parse::<u32>()
    {
        return !Path::new(&format!("/proc/{process}")).exists();
    }
    let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > FORGOTTEN)
}

/// Where the numbers of processes count: this start of this machine, and in it this container. None where
/// the system does not tell (it is not Linux).
fn realm() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let digits = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let (boot, namespace) = (digits(&boot), digits(namespace.to_str()?));
    Some(format!("{}{}", boot.get(..12)?, namespace.strip_prefix("pid")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_what_is_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, days: u64| {
            let file = File::create(folder.path().join(name)).unwrap();
            let age = Duration::from_secs(days * 24 * 60 * 60 + 60);
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        let own = format!("{}abc", prefix());
        file(&own, 5);
        // From elsewhere, where nobody can be asked.
        file(".vedm-elsewhere-1-abc", 0);
        file(".vedm-elsewhere-1-abd", 1);
        file(".vedm-abcdef", 1);
        file("a.txt", 5);
        let moved = folder.path().join(".vedm-replaced-1-unfinished-out");
        fs::create_dir(&moved).unwrap();
        let age = Duration::from_secs(5 * 24 * 60 * 60);
        File::open(&moved).unwrap().set_modified(SystemTime::now() - age).unwrap();
        let open = unfinished(folder.path()).unwrap();
        let open_name = open.path().file_name().unwrap().to_str().unwrap();
        let mut kept = vec![".vedm-elsewhere-1-abc", ".vedm-replaced-1-unfinished-out", "a.txt"];
        kept.extend([own.as_str(), open_name]);
        if let Some(realm) = realm() {
            let mut ended = std::process::Command::new("true").spawn().unwrap();
            ended.wait().unwrap();
            file(&format!(".vedm-{realm}-{}-abc", ended.id()), 0);
            let killed = folder.path().join(format!(".vedm-{realm}-{}-unfinished-abc", ended.id()));
            fs::create_dir(&killed).unwrap();
            fs::write(killed.join("model.safetensors"), "half").unwrap();
            file(&format!(".vedm-{realm}-1-abc"), 5);
            // The first process is always there.
            kept.push(Box::leak(format!(".vedm-{realm}-1-abc").into_boxed_str()));
        }
        kept.sort_unstable();
        sweep(folder.path());
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, kept);
        // Once is enough.
        file(".vedm-abcdef", 2);
        sweep(folder.path());
        assert!(folder.path().join(".vedm-abcdef").exists());
    }
}
