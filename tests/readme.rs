//! The front door stays true: every command line in the README is one that `nfl` understands, and every help text is
//! as last reviewed.

use crate::fixture;

#[test]
fn commands_in_the_readme_parse() {
    let readme = include_str!("../README.md");
    let mut inside = false;
    let mut checked = 0;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
            continue;
        }
        let command = line.split(" #").next().unwrap_or(line).trim();
        if !inside || !command.starts_with("nfl ") {
            continue;
        }
        let words = words(command);
        let parsed = nfl::cli::command().try_get_matches_from(&words);
        assert!(parsed.is_ok(), "{command}\n{}", parsed.unwrap_err());
        checked += 1;
    }
    assert!(checked >= 9, "only {checked} commands found");
}

/// A command line's words; quotes as a shell takes them.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in command.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn levels_of_the_readme_are_all_levels() {
    let readme = include_str!("../README.md").replace('\n', " ");
    let list = readme.split("Levels: ").nth(1).unwrap().split('.').next().unwrap();
    let mut named: Vec<&str> = list.split_whitespace().collect();
    let mut levels: Vec<&str> = nfl_models::Level::ALL.iter().map(|level| level.name()).collect();
    named.sort_unstable();
    levels.sort_unstable();
    assert_eq!(named, levels);
}

#[test]
fn help_texts_are_as_reviewed() {
    let commands = [
        "",
        "audit",
        "bench",
        "convert",
        "cp",
        "create",
        "doctor",
        "embed",
        "finetune",
        "fit",
        "import",
        "keys",
        "list",
        "merge",
        "outdated",
        "prune",
        "pull",
        "push",
        "quantize",
        "rerank",
        "rm",
        "run",
        "search",
        "serve",
        "show",
        "synthesize",
        "tune",
    ];
    for command in commands {
        let arguments: Vec<&str> =
            [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let help = fixture::nfl(&arguments).expect_success();
        let name = if command.is_empty() { "nfl" } else { command };
        insta::assert_snapshot!(format!("help_{name}"), help);
    }
}
