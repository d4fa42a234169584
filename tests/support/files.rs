//! The files of this repository, for tests that hold sources and documents to rules.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's own folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the repository, as paths from that folder.
pub fn below(folder: &str) -> Vec<PathBuf> {
    let top = root().join(folder);
    let (mut found, mut folders) = (Vec::new(), vec![top.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(&top).unwrap().to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "the files of {folder} were not found");
    found
}

/// Whether a file is source of Rust.
pub fn is_rust(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}
