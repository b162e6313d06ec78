//! The structure of the tree as tests: ranks, owners, first lines, licences. A rule without teeth is a wish.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules of `src/` by rank; a file may use only modules of lower ranks and its own.
const RANKS: &[(&str, u32)] = &[
    ("cli", 6),
    ("tui", 5),
    ("server", 5),
    ("rag", 4),
    ("eval", 4),
    ("learn", 4),
    ("chat", 3),
    ("engine", 2),
    ("training", 2),
    ("hub", 2),
    ("corpus", 2),
    ("store", 1),
    ("hardware", 1),
    ("settings", 0),
    ("term", 0),
];

/// What may be named only in certain places: needle, the paths that own it, what to do instead.
const OWNERS: &[(&str, &[&str], &str)] = &[
    ("clap::", &["src/cli/"], "describe arguments in src/cli"),
    ("ratatui::", &["src/tui/"], "draw in src/tui"),
    ("crossterm::", &["src/tui/"], "handle the terminal in src/tui"),
    ("axum::", &["src/server/"], "route in src/server"),
    ("hyper::", &["src/server/"], "listen in src/server"),
    ("schemars::", &["src/server/"], "describe wire types in src/server"),
    ("llama_cpp_2::", &["src/engine/"], "go through crate::engine"),
    ("llama_cpp_sys_2::", &["src/engine/"], "go through crate::engine"),
    ("candle_core::", &["src/training/"], "train in src/training"),
    ("reqwest::", &["src/hub/"], "fetch in src/hub"),
    ("minijinja::", &["models/src/template"], "render with nfl_models::template"),
    ("rustyline::", &["src/term/"], "ask with crate::term::editor"),
    ("indicatif::", &["src/term/"], "show progress with crate::term::progress"),
    ("println!", &["src/term/"], "print with crate::term::Printer"),
    ("print!(", &["src/term/"], "print with crate::term::Printer"),
    ("directories::", &["src/settings/"], "ask crate::settings for folders"),
    ("libloading::", &["src/engine/llama/"], "load back-ends with engine::llama::backends"),
    ("sysinfo::", &["src/hardware/"], "ask crate::hardware"),
    ("env::var", &["src/settings/"], "read the environment in src/settings"),
];

/// Folders with our Rust sources.
const SOURCES: &[&str] = &[
    "src",
    "models/src",
    "converters/src",
    "tests",
    "models/tests",
    "converters/tests",
    "benches",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below the source folders, as (path from the root with `/`, text).
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = SOURCES.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 20, "the walk found only {} files", found.len());
    found.sort();
    found
}

/// The text without comments and doc comments, line by line with its number.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let code = line.split("//").next().unwrap_or("");
        (!code.trim().is_empty()).then_some((index + 1, code))
    })
}

/// The production part of a file: up to its first inline test module.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let problems: Vec<String> = files()
        .iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| {
            format!("{name}:1: open the file with `//!` and one sentence that says what it is")
        })
        .collect();
    report(&problems);
}

#[test]
fn modules_use_only_lower_ranks() {
    let rank_of =
        |module: &str| RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank);
    let mut problems = Vec::new();
    for (name, text) in files() {
        let Some(inside) = name.strip_prefix("src/") else { continue };
        let Some((own, _)) = inside.split_once('/') else { continue };
        let Some(own_rank) = rank_of(own) else {
            problems.push(format!(
                "{name}:1: the module `{own}` has no rank; give it one in tests/rules.rs"
            ));
            continue;
        };
        for (line, code) in code_lines(production(&text)) {
            for part in code.split("crate::").skip(1) {
                let used: String =
                    part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                match rank_of(&used) {
                    Some(rank) if used != own && rank >= own_rank => problems.push(format!(
                        "{name}:{line}: `{own}` (rank {own_rank}) uses `{used}` (rank {rank}); move what both need to a lower rank"
                    )),
                    _ => {}
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn heavy_dependencies_have_one_owner() {
    let mut problems = Vec::new();
    for (name, text) in files() {
        if name.contains("tests") || name.starts_with("benches/") {
            continue;
        }
        for (line, code) in code_lines(production(&text)) {
            for (needle, owners, instead) in OWNERS {
                if code.contains(needle) && !owners.iter().any(|owner| name.starts_with(owner)) {
                    problems.push(format!(
                        "{name}:{line}: `{needle}` belongs to {}; {instead}",
                        owners.join(", ")
                    ));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn unsafe_code_stays_where_it_is_agreed() {
    let allowed = |name: &str| name.starts_with("src/engine/") || name.starts_with("tests/");
    let mut problems = Vec::new();
    for (name, text) in files() {
        let blocks = code_lines(&text)
            .filter(|(_, code)| code.contains("unsafe {") || code.contains("unsafe fn"));
        for (line, code) in blocks {
            // Mapping a file is the one other thing that Rust cannot prove harmless.
            if !allowed(&name) && !code.contains("map(") && !text.contains("Mmap") {
                problems.push(format!(
                    "{name}:{line}: unsafe code belongs to src/engine, or maps a file"
                ));
            }
        }
    }
    report(&problems);
}

#[test]
fn licences_of_all_dependencies_are_compatible() {
    let deny = fs::read_to_string(root().join(".deny.toml")).unwrap();
    let list = deny.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    let allowed: BTreeSet<&str> =
        list.split(',').map(|entry| entry.trim().trim_matches('"')).collect();
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let is_exception = |package: &serde_json::Value| {
        let name = package["name"].as_str().unwrap_or("");
        deny.contains(&format!("{{ crate = \"{name}\", allow = [{}] }}", package["license"]))
    };
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 30);
    let problems: Vec<String> = packages
        .iter()
        .filter(|package| {
            let licence = package["license"].as_str().unwrap_or("");
            !is_allowed(licence, &allowed) && !is_exception(package)
        })
        .map(|package| {
            format!("{} {}: licence {}", package["name"], package["version"], package["license"])
        })
        .collect();
    report(&problems);
}

/// Whether an SPDX expression (as far as crates use them) can be satisfied with allowed licences.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let normal = expression.replace(['(', ')'], " ").replace('/', " OR ");
    let is_one = |licence: &str| allowed.contains(licence.trim());
    // `A AND (B OR C)` flattened: each AND part must have one allowed alternative.
    normal.split(" AND ").all(|part| part.split(" OR ").any(is_one))
        || normal.split(" OR ").any(|part| part.split(" AND ").all(is_one))
}
