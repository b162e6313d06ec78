//! Models that are on this machine already become the store's without a second copy of their weights.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nfl_models::gguf::Gguf;

use super::Store;
use super::digest::Digest;
use super::error::StoreError;
use super::facts::Facts;
use super::files;
use super::manifest::{Kind, Layer, Manifest, Place, Source};
use super::reference::Reference;
use super::resolve::TEXT_BYTES_MAX;

/// How the store gets at a file that lies elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A second file that shares its blocks until one of them is written to (Btrfs, XFS, APFS).
    Reflink,
    /// A second name for the file, on the same file system.
    Hard,
    /// None: the manifest says where the file is, and notices when it changes.
    InPlace,
    /// A copy of the content.
    Copy,
}

impl Link {
    /// What is tried unless the person chooses, in this order; the last always works.
    pub const USUAL: &'static [Self] = &[Self::Reflink, Self::Hard, Self::InPlace];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::Hard => "hard link",
            Self::InPlace => "in place",
            Self::Copy => "copy",
        }
    }
}

/// A model that was found outside the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The name that it would have here.
    pub name: Reference,
    /// Where it is from.
    pub source: Source,
    /// Its files, those of a split model in their order.
    pub pieces: Vec<Piece>,
}

/// One file of a model outside the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// What it is to the model.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    /// Its digest, where its place is called after it.
    pub digest: Option<Digest>,
    /// Its length.
    pub bytes: u64,
    /// How a registry calls its kind.
    pub media_type: Option<String>,
}

impl Found {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).fold(0, u64::saturating_add)
    }
}

impl Piece {
    /// A file as it lies there.
    pub fn new(kind: Kind, path: &Path) -> Result<Self, StoreError> {
        let metadata = fs::metadata(path).map_err(StoreError::io("cannot read", path))?;
        if !metadata.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(StoreError::Io { action: "cannot import", path: path.to_owned(), source });
        }
        let (path, bytes) = (path.to_owned(), metadata.len());
        Ok(Self { kind, path, digest: None, bytes, media_type: None })
    }
}

impl Store {
    /// Makes a model that lies elsewhere one of the store's; its weights are linked by the first of `links` that works, its
    /// texts are copied. `on_bytes` gets the bytes that were hashed and says whether to go on. Returns the manifest and how
    /// the weights were linked; the latter is `None` when all of them were here already.
    pub fn import(
        &self,
        found: &Found,
        links: &[Link],
        on_bytes: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(Manifest, Option<Link>), StoreError> {
        let mut layers = Vec::with_capacity(found.pieces.len());
        let mut linked = None;
        for piece in &found.pieces {
            let is_weights = matches!(piece.kind, Kind::Model | Kind::Projector | Kind::Adapter);
            let (layer, link) = if is_weights {
                self.bring(piece, links, on_bytes)?
            } else {
                (self.put(piece.kind, &text_of(piece)?)?, None)
            };
            linked = linked.or(link);
            layers.push(Layer { media_type: piece.media_type.clone(), ..layer });
        }
        let mut manifest = Manifest::new(found.name.clone(), found.source.clone(), layers);
        manifest.facts = self.facts(&manifest)?;
        self.write(&manifest)?;
        Ok((manifest, linked))
    }

    /// What the files of a model say about it, whose content is here.
    pub fn facts(&self, manifest: &Manifest) -> Result<Facts, StoreError> {
        let resolved = self.resolve_manifest(manifest.clone())?;
        let projector = resolved.projector.as_deref().map(Gguf::open).transpose()?;
        let model = Gguf::open(&resolved.model)?;
        Ok(Facts::of(&model, projector.as_ref(), resolved.template.as_deref()))
    }

    /// Makes a file's content a layer. Returns how it was linked, `None` when the content was here already.
    pub fn bring(
        &self,
        piece: &Piece,
        links: &[Link],
        on_bytes: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(Layer, Option<Link>), StoreError> {
        // Through links, so that what a cache renames does not matter.
        let path =
            fs::canonicalize(&piece.path).map_err(StoreError::io("cannot read", &piece.path))?;
        let place = place_of(&path)?;
        let own = self.own(&path);
        // A name is believed where the content stays behind it, and where the content is here already. What becomes a blob
        // is read: a pull that finds it must not get wrong bytes.
        let is_settled = |digest: &Digest| {
            own.is_some() || links == [Link::InPlace] || self.has(digest, piece.bytes)
        };
        let digest = match own.or(piece.digest) {
            Some(digest) if is_settled(&digest) => digest,
            claimed => {
                let found = hash(&path, on_bytes)?;
                if claimed.is_some_and(|claimed| claimed != found) {
                    let message = "its content is not what it is called after";
                    let source = io::Error::new(io::ErrorKind::InvalidData, message);
                    return Err(StoreError::Io { action: "cannot import", path, source });
                }
                found
            }
        };
        if place_of(&path)? != place {
            let (name, path) = (path.display().to_string(), path);
            return Err(StoreError::Changed { name, path, how: "was changed" });
        }
        let file_name = piece.path.file_name().filter(|_| own.is_none());
        let file_name = file_name.map(|name| name.to_string_lossy().into_owned());
        let mut layer = Layer { file_name, ..Layer::new(piece.kind, digest, piece.bytes) };
        if self.has(&digest, piece.bytes) {
            return Ok((layer, None));
        }
        let mut problem = None;
        for &link in links {
            let done = match link {
                Link::InPlace => {
                    layer.place = Some(place.clone());
                    Ok(())
                }
                Link::Hard => self.link_hard(&path, &layer),
                Link::Reflink => {
                    self.take_copy(&path, &layer, |target| reflink_copy::reflink(&path, target))
                }
                Link::Copy => {
                    self.take_copy(&path, &layer, |target| fs::copy(&path, target).map(drop))
                }
            };
            match done {
                Ok(()) => return Ok((layer, Some(link))),
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.unwrap_or_else(|| {
            let source =
                io::Error::new(io::ErrorKind::InvalidInput, "no way to link it is allowed");
            StoreError::Io { action: "cannot import", path, source }
        }))
    }

    /// The digest of a blob of this store, which need not be read again.
    fn own(&self, path: &Path) -> Option<Digest> {
        let blobs = fs::canonicalize(self.blobs_folder()).ok()?;
        let name = path.strip_prefix(blobs).ok()?.to_str()?;
        Digest::from_file_name(name)
    }

    fn link_hard(&self, file: &Path, layer: &Layer) -> Result<(), StoreError> {
        files::make_folder(&self.blobs_folder())?;
        let path = self.blob_path(&layer.digest);
        let _lock = self.lock()?;
        // Another process may have brought it since it was asked for.
        if self.has(&layer.digest, layer.bytes) {
            return Ok(());
        }
        fs::hard_link(file, &path).map_err(StoreError::io("cannot link", &path))?;
        files::sync_folder(&self.blobs_folder())?;
        self.hold(&layer.digest)?;
        Ok(())
    }

    /// Adopts what `copy` makes of a file at the path that it is given.
    fn take_copy(
        &self,
        file: &Path,
        layer: &Layer,
        copy: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let folder = self.blobs_folder();
        files::make_folder(&folder)?;
        let target = files::temporary(&folder)?.into_temp_path();
        // A reflink wants to make the file itself.
        files::remove(&target)?;
        copy(&target).map_err(StoreError::io("cannot copy", file))?;
        self.adopt(&target, &layer.digest, layer.bytes)?;
        Ok(())
    }
}

fn place_of(path: &Path) -> Result<Place, StoreError> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified = modified.map_err(StoreError::io("cannot read", path))?;
    Ok(Place { path: path.to_owned(), modified_ns: Place::nanoseconds(modified) })
}

fn hash(path: &Path, on_bytes: &mut dyn FnMut(u64) -> bool) -> Result<Digest, StoreError> {
    let read = File::open(path).and_then(|file| Digest::read(file, on_bytes));
    match read {
        Ok((digest, _)) => Ok(digest),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(StoreError::Interrupted),
        Err(error) => Err(StoreError::io("cannot read", path)(error)),
    }
}

fn text_of(piece: &Piece) -> Result<Vec<u8>, StoreError> {
    let failed =
        |source| StoreError::Io { action: "cannot read", path: piece.path.clone(), source };
    let mut text = Vec::new();
    let file = File::open(&piece.path).map_err(failed)?;
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(failed(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is too long for a text",
        )));
    }
    let fits = piece.digest.is_none_or(|digest| digest == Digest::of(&text));
    if !fits {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "its digest is another")));
    }
    Ok(text)
}
