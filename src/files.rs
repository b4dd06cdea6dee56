//! Files that are replaced as a whole: readers and crashes meet the old text or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{IoContext, Result};

/// Replaces the text of a file. After a power loss it may have the old text.
///
/// # Errors
/// Any error of the disk.
pub(crate) fn replace(path: &Path, text: &[u8]) -> Result<()> {
    replace_by(path, |part| fs::write(part, text)).at("write", path)
}

/// Replaces the text of a file. When this returns, a power loss does not bring the old text back.
///
/// # Errors
/// Any error of the disk.
pub(crate) fn replace_durably(path: &Path, text: &[u8]) -> Result<()> {
    let write = |part: &Path| {
        let mut file = File::create(part)?;
        file.write_all(text)?;
        file.sync_all()
    };
    replace_by(path, write).at("write", path)?;
    sync_directory(path.parent().unwrap_or(path))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// Any error of the disk.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).at("sync", path)
}

#[expect(clippy::disallowed_methods, reason = "the door to renames")]
fn replace_by(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".new");
    write(Path::new(&part))?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_replaced_as_a_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        for (text, put) in [("one", replace as fn(&Path, &[u8]) -> _), ("two", replace_durably)] {
            put(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        assert!(replace(&folder.path().join("none/record"), b"x").is_err());
    }
}
