//! A file replaced as a whole: who reads it meanwhile reads the old one or the new one, and so does who reads it after the
//! machine has died.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use super::FileError;

/// Returns what wraps an error of the operating system with what was tried.
pub(super) fn failed(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> FileError + use<> {
    let path = path.to_path_buf();
    move |source| FileError::Io {
        operation,
        path,
        source,
    }
}

/// Writes a file anew, with the mode and the owner that it has.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // One that a process left behind when it was killed is written over by the next with its number.
    let new = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = write(path, &new, text).and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        // There may be nothing to remove.
        let _none = fs::remove_file(&new);
        return Err(failed("replace", path)(error));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync", folder))
}

fn write(path: &Path, new: &Path, text: &str) -> io::Result<()> {
    let old = fs::metadata(path)?;
    // Nobody else reads it before it has the owner and the mode of the other: it may hold passwords.
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new)?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(old.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
