//! Carrying out a plan: every file into the store, then the manifest; nothing is a model before all of it is here.

use std::path::Path;
use std::sync::Arc;

use nfl_models::Hint;

use super::download::{self, Claim, DownloadError, Fetched, Meter, Wanted};
use super::error::HubError;
use super::plan::{Item, Plan};
use super::{Hub, key_of};
use crate::store::{Digest, Layer, Manifest, Store, StoreError};

/// Why a model did not come.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The network, the server, or the content.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<HubError> for PullError {
    fn from(error: HubError) -> Self {
        Self::Download(error.into())
    }
}

impl Hint for PullError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Download(error) => error.hint(),
            Self::Store(error) => error.hint(),
        }
    }
}

impl Plan {
    /// Gauges for its files, in their order.
    pub fn meters(&self) -> Vec<Arc<Meter>> {
        let meter = |item: &Item| {
            let meter = Meter::default();
            meter.set_total(item.bytes.unwrap_or(0));
            Arc::new(meter)
        };
        self.items.iter().map(meter).collect()
    }

    /// Bytes that `store` does not have yet, as far as sizes are known.
    pub fn missing_bytes(&self, store: &Store) -> u64 {
        let is_missing = |item: &&Item| !item.is_in(store);
        self.items.iter().filter(is_missing).filter_map(|item| item.bytes).sum()
    }
}

impl Item {
    /// Whether the content is in the store.
    pub fn is_in(&self, store: &Store) -> bool {
        let known = self.digest.zip(self.bytes);
        known.is_some_and(|(digest, bytes)| store.has(&digest, bytes))
    }

    fn wanted(&self) -> Wanted {
        let (route, access) = (self.route.clone(), self.access.clone());
        Wanted { route, access, bytes: self.bytes, digest: self.digest }
    }
}

impl Hub {
    /// Fetches what a plan says into `store` and writes the manifest. `meters` are those of the plan.
    ///
    /// # Errors
    /// Whatever the network, the servers or the disk did, or that what came is no model.
    pub fn pull(
        &self,
        plan: &Plan,
        store: &Store,
        meters: &[Arc<Meter>],
    ) -> Result<Manifest, PullError> {
        let mut layers = Vec::new();
        for (item, meter) in plan.items.iter().zip(meters) {
            let (digest, bytes) = self.runtime.block_on(self.bring(item, store, meter))?;
            let base = |path: &String| path.rsplit('/').next().unwrap_or(path).to_owned();
            layers.push(Layer {
                media_type: item.media_type.clone(),
                file_name: item.file_name.as_ref().map(base),
                ..Layer::new(item.kind, digest, bytes)
            });
        }
        let mut manifest = Manifest::new(plan.name.clone(), plan.source.clone(), layers);
        manifest.facts = store.facts(&manifest)?;
        store.write(&manifest)?;
        Ok(manifest)
    }

    async fn bring(
        &self,
        item: &Item,
        store: &Store,
        meter: &Arc<Meter>,
    ) -> Result<(Digest, u64), PullError> {
        let here =
            || item.digest.zip(item.bytes).filter(|(digest, bytes)| store.has(digest, *bytes));
        let come = |bytes| {
            meter.set_total(bytes);
            meter.set_kept(bytes);
        };
        if let Some((digest, bytes)) = here() {
            come(bytes);
            return Ok((digest, bytes));
        }
        let key = key_of(item.digest, &item.route.url);
        let claim = Claim::take(&store.partial_folder(), &key, meter).await;
        let claim = claim.map_err(DownloadError::Write)?.ok_or(DownloadError::Stopped)?;
        // Somebody else may have brought it while this process waited.
        if let Some((digest, bytes)) = here() {
            come(bytes);
            claim.finish().map_err(DownloadError::Write)?;
            return Ok((digest, bytes));
        }
        let Fetched { path, digest, bytes } =
            download::fetch(&self.network, &item.wanted(), &claim, &self.limits, meter).await?;
        store.adopt_grown(&path, &digest, bytes)?;
        claim.finish().map_err(DownloadError::Write)?;
        Ok((digest, bytes))
    }

    /// Fetches the files of a checkpoint into `folder`, under their own names; unfinished ones wait in `partial`.
    ///
    /// # Errors
    /// Whatever the network, the servers or the disk did.
    pub fn pull_checkpoint(
        &self,
        plan: &Plan,
        folder: &Path,
        partial: &Path,
        meters: &[Arc<Meter>],
    ) -> Result<(), PullError> {
        std::fs::create_dir_all(folder).map_err(DownloadError::Write)?;
        for (item, meter) in plan.items.iter().zip(meters) {
            let Some(name) = &item.file_name else { continue };
            let target = folder.join(name);
            // Complete files appear by renaming, so one of the right size is complete.
            let is_there = |bytes| target.metadata().is_ok_and(|found| found.len() == bytes);
            if item.bytes.is_some_and(is_there) {
                meter.set_kept(item.bytes.unwrap_or(0));
                continue;
            }
            let wanted = item.wanted();
            self.fetch_to(&wanted, partial, &target, meter)?;
        }
        Ok(())
    }
}
