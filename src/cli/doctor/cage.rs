//! The doctor's judgement of the worker's cage: what the kernel offers for it, and what it means where something lacks.

use super::findings::{Finding, Status};
use crate::engine::worker::cage::Offered;

/// From this ABI on Landlock keeps a process from TCP, and from the next one from signals to others.
const LANDLOCK_NETWORK: u32 = 4;
const LANDLOCK_SIGNALS: u32 = 6;

/// A line for what holds, one for each thing that lacks.
pub(super) fn findings(offered: &Offered) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut holds = Vec::new();
    if let Some(abi) = offered.landlock {
        holds.push(format!("Landlock {abi}: a worker reads its model's files and no others"));
    }
    if offered.seccomp {
        holds.push("seccomp: no sockets, no programs, no new machine code".to_owned());
    }
    if !holds.is_empty() {
        found.push(Finding::new(Status::Ok, "cage", holds.join("; ")));
    }
    for missing in &offered.missing {
        found.push(Finding::new(Status::Missing, "cage", missing).advise(meaning(offered)));
    }
    if let Some(text) = offered.landlock.and_then(old) {
        found.push(Finding::new(Status::Note, "cage", text));
    }
    found
}

/// What it means that something lacks, and what to do meanwhile.
fn meaning(offered: &Offered) -> &'static str {
    match (offered.landlock, offered.seccomp) {
        (None, true) => {
            "models run all the same; one that takes llama.cpp over could read your files, and send nothing: take those you \
             trust"
        }
        (Some(_), false) => {
            "models run all the same; one that takes llama.cpp over could start programs, and read nothing of yours: take \
             those you trust"
        }
        _ => {
            "models run all the same; one that takes llama.cpp over has your rights: take those you trust, or a user of their \
             own"
        }
    }
}

/// What an older Landlock leaves to seccomp.
fn old(abi: u32) -> Option<String> {
    let lacks = match abi {
        ..LANDLOCK_NETWORK => "TCP and signals",
        LANDLOCK_NETWORK..LANDLOCK_SIGNALS => "signals",
        LANDLOCK_SIGNALS.. => return None,
    };
    Some(format!("Landlock {abi} does not know {lacks}: seccomp alone keeps a worker from them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(landlock: Option<u32>, seccomp: bool, missing: &[&str]) -> Vec<(Status, String)> {
        let missing = missing.iter().map(|&text| text.to_owned()).collect();
        let found = findings(&Offered { landlock, seccomp, missing });
        found
            .into_iter()
            .map(|each| (each.status, each.text + &each.advice.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn what_lacks_is_told_with_its_meaning() {
        let all = told(Some(7), true, &[]);
        assert_eq!(all.len(), 1);
        assert!(
            all[0].0 == Status::Ok
                && all[0].1.contains("Landlock 7")
                && all[0].1.contains("seccomp")
        );
        let old = told(Some(3), true, &[]);
        assert!(old[1].0 == Status::Note && old[1].1.contains("TCP and signals"), "{old:?}");
        let files = told(None, true, &["files: no Landlock"]);
        assert_eq!((files[0].0, files[1].0), (Status::Ok, Status::Missing));
        assert!(files[1].1.contains("no Landlock") && files[1].1.contains("read your files"));
        let nothing = told(None, false, &["files: a", "system calls: b"]);
        assert_eq!(nothing.len(), 2);
        assert!(
            nothing
                .iter()
                .all(|(status, text)| *status == Status::Missing && text.contains("your rights"))
        );
    }
}
