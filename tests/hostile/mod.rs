//! Hostile files as a person meets them: through the program, each ends in one clear error, at once, and nothing is
//! left behind. Numbers are those of the project's list of attack cases.

mod checkpoint;
mod gguf;
mod interruption;
mod parameters;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nfl_models::gguf::{Array, Gguf, Metadata, TensorPlan, Text, Writer};
use tempfile::TempDir;

use crate::fixture::{self, Ran, text};

/// Seconds of a processor that a process of a refused case may take. The shell counts whole ones, and starting counts.
const PROCESSOR_SECONDS: u32 = 2;

/// Memory that it may reserve: a length in a file that is believed ends it.
const MEMORY_KIBIBYTES: u32 = 4 << 20;

/// After this long a case hangs, however loaded the machine is.
const HANGS_AFTER: Duration = Duration::from_mins(1);

const DENSE: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,
    "intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
    "vocab_size":512,"max_position_embeddings":512,"rms_norm_eps":1e-5,"rope_theta":10000.0,
    "tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":2,"torch_dtype":"float32""#;

const EXPERTS: &str = r#","num_local_experts":4,"num_experts_per_tok":2"#;

/// A folder with a small checkpoint, the F32 file made of it, and room for outputs.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn dense() -> Self {
        Self::of(&format!("{DENSE}}}"), &[])
    }

    fn with_experts() -> Self {
        let config = format!("{DENSE}{EXPERTS}}}");
        let config = config.replace("LlamaFor", "MixtralFor").replace("\"llama\"", "\"mixtral\"");
        Self::of(&config, &[])
    }

    fn of(config: &str, extra: &[&str]) -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        let config_file = scene.path("config.json");
        std::fs::write(&config_file, config).unwrap();
        let checkpoint = scene.checkpoint();
        let synthesize = ["synthesize", text(&config_file), "-o", text(&checkpoint), "--quiet"];
        fixture::nfl(&[&synthesize[..], &["--dtype", "f32"], extra].concat()).expect_success();
        fixture::convert(&checkpoint, "f32", scene.folder.path());
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn checkpoint(&self) -> PathBuf {
        self.path("tiny")
    }

    /// The F32 file.
    fn model(&self) -> PathBuf {
        self.path("tiny-F32.gguf")
    }

    /// Where a case writes to.
    fn output(&self) -> PathBuf {
        self.path("out")
    }

    /// Makes a file.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn draft(&self) -> Draft {
        Draft::of(&self.model())
    }

    /// `nfl show`, `run` and `quantize` of a file must all end in an error with these words.
    #[track_caller]
    fn refuses(&self, case: &str, file: &Path, words: &str) {
        for command in ["show", "run", "quantize"] {
            self.check(case, command, file, Err(words));
        }
    }

    /// A command on a file ends well, or in an error with these words and with nothing written.
    #[track_caller]
    fn check(&self, case: &str, command: &str, file: &Path, expected: Result<(), &str>) -> Ran {
        let output = self.output();
        let file = text(file);
        let arguments = match command {
            "show" => vec!["show", file],
            "run" => [&["run", file, "hi"], SHORT].concat(),
            _ => vec![command, file, "--level", "q8_0", "--output", text(&output)],
        };
        let ran = check(&format!("{case}: {command}"), &arguments, expected);
        if expected.is_err() {
            assert_eq!(fixture::files_of(&output), [""; 0], "{case}: {command} left files");
        }
        ran
    }
}

/// A short reply of a tiny model.
const SHORT: &[&str] = &["--raw", "--tokens", "8", "--threads", "1", "--seed", "1"];

/// A model in memory, to be changed and written.
struct Draft {
    metadata: Metadata,
    tensors: Vec<(TensorPlan, Vec<u8>)>,
}

impl Draft {
    fn of(path: &Path) -> Self {
        let gguf = Gguf::open(path).unwrap();
        let tensors = gguf.tensors().iter().map(|tensor| {
            let plan = TensorPlan {
                name: tensor.name.clone(),
                dimensions: tensor.dimensions.clone(),
                tensor_type: tensor.tensor_type,
            };
            (plan, gguf.data(tensor).to_vec())
        });
        Self { metadata: gguf.metadata().clone(), tensors: tensors.collect() }
    }

    fn write(&self, path: &Path) {
        let plans = self.tensors.iter().map(|(plan, _)| plan.clone()).collect();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = Writer::new(file, &self.metadata, plans).unwrap();
        for (_, data) in &self.tensors {
            writer.write(data).unwrap();
            writer.finish_tensor().unwrap();
        }
        writer.finish().unwrap();
    }

    fn tensor(&mut self, name: &str) -> &mut (TensorPlan, Vec<u8>) {
        self.tensors.iter_mut().find(|(plan, _)| plan.name == name).unwrap()
    }

    /// Puts a value at a place of an F32 tensor.
    fn poison(&mut self, name: &str, place: usize, value: f32) {
        self.tensor(name).1[place * 4..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn tokens(&self) -> Vec<Text> {
        let tokens = self.metadata.array("tokenizer.ggml.tokens");
        tokens.and_then(Array::as_texts).unwrap().to_vec()
    }
}

/// Errors that say all there is to say.
const NEED_NO_HINT: [&str; 2] = ["it begins with", "not a regular file"];

/// Runs `nfl`, which must end well, or refuse with these words and a hint, and say nothing on stdout.
#[track_caller]
fn check(case: &str, arguments: &[&str], expected: Result<(), &str>) -> Ran {
    let command = match expected {
        Ok(()) => fixture::command(arguments),
        Err(_) => confined(arguments),
    };
    judge(case, finish(case, command), expected)
}

#[track_caller]
fn judge(case: &str, ran: Ran, expected: Result<(), &str>) -> Ran {
    let Ran { status, stdout, stderr, .. } = &ran;
    let Err(words) = expected else {
        assert_eq!(*status, 0, "{case}: {stderr}");
        return ran;
    };
    assert_eq!(*status, 1, "{case}: stdout {stdout:?}, stderr {stderr}");
    assert_eq!(stdout, "", "{case}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(matches!(errors[..], [error] if error.contains(words)), "{case}: {words:?}: {stderr}");
    let needs_none = NEED_NO_HINT.iter().any(|plain| stderr.contains(plain));
    assert!(needs_none || stderr.contains("\n\nhint: "), "{case}: no hint: {stderr}");
    let is_bad = |c: char| c.is_control() && c != '\n';
    assert!(!stderr.contains(is_bad), "{case}: control characters: {stderr:?}");
    ran
}

/// A command line of `nfl` with bounds on time and memory, where there is a shell that can set them.
fn confined(arguments: &[&str]) -> Command {
    if cfg!(not(unix)) {
        return fixture::command(arguments);
    }
    let limits = format!(
        "ulimit -t {PROCESSOR_SECONDS}; ulimit -v {MEMORY_KIBIBYTES} 2>/dev/null; exec \"$0\" \"$@\""
    );
    let mut command = Command::new("sh");
    command.args(["-c", &limits]).arg(fixture::program()).args(arguments);
    command.stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

/// Runs a command to its end; one that hangs is killed, and fails the test.
#[track_caller]
fn finish(case: &str, mut command: Command) -> Ran {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = listen(child.stdout.take().unwrap());
    let stderr = listen(child.stderr.take().unwrap());
    let status = wait(case, &mut child);
    let [stdout, stderr] = [stdout, stderr].map(|heard| heard.join().unwrap());
    Ran { status, stdout, stderr, took: start.elapsed() }
}

/// The exit status; -1 when a signal ended it.
#[track_caller]
fn wait(case: &str, child: &mut Child) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if start.elapsed() > HANGS_AFTER {
            child.kill().unwrap();
            panic!("{case}: hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn listen(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
