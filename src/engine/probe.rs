//! What llama.cpp finds on this machine, found out in processes of their own.
//!
//! Drivers crash, hang and print. So each back-end module is loaded by a child process that tells
//! what it saw: one that dies or takes too long costs its own line of the report.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nfl_models::Hint;
use serde::{Deserialize, Serialize};

use super::inquiry;
use super::llama::{Backend, Device, LogLevel, devices};

/// The argument that turns the program into a probe; a module's path may follow.
pub const ARGUMENT: &str = "__probe";

/// How long a driver may take to say what it drives.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of a back-end's log that are kept.
const LINES_MAX: usize = 16;

/// What one process found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// ggml's name of the module's back-end, when it was loaded.
    pub backend: Option<String>,
    /// Why the module was refused.
    pub refusal: Option<String>,
    /// What to do about that.
    pub hint: Option<String>,
    /// The devices: of the module, or without one of the program itself.
    pub devices: Vec<Device>,
    /// What the back-end said while it looked for devices.
    pub log: Vec<String>,
    /// What ggml's code for the processor was compiled to use.
    pub compiled_features: Vec<String>,
}

/// Runs the probe in this process, for its parent.
pub fn main() -> ExitCode {
    let module = std::env::args_os().nth(2).map(PathBuf::from);
    inquiry::answer(&look(module))
}

fn look(module: Option<PathBuf>) -> Findings {
    let has_module = module.is_some();
    let backend = Backend::with_module(module);
    let mut findings = Findings {
        compiled_features: backend.compiled_features(),
        devices: devices(backend),
        ..Findings::default()
    };
    for module in backend.modules() {
        match &module.outcome {
            Ok(loaded) => findings.backend = Some(loaded.backend.clone()),
            Err(error) => {
                findings.refusal = Some(error.to_string());
                findings.hint = error.hint();
            }
        }
    }
    if has_module {
        findings.devices.retain(|device| Some(&device.backend) == findings.backend.as_ref());
    }
    let said = backend.lines_since(backend.beginning());
    let told = said.iter().filter(|line| line.level > LogLevel::Debug);
    findings.log = told.map(|line| line.text.trim().to_owned()).take(LINES_MAX).collect();
    findings
}

/// Asks a child process of `program` about a module, or without one about the program itself.
pub fn probe(program: &Path, module: Option<&Path>) -> Findings {
    ask(program, module).unwrap_or_else(|refusal| Findings {
        refusal: Some(refusal),
        hint: Some(match module {
            Some(_) => "update the driver, or remove the module to do without it".to_owned(),
            None => "build nfl on this machine: ./install.sh".to_owned(),
        }),
        ..Findings::default()
    })
}

fn ask(program: &Path, module: Option<&Path>) -> Result<Findings, String> {
    let arguments = [Some(OsStr::new(ARGUMENT)), module.map(Path::as_os_str)];
    let arguments: Vec<&OsStr> = arguments.into_iter().flatten().collect();
    inquiry::ask(program, &arguments, Vec::new(), PATIENCE)
}
