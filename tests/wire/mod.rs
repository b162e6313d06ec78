//! The server as its clients meet it: over HTTP on a port of its own, with a model that plays a script or a real one.

mod anthropic;
mod client;
mod hostile;
mod native;
mod ollama;
mod openai;
mod security;

use std::fs::File;
use std::path::{Path, PathBuf};

use nfl::chat::pool::{KeepAlive, Loader, Pool, PoolOptions, Workers};
use nfl::chat::{ChatError, Responder};
use nfl::engine::fake::Fake;
use nfl::engine::options::{LoadRequest, Sampling};
use nfl::engine::process::OnProgress;
use nfl::engine::runner::Runner;
use nfl::server::{self, Config, Running, Security};
use nfl::store::{Found, Kind, Link, Origin, Piece, Resolved, Source, Store};
use nfl_models::TensorType;
use nfl_models::gguf::{Gguf, Metadata, TensorPlan, Writer};
use nfl_models::template::{self, ChatTemplate};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use client::{Reply, Stream};

use crate::fixture;

/// A chat template as many models have it, without tools.
pub(crate) const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A chat template of a model that thinks and calls tools, in the way of Qwen and Hermes.
pub(crate) const HERMES: &str = "{% if tools %}<|im_start|>system\n<tools>\n{% for tool in tools %}{{ tool | tojson }}\n\
    {% endfor %}</tools>\nA call is <tool_call>\n{\"name\": NAME, \"arguments\": OBJECT}\n</tool_call><|im_end|>\n{% endif %}\
    {% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}\
    {% for call in message.tool_calls %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\
    {% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}";

/// The special tokens of the models that are played.
pub(crate) const SPECIAL: [&str; 7] = [
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|endoftext|>",
];

/// A server in this process over a home folder of its own. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Served {
    running: Running,
    home: TempDir,
    /// What plays the models; says nothing when they are real.
    pub(crate) fake: Fake,
}

impl Served {
    /// A server whose models play a script: `plain` continues texts, `chat` has a chat template, `able` thinks and calls
    /// tools besides.
    pub(crate) fn fake() -> Self {
        Self::played(Fake::new(&SPECIAL), options())
    }

    /// The same with a player and a pool of the test's own.
    pub(crate) fn played(fake: Fake, options: PoolOptions) -> Self {
        Self::with(fake, options, config())
    }

    /// The same behind a guard of the test's own.
    pub(crate) fn configured(config: Config) -> Self {
        Self::with(Fake::new(&SPECIAL), options(), config)
    }

    fn with(fake: Fake, options: PoolOptions, config: Config) -> Self {
        let home = tempfile::tempdir().unwrap();
        for (name, template) in [("plain", None), ("chat", Some(CHATML)), ("able", Some(HERMES))] {
            let file = home.path().join(format!("{name}.gguf"));
            write_model(&file, name, template);
            import(home.path(), &file, name);
        }
        Self::start(home, Box::new(Player(fake.clone())), options, (config, fake))
    }

    /// A server whose workers run the real tiny model under the name `stories`; None, said on stderr, where there is no
    /// material.
    pub(crate) fn real() -> Option<Self> {
        let file = fixture::material("derived/stories260K-llama-F32.gguf")?;
        let home = tempfile::tempdir().unwrap();
        import(home.path(), &file, "stories");
        let workers = Workers { program: fixture::program().to_owned() };
        Some(Self::start(home, Box::new(workers), options(), (config(), Fake::new(&[]))))
    }

    fn start(
        home: TempDir,
        loader: Box<dyn Loader>,
        options: PoolOptions,
        (config, fake): (Config, Fake),
    ) -> Self {
        let pool = Pool::new(home.path().to_owned(), loader, options);
        let running = server::start(config, pool).unwrap();
        Self { running, home, fake }
    }

    /// The folder of the server's data.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The server.
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    /// The server's store, as another process would see it.
    pub(crate) fn store(&self) -> Store {
        Store::open(self.home.path()).unwrap()
    }

    /// A file in the server's home folder that is no part of the store.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// An answer, complete.
    pub(crate) fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        Stream::open(self.running.address(), method, target, headers, body).finish()
    }

    /// The answer to a question without a body.
    pub(crate) fn get(&self, target: &str) -> Reply {
        self.request("GET", target, &[], b"")
    }

    /// The answer to a JSON value.
    pub(crate) fn post(&self, target: &str, body: &Value) -> Reply {
        self.stream(target, body).finish()
    }

    /// The answer to a JSON value, as it comes.
    pub(crate) fn stream(&self, target: &str, body: &Value) -> Stream {
        let headers = [("Content-Type", "application/json")];
        Stream::open(self.running.address(), "POST", target, &headers, body.to_string().as_bytes())
    }
}

/// A pool's usual ways.
pub(crate) fn options() -> PoolOptions {
    PoolOptions { keep_alive: KeepAlive::Forever, ..PoolOptions::default() }
}

/// A server's usual ways, on any free port.
pub(crate) fn config() -> Config {
    Config {
        address: ([127, 0, 0, 1], 0).into(),
        body_bytes_max: 64 << 20,
        security: Security::default(),
    }
}

/// Plays every model that is asked for.
#[derive(Debug)]
struct Player(Fake);

impl Loader for Player {
    fn load(
        &self,
        resolved: &Resolved,
        request: &LoadRequest,
        _: OnProgress<'_>,
    ) -> Result<Responder, ChatError> {
        let file = Gguf::open(&resolved.model)?;
        let own = file.metadata().text(template::METADATA_KEY);
        let template = own.map(ChatTemplate::parse).transpose()?;
        let asked = request.context.context_tokens;
        let mut fake = self.0.clone().with_info(|info| {
            info.context_tokens = asked.unwrap_or(info.context_tokens);
        });
        // Unloading one ends them all.
        fake.restart().unwrap();
        Ok(Responder::with(Box::new(fake), template, Sampling::default()))
    }
}

/// Writes a file that is a model as far as the store looks: a head and one tensor.
pub(crate) fn write_model(path: &Path, name: &str, chat_template: Option<&str>) {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("general.name", name);
    metadata.set("general.file_type", 0_u32);
    metadata.set("llama.context_length", 4096_u32);
    metadata.set("llama.embedding_length", 4_u32);
    if let Some(text) = chat_template {
        metadata.set(template::METADATA_KEY, text);
    }
    let tensor = TensorPlan {
        name: "token_embd.weight".to_owned(),
        dimensions: vec![4, 8],
        tensor_type: TensorType::F32,
    };
    let mut writer = Writer::new(File::create(path).unwrap(), &metadata, vec![tensor]).unwrap();
    writer.write(&[0; 128]).unwrap();
    writer.finish_tensor().unwrap();
    writer.finish().unwrap();
}

/// Makes a file a model of the store below `home`.
pub(crate) fn import(home: &Path, file: &Path, name: &str) {
    let found = Found {
        name: name.parse().unwrap(),
        source: Source::new(Origin::File, fixture::text(file)),
        pieces: vec![Piece::new(Kind::Model, file).unwrap()],
    };
    let store = Store::open(home).unwrap();
    store.import(&found, &[Link::Copy], &mut |_| true).unwrap();
}

#[test]
fn a_server_is_ready_when_it_says_so() {
    let served = Served::fake();
    let health = served.get("/health");
    assert_eq!(health.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(health.ok()["status"], "ok");
    assert_eq!(served.get("/no/such/place").status, 404);
}
