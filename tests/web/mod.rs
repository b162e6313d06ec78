//! The network: servers of the tests' own, their faults, and what `nfl` makes of them.

mod crowd;
mod download;
mod hub_server;
mod index;
mod kill;
mod login;
#[cfg(target_os = "linux")]
mod reach;
pub(crate) mod registry;
mod repository;
pub(crate) mod server;
mod url;

use std::process::Command;
use std::time::Instant;

use crate::fixture::{self, Ran};

/// A home of its own for `nfl`, far from the user's tokens, mirrors and proxies.
pub(crate) struct Home {
    pub(crate) folder: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    /// The same with a variable.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = fixture::command(arguments);
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"] {
            command.env_remove(name);
        }
        for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        for name in ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "NFL_REGISTRY_TOKEN"]
        {
            command.env_remove(name);
        }
        for name in ["NFL_HOME", "HF_HOME", "HOME"] {
            command.env(name, self.folder.path());
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn nfl(&self, arguments: &[&str]) -> Ran {
        let start = Instant::now();
        let output = self.command(arguments).output().unwrap();
        Ran {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        }
    }

    /// How many models it has.
    pub(crate) fn models(&self) -> usize {
        let list = self.nfl(&["list", "--json"]).expect_success();
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list.as_array().map_or_else(|| list["models"].as_array().unwrap().len(), Vec::len)
    }
}
