//! Who may ask a server: the flags of `nfl serve` about it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::failure::Failure;
use crate::server::{KeyRule, Keyring, Running, Security, Tls};
use crate::settings;
use crate::term::Printer;
use crate::term::log::{Form, Level, Log};

#[derive(Debug, Args)]
#[command(next_help_heading = "Security")]
pub(super) struct SecurityArguments {
    /// Let the server be asked by this name too, as by one that a proxy or a local network gives it: a name, *.DOMAIN, an
    /// address, or * (also NFL_HOSTS, divided by commas).
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Let pages of this origin ask too; each * stands for anything, as in http://10.0.0.5:* (also NFL_ORIGINS and
    /// OLLAMA_ORIGINS, divided by commas). Pages of this machine always may.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Ask nobody for a key. Without this, a server that other machines reach needs one, and every server asks for one as
    /// soon as nfl keys has made some.
    #[arg(long)]
    no_keys: bool,
    /// Requests a minute for each key, or for each address where there are no keys.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Speak TLS with this certificate (PEM, with those that vouch for it).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How requests are logged on stderr; never with texts of conversations or keys.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// The least important events that are logged.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LogLevel,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl SecurityArguments {
    /// What they come to for a server that listens at an address.
    ///
    /// # Errors
    /// When other machines would reach it and nobody made a key, nor said that it needs none.
    pub(super) fn read(
        &self,
        address: IpAddr,
        home: &Path,
        printer: &Printer,
    ) -> Result<Security, Failure> {
        let keys = self.rule(address, home, printer)?;
        let certificate = self.tls_cert.clone().zip(self.tls_key.clone());
        Ok(Security {
            hosts: with(&self.allow_host, settings::allowed_hosts()),
            origins: with(&self.allow_origin, settings::allowed_origins()),
            keys,
            requests_per_minute: self.rate,
            tls: certificate.map(|(certificate, key)| Tls { certificate, key }),
            log: self.log(printer),
            ..Security::default()
        })
    }

    /// Tells where the server listens; a log in JSON has no line that is none.
    pub(super) fn tell(&self, running: &Running, printer: &Printer) {
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", running.address());
        match self.log_format {
            LogFormat::Text => printer.say(&format!("listening on {address}")),
            LogFormat::Json => {
                self.log(printer).event(Level::Info, "listening", &[("address", address.into())]);
            }
        }
    }

    /// Tells that the server ends, and what can be done about its taking time.
    pub(super) fn tell_end(&self, printer: &Printer) {
        match self.log_format {
            LogFormat::Text => {
                printer.say("ending when replies are over; Ctrl-C again ends at once");
            }
            LogFormat::Json => self.log(printer).event(Level::Info, "ending", &[]),
        }
    }

    fn rule(&self, address: IpAddr, home: &Path, printer: &Printer) -> Result<KeyRule, Failure> {
        let keyring = Keyring::new(home);
        let is_local = address.is_loopback();
        if self.no_keys {
            if !is_local {
                printer.warn(&format!("everybody who reaches {address} may use and change models"));
            } else if !keyring.keys()?.is_empty() {
                printer.warn("the keys that were made do not count");
            }
            return Ok(KeyRule::Never);
        }
        if is_local {
            return Ok(KeyRule::WhenMade);
        }
        if keyring.keys()?.is_empty() {
            return Err(Failure::new(
                format!("other machines reach {address}, and there is no key"),
                Some("make one: nfl keys add NAME --scope infer; or let everybody in: --no-keys"),
            ));
        }
        if self.tls_cert.is_none() {
            let advice = "use --tls-cert and --tls-key, or a proxy that speaks TLS";
            printer.warn(&format!("keys and texts cross the network in the clear; {advice}"));
        }
        Ok(KeyRule::Always)
    }

    fn log(&self, printer: &Printer) -> Log {
        let form = match self.log_format {
            LogFormat::Text => Form::Text,
            LogFormat::Json => Form::Json,
        };
        let level = match self.log_level {
            LogLevel::Error => Level::Error,
            LogLevel::Warn => Level::Warn,
            LogLevel::Info => Level::Info,
            LogLevel::Debug => Level::Debug,
        };
        let level = if printer.quiet() { level.min(Level::Warn) } else { level };
        Log { form, level }
    }
}

fn with(given: &[String], mut others: Vec<String>) -> Vec<String> {
    others.extend_from_slice(given);
    others
}
