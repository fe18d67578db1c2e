//! What batches take of the memory, and the way of their pixels to the device.

use std::cell::{Cell, RefCell};

use tch::{Device, Kind, Tensor};

use super::arrange::shape;
use crate::image::Pixels;
use crate::native;

/// Pixels of one size -> [B, C, H, W]
pub fn stack(pixels: &[&Pixels]) -> Tensor {
    let stacked = Tensor::empty(size(pixels), (Kind::Float, Device::Cpu));
    fill(&stacked, pixels);
    stacked
}

/// B, C, H, W
fn size(pixels: &[&Pixels]) -> [i64; 4] {
    let (c, h, w) = pixels.first().map_or((0, 0, 0), |pixels| shape(pixels));
    [pixels.len(), c, h, w].map(|size| size as i64)
}

/// Writes pixels of one size to [B, C, H, W].
fn fill(stacked: &Tensor, pixels: &[&Pixels]) {
    let filled = native::with_floats([stacked], |[all]| {
        for (own, pixels) in all.chunks_exact_mut((all.len() / pixels.len()).max(1)).zip(pixels) {
            own.copy_from_slice(&pixels.data);
        }
    });
    debug_assert!(filled.is_some() || stacked.numel() == 0);
}

/// What batches take of the memory.
pub(super) struct Room {
    /// Pictures of a batch: less than wished where the memory does not suffice.
    pub(super) batch: Cell<usize>,
    /// Where pixels wait for a GPU, which copies them from pinned memory by itself.
    pinned: RefCell<Option<Tensor>>,
}

impl Room {
    pub(super) fn new(batch: usize) -> Self {
        Room { batch: Cell::new(batch), pinned: RefCell::new(None) }
    }

    /// Pixels of one size on the device. The batch before must have been read. -> [B, C, H, W]
    pub(super) fn stack(&self, pixels: &[&Pixels], device: Device) -> Tensor {
        if !device.is_cuda() {
            return stack(pixels);
        }
        let size = size(pixels);
        let numbers: i64 = size.iter().product();
        let mut pinned = self.pinned.borrow_mut();
        let large = pinned.take().filter(|pinned| pinned.numel() as i64 >= numbers);
        let Some(large) = large.or_else(|| native::pinned(numbers)) else {
            return stack(pixels).to_device(device);
        };
        let stacked = large.narrow(0, 0, numbers).view(size);
        *pinned = Some(large);
        fill(&stacked, pixels);
        stacked.to_device_(device, Kind::Float, true, false)
    }
}
