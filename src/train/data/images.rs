//! The images of a data set: decoded, augmented and processed, with a cache that is bounded in bytes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow};

use super::table::ImageSource;
use crate::image::{self, DecodeOptions, ImageProcessor, Pixels, Rgb8};

/// How images become pixels. Shared by all threads.
pub struct Images {
    sources: Vec<ImageSource>,
    processor: ImageProcessor,
    decode: DecodeOptions,
    cache: Vec<OnceLock<Arc<Rgb8>>>,
    /// Images that turned out bad at their step.
    left_out: Vec<AtomicBool>,
    /// Bytes that the cache may still take.
    room: AtomicU64,
    /// The cache holds images as they leave resizing and cropping, not as they are decoded.
    arranged: bool,
}

impl Images {
    /// `cache_bytes` bounds the memory that is kept between epochs; 0 keeps nothing. With `arranged`
    /// the cache holds images at the size of the model, which leaves only the arithmetic of
    /// normalisation to later epochs; augmentation needs them as they are decoded.
    pub fn new(
        sources: Vec<ImageSource>,
        processor: ImageProcessor,
        decode: DecodeOptions,
        cache_bytes: u64,
        arranged: bool,
    ) -> Self {
        let cache = (0..sources.len()).map(|_| OnceLock::new()).collect();
        let left_out = sources.iter().map(|_| AtomicBool::new(false)).collect();
        let room = AtomicU64::new(cache_bytes);
        Images { sources, processor, decode, cache, left_out, room, arranged }
    }

    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    pub fn len(&self) -> usize {
        self.sources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    pub fn name(&self, index: usize) -> String {
        self.sources[index].name()
    }

    /// True if an image was left out.
    pub fn is_left_out(&self, index: usize) -> bool {
        self.left_out[index].load(Ordering::Relaxed)
    }

    /// Leaves an image out from now on; false if it was before.
    pub fn leave_out(&self, index: usize) -> bool {
        !self.left_out[index].swap(true, Ordering::Relaxed)
    }

    /// Decodes an image and keeps it if there is room; its name goes into the error.
    pub fn load(&self, index: usize) -> Result<Arc<Rgb8>> {
        if let Some(image) = self.cache[index].get() {
            return Ok(image.clone());
        }
        let load = || self.keep(index, &self.sources[index].bytes()?);
        load().map_err(|error: anyhow::Error| anyhow!("{}: {error:#}", self.name(index)))
    }

    /// Looks whether an image can be used: decodes it and keeps it if there is room, or, unless `whole`,
    /// looks at its head and its end. Gives a hash of its bytes. The error has no name in it.
    pub fn check(&self, index: usize, whole: bool) -> Result<u64> {
        let bytes = self.sources[index].bytes()?;
        if whole {
            self.keep(index, &bytes)?;
        } else {
            image::probe(&bytes, &self.decode)?;
        }
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Ok(hasher.finish())
    }

    fn keep(&self, index: usize, bytes: &[u8]) -> Result<Arc<Rgb8>> {
        let decoded = image::decode(bytes, &self.decode)?.image;
        let image = if self.arranged { self.processor.arrange(decoded)? } else { decoded };
        let image = Arc::new(image);
        let size = image.data.len() as u64;
        let take = |room: u64| room.checked_sub(size);
        if self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            && self.cache[index].set(image.clone()).is_err()
        {
            // Another thread was first.
            self.room.fetch_add(size, Ordering::Relaxed);
        }
        Ok(image)
    }

    /// What the model sees of an image; `alter` (augmentation) comes between decoding and resizing.
    pub fn pixels(&self, index: usize, alter: Option<&dyn Fn(Rgb8) -> Rgb8>) -> Result<Pixels> {
        let image = self.load(index)?;
        let told = |error| anyhow!("{}: {error:#}", self.name(index));
        match alter {
            Some(alter) => self.processor.process(&alter(Rgb8::clone(&image))).map_err(told),
            None if self.arranged => Ok(self.processor.to_floats(&image)),
            None => self.processor.process(&image).map_err(told),
        }
    }
}
