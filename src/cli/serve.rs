//! `nfl serve`: the models of this machine for every program that speaks to one.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use super::failure::Failure;
use super::loading;
use super::security::SecurityArguments;
use crate::chat::pool::{Pool, PoolOptions, Workers};
use crate::server::{self, Config};
use crate::settings;
use crate::term::{Printer, interrupt};

/// Ollama's port, which clients expect.
const PORT: u16 = 11434;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Serve the models of this machine to local programs.
///
/// Speaks Ollama's, OpenAI's and Anthropic's dialects; models are loaded when they are asked for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to listen on.
    #[arg(long, value_name = "N", default_value_t = PORT)]
    port: u16,
    #[command(flatten)]
    security: SecurityArguments,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let home = settings::home().ok_or_else(|| {
        Failure::new("there is no home folder", Some("set NFL_HOME to a folder of yours"))
    })?;
    let options = PoolOptions::default();
    let pool = Pool::new(home.clone(), Box::new(Workers { program: loading::program()? }), options);
    let address = SocketAddr::new(arguments.host, arguments.port);
    let security = arguments.security.read(address.ip(), &home, printer)?;
    let config = Config { address, body_bytes_max: BODY_BYTES_MAX, security };
    let running = server::start(config, pool)
        .map_err(|error| Failure::new(format!("cannot listen on {address}: {error}"), None))?;
    printer.say(&format!("listening on {}://{}", arguments.security.scheme(), running.address()));
    interrupt::wait();
    printer.say("ending");
    running.stop().map_err(|error| Failure::new(format!("the server: {error}"), None))
}
