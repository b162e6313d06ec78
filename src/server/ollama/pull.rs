//! `/api/pull`: models from other machines, with their progress.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use nfl_models::Hint;

use super::super::Server;
use super::super::body::Raw;
use super::super::problem::{Kind, Problem};
use super::progress::{self, Teller};
use super::wire::{self, Status};
use super::{model, refuse, replaced};
use crate::hub::{Choice, DownloadError, Hub, HubError, Meter, PullError};
use crate::settings;
use crate::store::{Catalogue, Digest, Manifest, Reference, Wanted};

/// How often the client hears how far a file is.
const LOOK: Duration = Duration::from_millis(100);

/// Fetches a model.
pub(super) async fn pull(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let request: wire::Named = match raw.parse() {
        Ok(request) => request,
        Err(problem) => return refuse::answer(&problem),
    };
    let text = model::named(request.model, request.name).unwrap_or_default();
    let name = match model::valid(&text) {
        Ok(name) => name,
        Err(problem) => return refuse::answer(&problem),
    };
    let insecure = request.insecure.unwrap_or(false);
    progress::told(request.stream, move |teller| {
        fetch(&server, &name, insecure, teller)?;
        teller.say("success")
    })
    .await
}

/// Fetches a model into the store, telling of it up to the manifest.
pub(super) fn fetch(
    server: &Server,
    name: &Reference,
    insecure: bool,
    teller: &Teller,
) -> Result<Manifest, Problem> {
    teller.say("pulling manifest")?;
    let store = server.pool.store()?;
    let hub = Hub::new(settings::offline()).map_err(|error| hub_problem(&error))?;
    let catalogue = Catalogue::read(store.home())?;
    let choice = Choice { insecure, ..Choice::default() };
    let wanted = Wanted::Name(name.clone());
    let plan =
        hub.plan_wanted(&wanted, Some(&catalogue), &choice).map_err(|error| hub_problem(&error))?;
    if plan.is_checkpoint {
        return Err(Problem::invalid("it is a checkpoint; nfl pull --convert makes a model of it"));
    }
    let before = store.read(&plan.name).unwrap_or_default();
    let meters = plan.meters();
    let digests: Vec<Option<Digest>> = plan.items.iter().map(|item| item.digest).collect();
    let pulled = watch("pulling", &digests, &meters, teller, || {
        hub.pull(&plan, &store, &meters).map_err(problem)
    })?;
    teller.say("verifying sha256 digest")?;
    teller.say("writing manifest")?;
    if before.as_ref().is_some_and(|before| before.digest() != pulled.digest()) {
        teller.say("removing unused layers")?;
        replaced::free(server, &store, &plan.name, before.as_ref())?;
    }
    Ok(pulled)
}

/// Does `work` on a thread of its own and tells what its gauges show; stops it when nobody listens any more.
pub(super) fn watch<T: Send>(
    verb: &str,
    digests: &[Option<Digest>],
    meters: &[Arc<Meter>],
    teller: &Teller,
    work: impl FnOnce() -> Result<T, Problem> + Send,
) -> Result<T, Problem> {
    thread::scope(|scope| {
        let worker = scope.spawn(work);
        let mut told = HashMap::new();
        let mut heard = Ok(());
        while !worker.is_finished() {
            thread::park_timeout(LOOK);
            heard = heard.and_then(|()| show(verb, digests, meters, &mut told, teller));
            if heard.is_err() || teller.is_alone() {
                for meter in meters {
                    meter.stop();
                }
            }
        }
        let failed = |_| Err(Problem::new(Kind::Internal, "a thread failed"));
        let result = worker.join().unwrap_or_else(failed)?;
        show(verb, digests, meters, &mut told, teller)?;
        Ok(result)
    })
}

/// Tells of the files that moved.
fn show(
    verb: &str,
    digests: &[Option<Digest>],
    meters: &[Arc<Meter>],
    told: &mut HashMap<usize, u64>,
    teller: &Teller,
) -> Result<(), Problem> {
    for (index, (digest, meter)) in digests.iter().zip(meters).enumerate() {
        let (total, done) = (meter.total(), meter.done());
        // A file is announced when it is its turn.
        let is_here = total > 0 && (done > 0 || meter.lanes() > 0);
        if !is_here || told.get(&index) == Some(&done) {
            continue;
        }
        let short = digest.map_or_else(|| "file".to_owned(), |digest| digest.short());
        teller.tell(Status {
            words: format!("{verb} {short}"),
            digest: digest.map(|digest| digest.to_string()),
            total,
            completed: done,
        })?;
        told.insert(index, done);
    }
    Ok(())
}

/// What went wrong on the way, with Ollama's words for a model that is not there.
pub(super) fn problem(error: PullError) -> Problem {
    match error {
        PullError::Store(error) => error.into(),
        PullError::Download(error) => download_problem(error),
    }
}

pub(super) fn download_problem(error: DownloadError) -> Problem {
    match error {
        DownloadError::Hub(error) => hub_problem(&error),
        DownloadError::Stopped => Problem::new(Kind::Cancelled, "cancelled"),
        error => Problem { hint: error.hint(), ..Problem::new(Kind::Internal, error.to_string()) },
    }
}

pub(super) fn hub_problem(error: &HubError) -> Problem {
    let words = match error {
        HubError::Status { status: 404, .. } | HubError::Repository { .. } => {
            "pull model manifest: file does not exist".to_owned()
        }
        _ => error.to_string(),
    };
    let kind = match error {
        HubError::Name { .. } | HubError::Insecure { .. } | HubError::Offline { .. } => {
            Kind::Invalid
        }
        _ => Kind::Internal,
    };
    Problem { hint: error.hint(), ..Problem::new(kind, words) }
}
