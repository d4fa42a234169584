//! The names on the way to a file that can be swapped to make the path lead elsewhere.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Free of links.
    pub directory: PathBuf,
    /// In it.
    pub name: OsString,
}

/// As many links as the kernel follows (`MAXSYMLINKS`, linux/namei.h).
const LINKS_MAX: usize = 40;

/// Every link on the way to `path`, its last name, and the first name that is missing, if one is.
pub(super) fn trail(path: &Path) -> Vec<Step> {
    let mut steps = Vec::new();
    let Ok(path) = std::path::absolute(path) else { return steps };
    let mut left: VecDeque<OsString> = names(&path);
    let (mut directory, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = left.pop_front() {
        if name == ".." {
            directory.pop();
            continue;
        }
        let here = directory.join(&name);
        let kind = fs::symlink_metadata(&here).map(|metadata| metadata.file_type());
        let link = kind.as_ref().is_ok_and(fs::FileType::is_symlink);
        if link || left.is_empty() || kind.is_err() {
            steps.push(Step { directory: directory.clone(), name });
        }
        if !link {
            if kind.is_err() {
                break;
            }
            directory = here;
            continue;
        }
        links += 1;
        let Ok(target) = fs::read_link(&here) else { break };
        if links > LINKS_MAX {
            break;
        }
        if target.is_absolute() {
            directory = PathBuf::from("/");
        }
        names(&target).into_iter().rev().for_each(|name| left.push_front(name));
    }
    steps
}

/// The components of a path but for `/` and `.`.
fn names(path: &Path) -> VecDeque<OsString> {
    let is_name = |component: &Component<'_>| matches!(component, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_name).map(|component| component.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    #[test]
    fn every_link_on_the_way_is_a_step() {
        let root = TempDir::new().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/..v1")).unwrap();
        fs::write(root.join("real/..v1/web.yaml"), "").unwrap();
        symlink("..v1", root.join("real/..data")).unwrap();
        symlink("..data/web.yaml", root.join("real/web.yaml")).unwrap();
        symlink("../real", root.join("real/up")).unwrap();
        symlink(root.join("real"), root.join("link")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let found = |path: &str| -> Vec<String> {
            let steps = trail(&root.join(path)).into_iter();
            let text = |step: Step| step.directory.join(step.name).strip_prefix(&root).unwrap().display().to_string();
            steps.map(text).collect()
        };
        assert_eq!(found("real"), ["real"]);
        assert_eq!(found("real/web.yaml"), ["real/web.yaml", "real/..data", "real/..v1/web.yaml"]);
        assert_eq!(found("link/up/web.yaml")[..3], ["link", "real/up", "real/web.yaml"]);
        assert_eq!(found("real/gone/web.yaml"), ["real/gone"]);
        assert_eq!(found("loop").len(), LINKS_MAX + 1);
    }
}
