//! A layer of experts in this process's memory: which pages are whose.

use super::layout::{Extent, LayerLayout, Part};
use super::predict::Router;
use crate::engine::llama::{Overlay, Span, TensorView, page_bytes};

/// A layer as the computation shows it.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) block: u32,
    pub(super) first: usize,
    pub(super) experts: usize,
    pub(super) parts: Vec<LayerPart>,
    pub(super) router: Option<Router>,
    /// Nothing of it is read by us: its weights are not where the file is mapped.
    pub(super) is_foreign: bool,
}

#[derive(Debug)]
pub(super) struct LayerPart {
    pub(super) address: usize,
    pub(super) slice_bytes: usize,
    /// The node that comes right before the product with these weights: the last moment to wait.
    pub(super) before: Option<String>,
}

impl Layer {
    pub(super) fn new(layout: &LayerLayout, first: usize, overlay: &Overlay) -> Self {
        let parts: Option<Vec<LayerPart>> =
            layout.parts.iter().map(|part| LayerPart::new(part, overlay)).collect();
        let is_foreign = parts.is_none();
        let LayerLayout { block, experts, .. } = *layout;
        let parts = parts.unwrap_or_default();
        Self { block, first, experts, parts, router: None, is_foreign }
    }

    /// Whole pages of one expert's slice of a part.
    pub(super) fn span(&self, expert: usize, part: usize) -> Span {
        let LayerPart { address, slice_bytes, .. } = self.parts[part];
        Span::within(address + expert * slice_bytes, slice_bytes)
    }

    pub(super) fn spans(&self, expert: usize) -> impl Iterator<Item = Span> + '_ {
        (0..self.parts.len()).map(move |part| self.span(expert, part))
    }

    /// The pages that a slice shares with its neighbours.
    pub(super) fn ends(&self, expert: usize) -> impl Iterator<Item = Option<[Span; 2]>> + '_ {
        self.parts.iter().enumerate().map(move |(part, layer_part)| {
            let (inner, slice_bytes) = (self.span(expert, part), layer_part.slice_bytes);
            let outer = Span::around(layer_part.address + expert * slice_bytes, slice_bytes);
            let (start, end) = (inner.address, inner.address + inner.bytes);
            let before = Span { address: outer.address, bytes: start - outer.address };
            let after = Span { address: end, bytes: outer.address + outer.bytes - end };
            (before.bytes + after.bytes > 0).then_some([before, after])
        })
    }
}

impl LayerPart {
    /// None when the slices are not mapped, or too small to hold a page each.
    pub(super) fn new(part: &Part, overlay: &Overlay) -> Option<Self> {
        let address = address(overlay, part.extent)?;
        let slice_bytes = usize::try_from(part.slice_bytes).ok()?;
        let is_large = slice_bytes >= 2 * page_bytes();
        is_large.then_some(Self { address, slice_bytes, before: None })
    }
}

/// Where an extent of a file is mapped.
pub(super) fn address(overlay: &Overlay, extent: Extent) -> Option<usize> {
    let mapping = overlay.mappings().iter().find(|mapping| {
        mapping.file == extent.file
            && mapping.offset <= extent.offset
            && extent.offset + extent.bytes <= mapping.offset + mapping.bytes as u64
    })?;
    Some(mapping.address + (extent.offset - mapping.offset) as usize)
}

/// The product of the router with the hidden state that a choice came from.
pub(super) fn router_product(choice: TensorView<'_>) -> Option<TensorView<'_>> {
    /// Nodes between the router and the choice: softmax, bias, groups, sorting.
    const NODES_MAX: usize = 8;
    let mut node = choice;
    for _ in 0..NODES_MAX {
        if node.is_product() {
            return Some(node);
        }
        node = node.input(0)?;
    }
    None
}
