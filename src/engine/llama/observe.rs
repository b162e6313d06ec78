//! Watching a computation: every tensor of the graph passes by an observer that may read it.

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;

use llama_cpp_sys_2 as sys;
use nfl_models::TensorType;

use super::ggml::decode_blocks;
use super::text;

/// Inputs of one tensor, as ggml has room for.
const INPUTS_MAX: usize = 10;

/// Sees tensors as they are computed. Names must be compared whole: "ffn_moe_topk-0 (reshaped)"
/// exists beside "ffn_moe_topk-0".
pub trait Observer: Send {
    /// Whether to read this tensor once it is computed. The fewer, the less the computation waits.
    fn wants(&mut self, tensor: &TensorView<'_>) -> bool;

    /// Reads it; returns whether the computation goes on.
    fn observe(&mut self, tensor: &TensorView<'_>) -> bool;

    /// This observer as what it is, to take results out.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

/// A tensor of the graph, alive during a call of [`Observer`].
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    tensor: *const sys::ggml_tensor,
    alive: PhantomData<&'a ()>,
}

impl<'a> TensorView<'a> {
    fn get(&self) -> &'a sys::ggml_tensor {
        // SAFETY: views are made of live tensors only and do not outlive the call that they were
        // made for.
        unsafe { &*self.tensor }
    }

    /// Its name, such as "ffn_moe_topk-3".
    pub fn name(&self) -> &'a str {
        // SAFETY: the name is zero-terminated within the tensor.
        unsafe { CStr::from_ptr(self.get().name.as_ptr()) }.to_str().unwrap_or("")
    }

    /// The operation that makes it, such as "MUL_MAT_ID".
    pub fn operation(&self) -> String {
        // SAFETY: the tensor is alive.
        text(unsafe { sys::ggml_op_desc(self.tensor) })
    }

    /// Whether it multiplies with the matrices of the experts that its third input names.
    pub fn is_expert_product(&self) -> bool {
        self.get().op == sys::GGML_OP_MUL_MAT_ID
    }

    /// Whether it is a plain product of two matrices.
    pub fn is_product(&self) -> bool {
        self.get().op == sys::GGML_OP_MUL_MAT
    }

    /// Where its numbers are in this process, when they are in memory that the CPU reads.
    pub fn address(&self) -> Option<usize> {
        let tensor = self.get();
        if tensor.buffer.is_null() || tensor.data.is_null() {
            return None;
        }
        // SAFETY: the buffer belongs to a live tensor.
        let is_host = unsafe { sys::ggml_backend_buffer_is_host(tensor.buffer) };
        is_host.then_some(tensor.data as usize)
    }

    /// Bytes from one element to the next along each dimension.
    pub fn strides(&self) -> [usize; 4] {
        self.get().nb
    }

    /// Its dimensions in ggml's order: the row length first.
    pub fn dimensions(&self) -> [u64; 4] {
        self.get().ne.map(|extent| u64::try_from(extent).unwrap_or(0))
    }

    /// The type of its numbers.
    pub fn tensor_type(&self) -> Option<TensorType> {
        TensorType::from_id(self.get().type_)
    }

    /// One of the tensors it is made of.
    pub fn input(&self, index: usize) -> Option<TensorView<'a>> {
        let pointer = *self.get().src.get(index.min(INPUTS_MAX))?;
        (!pointer.is_null()).then_some(TensorView { tensor: pointer, alive: PhantomData })
    }

    /// Its values, row after row. None for a type that cannot be decoded or a tensor without data.
    pub fn values(&self) -> Option<Vec<f32>> {
        let kind = self.tensor_type()?;
        let row = self.dimensions()[0];
        if kind == TensorType::I32 {
            return Some(self.integers()?.into_iter().map(|value| value as f32).collect());
        }
        let mut values = Vec::new();
        let row_bytes = usize::try_from(kind.row_bytes(row)?).ok()?;
        self.for_each_row(row_bytes, |bytes| {
            let start = values.len();
            values.resize(start + row as usize, 0.0_f32);
            decode_blocks(kind, bytes, &mut values[start..]).is_ok()
        })?;
        Some(values)
    }

    /// Its values when they are 32-bit integers, row after row: the chosen experts, for one.
    pub fn integers(&self) -> Option<Vec<i32>> {
        if self.tensor_type()? != TensorType::I32 {
            return None;
        }
        let mut values = Vec::new();
        let row_bytes = usize::try_from(self.dimensions()[0]).ok()?.checked_mul(4)?;
        self.for_each_row(row_bytes, |bytes| {
            values.extend(bytes.as_chunks::<4>().0.iter().map(|word| i32::from_le_bytes(*word)));
            true
        })?;
        Some(values)
    }

    /// Hands out the bytes of each row. Rows are dense, but views leave gaps between them.
    fn for_each_row(&self, row_bytes: usize, mut read: impl FnMut(&[u8]) -> bool) -> Option<()> {
        let tensor = self.get();
        let element_bytes = usize::try_from(self.tensor_type()?.block_bytes()).ok()?;
        if tensor.data.is_null() || tensor.nb[0] != element_bytes {
            return None;
        }
        // SAFETY: the tensor is alive.
        let total = unsafe { sys::ggml_nbytes(tensor) };
        let mut bytes = vec![0_u8; total];
        // SAFETY: the tensor has data of `total` bytes, and the buffer as many.
        unsafe {
            sys::ggml_backend_tensor_get(tensor, bytes.as_mut_ptr().cast::<c_void>(), 0, total);
        }
        let [_, rows, planes, cubes] = self.dimensions().map(|extent| extent as usize);
        for cube in 0..cubes {
            for plane in 0..planes {
                for row in 0..rows {
                    let start = row * tensor.nb[1] + plane * tensor.nb[2] + cube * tensor.nb[3];
                    if !read(bytes.get(start..start.checked_add(row_bytes)?)?) {
                        return None;
                    }
                }
            }
        }
        Some(())
    }
}

/// An observer behind the pointer that llama.cpp keeps.
pub(super) struct Observed {
    observer: Box<dyn Observer>,
}

impl Observed {
    pub(super) fn new(observer: Box<dyn Observer>) -> Self {
        Self { observer }
    }

    pub(super) fn observer(&mut self) -> &mut dyn Observer {
        &mut *self.observer
    }

    /// What llama.cpp calls: first whether the tensor is wanted, then with the computed tensor.
    pub(super) unsafe extern "C" fn callback(
        tensor: *mut sys::ggml_tensor,
        ask: bool,
        data: *mut c_void,
    ) -> bool {
        // SAFETY: `data` is the box that the context owns; llama.cpp calls during `decode` only,
        // which has `&mut`.
        let observed = unsafe { &mut *data.cast::<Observed>() };
        let view = TensorView { tensor, alive: PhantomData };
        if ask { observed.observer.wants(&view) } else { observed.observer.observe(&view) }
    }
}
