//! Where models save what their caches held, so that a conversation is not read again after its model was unloaded.
//!
//! Each model has a folder of its own: its worker can reach no other's conversations. All of them together stay within the
//! limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::engine::options::StateOptions;

/// The folder of one model.
pub(super) fn of_model(states: &StateOptions, identity: &str) -> StateOptions {
    let hash = Sha256::digest(identity.as_bytes());
    // Half of the hash is enough to tell models apart.
    let name = hash.first_chunk::<16>().map_or(0, |half| u128::from_le_bytes(*half));
    StateOptions { directory: states.directory.join(format!("{name:032x}")), ..states.clone() }
}

/// Removes what was unused for longest until the folders of all models are within the limit. What cannot be removed stays:
/// it is tried again the next time. Folders stay, because a worker may be about to write there.
pub(super) fn trim(states: &StateOptions) {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries(&states.directory)
        .filter(|path| path.is_dir())
        .flat_map(|folder| entries(&folder).collect::<Vec<_>>())
        .filter_map(|path| {
            let metadata = path.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((metadata.modified().ok()?, metadata.len(), path))
        })
        .collect();
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, path) in files {
        if total <= states.bytes_max {
            break;
        }
        if fs::remove_file(&path).is_ok() {
            total -= bytes;
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_oldest_of_all_models_go_first() {
        let home = tempfile::tempdir().unwrap();
        let states = StateOptions { directory: home.path().join("states"), bytes_max: 2500 };
        let folders = ["a", "b"].map(|model| of_model(&states, model).directory);
        assert_ne!(folders[0], folders[1]);
        for (index, age) in [(0, 40), (1, 30), (0, 20), (1, 10)] {
            fs::create_dir_all(&folders[index]).unwrap();
            let file = fs::File::create(folders[index].join(format!("{age}.state"))).unwrap();
            file.set_len(1000).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        let own = states.directory.join("of-nfl-run.state");
        fs::write(&own, [0; 9000]).unwrap();
        trim(&states);
        let left = |index: usize| entries(&folders[index]).count();
        assert_eq!((left(0), left(1)), (1, 1));
        assert!(folders[1].join("10.state").exists() && own.exists());
        trim(&StateOptions { bytes_max: 1500, ..states });
        assert_eq!((left(0), left(1)), (0, 1));
        trim(&StateOptions { directory: home.path().join("nowhere"), bytes_max: 0 });
    }
}
