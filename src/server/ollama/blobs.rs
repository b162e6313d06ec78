//! `/api/blobs/:digest`: files for `/api/create`, written to the disk and hashed as they come.

use std::io::Write;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::super::problem::{Kind, Problem};
use super::super::{Server, reply};
use super::refuse;
use crate::store::{Digest, Store, StoreError};

/// Pieces of a file that wait for the disk; then the client waits.
const PIECES_WAITING_MAX: usize = 16;

/// Whether a file is here.
pub(super) async fn has(State(server): State<Arc<Server>>, Path(digest): Path<String>) -> Response {
    let found = match read(&digest) {
        Ok(found) => {
            reply::blocking(move || Ok(server.pool.store()?.blob_path(&found).is_file())).await
        }
        Err(problem) => Err(problem),
    };
    refuse::or(found.and_then(|is_here| {
        let missing = || Problem::new(Kind::NotFound, format!("blob {digest:?} not found"));
        is_here.then(|| StatusCode::OK.into_response()).ok_or_else(missing)
    }))
}

/// Takes a file in.
pub(super) async fn put(
    State(server): State<Arc<Server>>,
    Path(digest): Path<String>,
    body: Body,
) -> Response {
    refuse::or(take(server, &digest, body).await.map(IntoResponse::into_response))
}

/// The digest of an address, whose separator may be that of file names.
pub(super) fn read(text: &str) -> Result<Digest, Problem> {
    let hex = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-"));
    let digest = hex.and_then(|hex| Digest::from_hex(&hex.to_ascii_lowercase()));
    digest.ok_or_else(|| Problem::invalid("invalid digest format"))
}

async fn take(server: Arc<Server>, digest: &str, body: Body) -> Result<StatusCode, Problem> {
    let wanted = read(digest)?;
    let store = reply::blocking(move || Ok(server.pool.store()?)).await?;
    if store.blob_path(&wanted).is_file() {
        return Ok(StatusCode::OK);
    }
    let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let writing = tokio::spawn(reply::blocking(move || write(&store, &wanted, pieces)));
    let mut chunks = body.into_data_stream();
    let mut came = Ok(());
    while let Some(chunk) = chunks.next().await {
        let piece = match chunk {
            Ok(bytes) => Piece::Bytes(bytes),
            Err(error) => {
                came = Err(Problem::invalid(format!("the body ends early: {error}")));
                break;
            }
        };
        // The disk refuses: its own words follow.
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    if came.is_ok() {
        let _ = sender.send(Piece::End).await;
    }
    drop(sender);
    let written = writing.await.unwrap_or_else(|error| {
        Err(Problem::new(Kind::Internal, format!("a thread failed: {error}")))
    });
    came.and(written)
}

/// What comes of a file. Without an end it was cut, and is forgotten.
enum Piece {
    Bytes(Bytes),
    End,
}

fn write(
    store: &Store,
    wanted: &Digest,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<StatusCode, Problem> {
    let mut file = store.arriving()?;
    let (mut state, mut length) = (Sha256::new(), 0);
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Bytes(bytes)) => {
                state.update(&bytes);
                length += bytes.len() as u64;
                file.write_all(&bytes).map_err(|source| StoreError::Io {
                    action: "cannot write",
                    path: file.path().to_owned(),
                    source,
                })?;
            }
            Some(Piece::End) => break,
            None => return Err(Problem::new(Kind::Cancelled, "the body ends early")),
        }
    }
    let found = Digest::from_bytes(state.finalize().into());
    if found != *wanted {
        let (wanted, found) = (wanted.to_string(), found.to_string());
        let words = format!("digest mismatch, expected {wanted:?}, got {found:?}");
        return Err(Problem::invalid(words));
    }
    store.adopt(&file.into_temp_path(), wanted, length)?;
    Ok(StatusCode::CREATED)
}
