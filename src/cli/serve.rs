//! `nfl serve`: the models of this machine for every program that speaks to one.

use clap::Args;

use super::failure::Failure;
use super::listen::{self, ListenArguments};
use super::loading;
use super::pool::PoolArguments;
use super::security::SecurityArguments;
use crate::chat::pool::{Pool, Workers};
use crate::server::{self, Config};
use crate::settings;
use crate::term::{Printer, interrupt};

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Serve the models of this machine to local programs.
///
/// Speaks Ollama's, OpenAI's and Anthropic's dialects; models are loaded when they are asked for, as many as memory holds.
/// What a flag does not say is read from variables of its name: NFL_KEEP_ALIVE, else OLLAMA_KEEP_ALIVE.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    listen: ListenArguments,
    #[command(flatten)]
    pool: PoolArguments,
    #[command(flatten)]
    security: SecurityArguments,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let home = settings::home().ok_or_else(|| {
        Failure::new("there is no home folder", Some("set NFL_HOME to a folder of yours"))
    })?;
    let address = arguments.listen.address()?;
    let options = arguments.pool.read(&home, printer)?;
    let security = arguments.security.read(address.ip(), &home, printer)?;
    let pool = Pool::new(home, Box::new(Workers { program: loading::program()? }), options);
    let config = Config { address, body_bytes_max: BODY_BYTES_MAX, security };
    let running = server::start(config, pool).map_err(|error| listen::failure(address, &error))?;
    arguments.security.tell(&running, printer);
    interrupt::wait();
    arguments.security.tell_end(printer);
    running.stop().map_err(|error| Failure::new(format!("the server: {error}"), None))
}
