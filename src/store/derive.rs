//! Models made from others: what stays of the base, what a Modelfile sets anew, and the Modelfile that tells all of it.

use nfl_models::gguf::Gguf;

use super::Store;
use super::error::StoreError;
use super::manifest::{Kind, Layer, Manifest, Origin, Source};
use super::modelfile::Modelfile;
use super::parameters::Parameters;
use super::reference::Reference;
use super::resolve::{Resolved, TEXT_BYTES_MAX};

impl Kind {
    /// What a GGUF file is to a model: weights, a projector or an adapter.
    pub fn of_gguf(gguf: &Gguf) -> Self {
        let metadata = gguf.metadata();
        match (metadata.architecture(), metadata.text("general.type")) {
            (Some("clip"), _) | (_, Some("mmproj")) => Self::Projector,
            (_, Some("adapter")) => Self::Adapter,
            _ => Self::Model,
        }
    }
}

impl Resolved {
    /// The Modelfile that makes the model from its files.
    pub fn modelfile(&self) -> Modelfile {
        let path = |path: &std::path::Path| path.display().to_string();
        let mut modelfile = Modelfile {
            from: vec![path(&self.model)],
            adapters: self.adapters.iter().map(|adapter| path(adapter)).collect(),
            parameters: self.parameters.clone(),
            template: self.template.clone(),
            system: self.system.clone(),
            messages: self.messages.clone(),
            ..Modelfile::default()
        };
        modelfile.from.extend(self.projector.as_deref().map(path));
        if let Some(manifest) = &self.manifest {
            modelfile.requires.clone_from(&manifest.requires);
            modelfile.renderer.clone_from(&manifest.renderer);
            modelfile.parser.clone_from(&manifest.parser);
        }
        modelfile
    }
}

impl Store {
    /// A model called `name` of `layers`, and of what `base` has that neither they nor the Modelfile set anew. Its texts
    /// are stored, its manifest is not written.
    pub fn derive(
        &self,
        name: Reference,
        base: Option<Manifest>,
        layers: Vec<Layer>,
        modelfile: &Modelfile,
    ) -> Result<Manifest, StoreError> {
        let source = Source::new(Origin::Created, modelfile.from.join(", "));
        let mut manifest = Manifest::new(name, source, layers);
        if let Some(base) = base {
            manifest = inherit(base, manifest, modelfile);
        }
        self.put_texts(&mut manifest, modelfile)?;
        manifest.facts = self.facts(&manifest)?;
        Ok(manifest)
    }

    /// The Modelfile that makes a model from its files, with the texts of its licences.
    pub fn modelfile(&self, resolved: &Resolved) -> Result<Modelfile, StoreError> {
        let mut modelfile = resolved.modelfile();
        if let Some(manifest) = &resolved.manifest {
            modelfile.licences = self.licences(manifest)?;
        }
        Ok(modelfile)
    }

    /// The texts of a model's licences.
    pub fn licences(&self, manifest: &Manifest) -> Result<Vec<String>, StoreError> {
        manifest.layers_of(Kind::Licence).map(|layer| self.text(layer, TEXT_BYTES_MAX)).collect()
    }

    /// The layers that are texts. Parameters that the base has and the Modelfile does not set stay.
    fn put_texts(&self, manifest: &mut Manifest, modelfile: &Modelfile) -> Result<(), StoreError> {
        let mut add = |kind, text: &str| {
            manifest.layers.push(self.put(kind, text.as_bytes())?);
            Ok::<(), StoreError>(())
        };
        if let Some(text) = modelfile.template.as_ref().filter(|text| !text.is_empty()) {
            add(Kind::Template, text)?;
        }
        if let Some(text) = modelfile.system.as_ref().filter(|text| !text.is_empty()) {
            add(Kind::System, text)?;
        }
        for text in &modelfile.licences {
            add(Kind::Licence, text)?;
        }
        if !modelfile.messages.is_empty() {
            add(Kind::Messages, &Modelfile::messages_json(&modelfile.messages))?;
        }
        if !modelfile.parameters.is_empty() {
            let old = manifest.layers.iter().position(|layer| layer.kind == Kind::Parameters);
            let base = match old.map(|place| manifest.layers.remove(place)) {
                Some(layer) => {
                    Parameters::from_json(&self.text(&layer, TEXT_BYTES_MAX)?).unwrap_or_default()
                }
                None => Parameters::default(),
            };
            let together = modelfile.parameters.clone().over(&base);
            manifest.layers.push(self.put(Kind::Parameters, together.json().as_bytes())?);
        }
        for (place, value) in [
            (&mut manifest.requires, &modelfile.requires),
            (&mut manifest.renderer, &modelfile.renderer),
            (&mut manifest.parser, &modelfile.parser),
        ] {
            if value.is_some() {
                place.clone_from(value);
            }
        }
        Ok(())
    }
}

/// The base's layers, without those that are set anew.
fn inherit(base: Manifest, new: Manifest, modelfile: &Modelfile) -> Manifest {
    let is_replaced = |kind: Kind| match kind {
        Kind::Template => modelfile.template.is_some(),
        Kind::System => modelfile.system.is_some(),
        Kind::Messages => !modelfile.messages.is_empty(),
        Kind::Licence => !modelfile.licences.is_empty(),
        Kind::Adapter => !modelfile.adapters.is_empty() || new.layers_of(kind).next().is_some(),
        kind => new.layers_of(kind).next().is_some(),
    };
    let source = Source { revision: base.source.revision.clone(), ..new.source.clone() };
    let mut layers: Vec<Layer> =
        base.layers.into_iter().filter(|layer| !is_replaced(layer.kind)).collect();
    layers.extend(new.layers.iter().cloned());
    Manifest {
        layers,
        source,
        requires: base.requires,
        renderer: base.renderer,
        parser: base.parser,
        ..new
    }
}
