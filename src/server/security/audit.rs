//! The audit: who changed what on this server, when, and how it ended. No texts, no keys.
//!
//! One thread writes, so that requests never wait for the disk. An action is there from its beginning, and without an end
//! when the server died before it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nfl_models::template::Clock;
use rusqlite::{Connection, Row, params};

/// Actions that are kept; the oldest go when a server starts.
const ACTIONS_MAX: i64 = 100_000;

/// How long another process may hold the file.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// Times in UTC (RFC 3339). `outcome` is null while an action goes on.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS actions (
    id INTEGER PRIMARY KEY,
    began TEXT NOT NULL,
    ended TEXT,
    who TEXT NOT NULL,
    address TEXT,
    action TEXT NOT NULL,
    target TEXT,
    outcome TEXT,
    request TEXT
) STRICT";

/// An action that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Action {
    /// When it began (RFC 3339).
    pub began: String,
    /// When it ended; None while it goes on.
    pub ended: Option<String>,
    /// The name of the key, or `anyone` where none was asked for, or `nfl` for the command line.
    pub who: String,
    /// The network address that it came from.
    pub address: Option<String>,
    /// What was done: `POST /api/pull`, `keys add`.
    pub action: String,
    /// The model, or the key.
    pub target: Option<String>,
    /// How it ended: a status, `left` when the client went away, `failed` after it had begun to answer.
    pub outcome: Option<String>,
    /// The identity of the request, as in the log.
    pub request: Option<String>,
}

impl Action {
    /// An action that begins now.
    pub fn new(who: impl Into<String>, action: impl Into<String>) -> Self {
        let began = Clock::now_utc().rfc3339();
        Self { began, who: who.into(), action: action.into(), ..Self::default() }
    }
}

fn path(home: &Path) -> PathBuf {
    home.join("audit.db")
}

fn open(home: &Path) -> rusqlite::Result<Connection> {
    let path = path(home);
    // SQLite would make it readable for all; the files that it puts beside get this one's permissions.
    let made = fs::create_dir_all(home).and_then(|()| private(&path));
    made.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let connection = Connection::open(&path)?;
    connection.busy_timeout(BUSY_TIME)?;
    connection.execute_batch(TABLE)?;
    Ok(connection)
}

fn private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

/// Records an action that is over.
pub fn record(home: &Path, action: &Action) -> rusqlite::Result<()> {
    let connection = open(home)?;
    let id = begin(&connection, action)?;
    end(&connection, id, action)
}

/// The last actions, the last one first.
pub fn last(home: &Path, count: u32) -> rusqlite::Result<Vec<Action>> {
    let connection = open(home)?;
    let mut statement = connection.prepare(
        "SELECT began, ended, who, address, action, target, outcome, request
         FROM actions ORDER BY id DESC LIMIT ?1",
    )?;
    statement.query_map([count], of_row)?.collect()
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<Action> {
    Ok(Action {
        began: row.get(0)?,
        ended: row.get(1)?,
        who: row.get(2)?,
        address: row.get(3)?,
        action: row.get(4)?,
        target: row.get(5)?,
        outcome: row.get(6)?,
        request: row.get(7)?,
    })
}

fn begin(connection: &Connection, action: &Action) -> rusqlite::Result<i64> {
    connection.execute(
        "INSERT INTO actions (began, who, address, action, target, request) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            action.began,
            action.who,
            action.address,
            action.action,
            action.target,
            action.request
        ],
    )?;
    Ok(connection.last_insert_rowid())
}

fn end(connection: &Connection, id: i64, action: &Action) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE actions SET ended = ?2, target = ?3, outcome = ?4 WHERE id = ?1",
        params![id, Clock::now_utc().rfc3339(), action.target, action.outcome],
    )?;
    Ok(())
}

/// What the writing thread is told.
enum Message {
    Begin(u64, Action),
    End(u64, Action),
}

/// A server's audit. Dropping it writes what is on its way.
#[derive(Debug)]
pub(super) struct Audit {
    sender: Option<Sender<Message>>,
    writer: Option<JoinHandle<()>>,
}

impl Audit {
    /// Opens the audit of a home folder; `on_error` hears what could not be written.
    pub(super) fn start(
        home: &Path,
        on_error: impl Fn(&rusqlite::Error) + Send + 'static,
    ) -> rusqlite::Result<Self> {
        let connection = open(home)?;
        connection.execute(
            "DELETE FROM actions WHERE id <= (SELECT max(id) FROM actions) - ?1",
            [ACTIONS_MAX],
        )?;
        let (sender, receiver) = mpsc::channel();
        let write = move || write(&connection, &receiver, &on_error);
        let writer = thread::Builder::new().name("nfl-audit".to_owned()).spawn(write);
        Ok(Self { sender: Some(sender), writer: writer.ok() })
    }

    /// An action begins; `serial` tells it from others.
    pub(super) fn begin(&self, serial: u64, action: Action) {
        self.send(Message::Begin(serial, action));
    }

    /// It ended so.
    pub(super) fn end(&self, serial: u64, action: Action) {
        self.send(Message::End(serial, action));
    }

    fn send(&self, message: Message) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(message);
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(
    connection: &Connection,
    messages: &Receiver<Message>,
    on_error: &impl Fn(&rusqlite::Error),
) {
    let mut open = std::collections::HashMap::new();
    for message in messages {
        let outcome = match message {
            Message::Begin(serial, action) => begin(connection, &action).map(|id| {
                open.insert(serial, id);
            }),
            Message::End(serial, action) => match open.remove(&serial) {
                Some(id) => end(connection, id, &action),
                None => Ok(()),
            },
        };
        if let Err(error) = outcome {
            on_error(&error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_there_from_their_beginning_and_private() {
        let home = tempfile::tempdir().unwrap();
        let audit = Audit::start(home.path(), |error| panic!("{error}")).unwrap();
        let mut first = Action::new("laptop", "POST /api/pull");
        first.request = Some("r1".to_owned());
        audit.begin(1, first.clone());
        audit.begin(2, Action::new("anyone", "DELETE /api/delete"));
        first.target = Some("a/b".to_owned());
        first.outcome = Some("200".to_owned());
        audit.end(1, first.clone());
        drop(audit);
        let actions = last(home.path(), 10).unwrap();
        assert_eq!(actions.len(), 2);
        assert_eq!((actions[0].who.as_str(), &actions[0].ended), ("anyone", &None));
        assert!(actions[1].ended.is_some());
        first.ended = actions[1].ended.clone();
        assert_eq!(actions[1], first);
        assert_eq!(last(home.path(), 1).unwrap().len(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path(home.path())).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
