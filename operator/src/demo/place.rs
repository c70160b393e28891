//! The demo's file: in a temporary folder that goes with the demo, or where it was asked for.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Kind};

/// Where the file is. Removes what is not to be kept when it is dropped.
pub(super) struct Place {
    folder: Option<PathBuf>,
    pub(super) file: PathBuf,
}

impl Place {
    /// # Errors
    /// A file that is there already, or a folder that cannot be made.
    pub(super) fn new(keep: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = keep else {
            let folder = std::env::temp_dir().join(format!("bmdb-demo-{}", uuid::Uuid::new_v4().simple()));
            std::fs::create_dir(&folder).map_err(|error| {
                Failure::new(
                    Kind::Usage,
                    format!(
                        "cannot make the folder {}: {error}. --keep FILE names a file elsewhere",
                        folder.display()
                    ),
                )
            })?;
            let file = folder.join("fleet.sqlite");
            return Ok(Self {
                folder: Some(folder),
                file,
            });
        };
        let file = std::path::absolute(file).unwrap_or_else(|_no_current_folder| file.to_owned());
        if file.display().to_string().contains(['?', '#', '%']) {
            return Err(Failure::usage(
                "--keep: the name of the file has ?, # or % in it, which mean something else in a URL",
            ));
        }
        if file.exists() {
            return Err(Failure::usage(format!(
                "{} is there already, and the demo only fills a file of its own. Name one that is not",
                file.display()
            )));
        }
        Ok(Self { folder: None, file })
    }

    /// As `--database` takes it.
    pub(super) fn url(&self) -> String {
        format!("sqlite://{}", self.file.display())
    }

    /// Whether it goes with the demo.
    pub(super) fn is_temporary(&self) -> bool {
        self.folder.is_some()
    }

    /// Removes it, unless it is kept. A folder that somebody else has removed is gone all the same.
    pub(super) fn remove(&self) {
        if let Some(folder) = &self.folder {
            let _gone = std::fs::remove_dir_all(folder);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}
