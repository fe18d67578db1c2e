//! One tensor of a file: what it is and where its bytes lie.

use std::hash::Hash;
use std::ops::Range;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tch::{Device, Kind, Tensor};

use super::mapped::Mapped;

/// Dimensions beyond this are refused: libtorch's own iterators stop there.
const MAX_RANK: usize = 64;

/// Shape and number type of a stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub shape: Vec<i64>,
    pub kind: Kind,
}

impl TensorInfo {
    /// Number of elements. The shape was checked when the file was opened.
    pub fn numel(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// Bytes of the tensor when it lies contiguous.
    pub fn bytes(&self) -> usize {
        self.numel() * self.kind.elt_size_in_bytes()
    }
}

/// Whose memory a tensor has that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Its own.
    Own,
    /// The file's pages where number type and alignment allow it: nothing is copied, a page comes from
    /// the disk when it is first touched, the processes of a machine share it, and the system may take
    /// it back. What is written to such a tensor stays in this process.
    ///
    /// The file must not be truncated or written over in place while the tensor lives; a file that is
    /// replaced by renaming another does no harm.
    Shared,
}

/// How the elements of a tensor lie in its file.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Layout {
    /// Row-major bytes, in pieces that follow one another.
    Dense(Vec<Range<usize>>),
    /// Chunks of this shape: the first element of each in every dimension, and its place. Those
    /// at the far edges are padded.
    Chunked { shape: Vec<usize>, chunks: Vec<(Vec<usize>, usize)> },
    /// A view of a one-dimensional storage; offset and strides count elements.
    Strided { storage: Range<usize>, offset: usize, stride: Vec<usize>, big_endian: bool },
}

/// The tensors of a file by their keys, in its order.
pub(super) type Entries = Vec<(String, Entry)>;

/// One tensor of a file.
#[derive(Clone)]
pub(super) struct Entry {
    /// Shape as given to the caller, after `permute`.
    pub(super) info: TensorInfo,
    pub(super) file: Rc<Mapped>,
    pub(super) layout: Layout,
    /// Dimensions of the stored tensor in the order the caller sees them; empty: as stored.
    pub(super) permute: Vec<i64>,
}

impl Entry {
    /// Equal for two tensors that are the same view of the same bytes.
    pub(super) fn identity(&self) -> impl Eq + Hash + use<> {
        (self.file.path.clone(), self.layout.clone(), self.info.shape.clone(), self.permute.clone())
    }

    /// Reads the tensor: CPU, stored kind, contiguous, own memory.
    pub(super) fn read(&self) -> Result<Tensor> {
        self.read_as(self.info.kind, Device::Cpu, Memory::Own)
    }

    /// Reads the tensor to `device`, contiguous; a float as `kind`, any other as it is stored.
    ///
    /// What is converted goes straight from the file's pages into the new type, tensor by tensor.
    pub(super) fn read_as(&self, kind: Kind, device: Device, memory: Memory) -> Result<Tensor> {
        let tensor = self.view()?;
        let kind = if tensor.is_floating_point() { kind } else { tensor.kind() };
        let mut moved = tensor.f_to_device(device)?.f_to_kind(kind)?;
        let on_pages = self.file.holds(&moved);
        if memory == Memory::Own && on_pages {
            let mut own = moved.f_empty_like()?;
            own.f_copy_(&moved)?;
            moved = own;
        }
        if memory == Memory::Own || !on_pages {
            self.let_go();
        }
        Ok(moved)
    }

    /// The tensor as it is stored, on the CPU: on the file's pages where it lies there contiguous and
    /// aligned, else in memory of its own.
    fn view(&self) -> Result<Tensor> {
        let stored = self.stored_shape();
        let tensor = match &self.layout {
            Layout::Dense(pieces) => self.read_dense(pieces, &stored)?,
            Layout::Chunked { shape, chunks } => self.read_chunked(shape, chunks, &stored)?,
            Layout::Strided { storage, offset, stride, big_endian } => {
                self.read_strided(storage, *offset, stride, *big_endian, &stored)?
            }
        };
        if self.permute.is_empty() {
            return Ok(tensor);
        }
        Ok(tensor.f_permute(&self.permute)?.f_contiguous()?)
    }

    /// The pages that were read may leave the memory.
    fn let_go(&self) {
        match &self.layout {
            Layout::Dense(pieces) => pieces.iter().for_each(|piece| self.file.release(piece)),
            Layout::Chunked { shape, chunks } => {
                let bytes = shape.iter().product::<usize>() * self.info.kind.elt_size_in_bytes();
                for (_, place) in chunks {
                    self.file.release(&(*place..*place + bytes));
                }
            }
            Layout::Strided { storage, .. } => self.file.release(storage),
        }
    }

    /// The same tensor with its dimensions in another order: `order[i]` is the stored dimension
    /// that becomes dimension i. Nothing changes where `order` is empty.
    pub(super) fn permuted(mut self, order: Vec<i64>) -> Entry {
        if !order.is_empty() {
            self.info.shape = order.iter().map(|&at| self.info.shape[at as usize]).collect();
            self.permute = order;
        }
        self
    }

    fn stored_shape(&self) -> Vec<i64> {
        if self.permute.is_empty() {
            return self.info.shape.clone();
        }
        let mut stored = vec![0; self.info.shape.len()];
        for (seen, &at) in self.info.shape.iter().zip(&self.permute) {
            stored[at as usize] = *seen;
        }
        stored
    }

    fn read_dense(&self, pieces: &[Range<usize>], shape: &[i64]) -> Result<Tensor> {
        if let [piece] = pieces {
            let bytes = self.slice(piece)?;
            check(bytes, shape, self.info.kind)?;
            return match self.file.tensor(piece, shape, self.info.kind) {
                Some(tensor) => Ok(tensor),
                None => from_bytes(bytes, shape, self.info.kind),
            };
        }
        let mut whole = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        for piece in pieces {
            whole.extend_from_slice(self.slice(piece)?);
        }
        from_bytes(&whole, shape, self.info.kind)
    }

    fn read_strided(
        &self,
        storage: &Range<usize>,
        offset: usize,
        stride: &[usize],
        big_endian: bool,
        shape: &[i64],
    ) -> Result<Tensor> {
        let kind = self.info.kind;
        let size = kind.elt_size_in_bytes();
        let span = span(shape, stride).context("the strides of a tensor overflow")?;
        let first = offset.checked_mul(size).and_then(|at| at.checked_add(storage.start));
        let range = first.and_then(|at| Some(at..at.checked_add(span.checked_mul(size)?)?));
        let range = range.context("the place of a tensor overflows")?;
        ensure!(range.end <= storage.end, "a tensor reaches beyond its storage");
        let mut swapped;
        let mut bytes = self.slice(&range)?;
        if big_endian && size > 1 {
            swapped = bytes.to_vec();
            swapped.chunks_exact_mut(size).for_each(|element| element.reverse());
            bytes = &swapped;
        }
        let flat = from_bytes(bytes, &[span as i64], kind)?;
        let stride: Vec<i64> = stride.iter().map(|&step| step as i64).collect();
        // A row-major view takes the memory it was read into; any other is laid out anew.
        Ok(flat.f_as_strided(shape, &stride, 0)?.f_contiguous()?)
    }

    /// Puts the rows of every chunk, as far as they lie inside the array, where they belong.
    fn read_chunked(
        &self,
        chunk: &[usize],
        chunks: &[(Vec<usize>, usize)],
        shape: &[i64],
    ) -> Result<Tensor> {
        let size = self.info.kind.elt_size_in_bytes();
        let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
        let mut whole = vec![0; checked_bytes(shape, self.info.kind)?];
        let row = chunk.last().copied().unwrap_or(1);
        let rows: usize = chunk.iter().rev().skip(1).product();
        for (first, place) in chunks {
            let bytes = self.slice(&(*place..*place + rows * row * size))?;
            for (number, bytes) in bytes.chunks_exact(row * size).enumerate() {
                if let Some((at, length)) = place_of_row(number, first, chunk, &sizes) {
                    let (at, length) = (at * size, length * size);
                    whole[at..at + length].copy_from_slice(&bytes[..length]);
                }
            }
        }
        from_bytes(&whole, shape, self.info.kind)
    }

    fn slice(&self, range: &Range<usize>) -> Result<&[u8]> {
        self.file.bytes().get(range.clone()).context("a tensor reaches beyond the end of its file")
    }
}

/// Elements from the first to the last one of a view, both included; 0 of an empty view.
pub(super) fn span(shape: &[i64], stride: &[usize]) -> Option<usize> {
    let mut last = 0_usize;
    for (&size, &step) in shape.iter().zip(stride) {
        if size == 0 {
            return Some(0);
        }
        last = last.checked_add(usize::try_from(size - 1).ok()?.checked_mul(step)?)?;
    }
    last.checked_add(1)
}

/// Where row `number` of a chunk begins in the row-major array, and how much of it lies inside;
/// `None` where it is padding.
fn place_of_row(
    number: usize,
    first: &[usize],
    chunk: &[usize],
    shape: &[usize],
) -> Option<(usize, usize)> {
    let Some(last) = chunk.len().checked_sub(1) else { return Some((0, 1)) };
    let (mut number, mut at, mut stride) = (number, first[last], shape[last]);
    for axis in (0..last).rev() {
        let position = first[axis] + number % chunk[axis];
        if position >= shape[axis] {
            return None;
        }
        number /= chunk[axis];
        at += position * stride;
        stride *= shape[axis];
    }
    Some((at, chunk[last].min(shape[last] - first[last])))
}

/// A tensor of its own from row-major little-endian bytes.
fn from_bytes(bytes: &[u8], shape: &[i64], kind: Kind) -> Result<Tensor> {
    // libtorch copies as many bytes as the shape says without asking how many there are.
    check(bytes, shape, kind)?;
    Ok(Tensor::f_from_data_size(bytes, shape, kind)?)
}

/// The bytes are those of a tensor of this shape and number type.
fn check(bytes: &[u8], shape: &[i64], kind: Kind) -> Result<()> {
    let expected = checked_bytes(shape, kind)?;
    ensure!(
        bytes.len() == expected,
        "a tensor of shape {shape:?} needs {expected} bytes and has {}",
        bytes.len()
    );
    if kind == Kind::Bool && bytes.iter().any(|&byte| byte > 1) {
        bail!("a tensor of booleans holds a byte that is neither 0 nor 1");
    }
    Ok(())
}

/// Bytes of a contiguous tensor; an error where the product overflows or a dimension is negative.
pub(super) fn checked_bytes(shape: &[i64], kind: Kind) -> Result<usize> {
    ensure!(
        shape.len() <= MAX_RANK,
        "it has {} dimensions, at most {MAX_RANK} are possible",
        shape.len()
    );
    let bytes = shape.iter().try_fold(kind.elt_size_in_bytes(), |bytes, &size| {
        bytes.checked_mul(usize::try_from(size).ok()?)
    });
    bytes
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or_else(|| anyhow!("its shape {shape:?} is impossible"))
}
