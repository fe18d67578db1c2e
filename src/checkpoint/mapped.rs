//! A file in memory: its bytes, and tensors that lie on its own pages.

use std::cell::OnceCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::native;

/// Bytes that are asked for at a time when a file is read ahead.
const AHEAD: usize = 16 << 20;

/// A file mapped into memory.
pub(super) struct Mapped {
    pub(super) path: PathBuf,
    file: std::fs::File,
    map: Arc<memmap2::Mmap>,
    /// The whole file once more, as a tensor of bytes that libtorch maps: its views keep the map alive
    /// by themselves. None where that can't be had.
    pages: OnceCell<Option<Tensor>>,
}

impl Mapped {
    pub(super) fn open(path: &Path) -> Result<Rc<Mapped>> {
        let meta = path.metadata().with_context(|| format!("cannot open {path:?}"))?;
        ensure!(meta.is_file(), "{path:?} is not a file");
        let file = std::fs::File::open(path).with_context(|| format!("can't open {path:?}"))?;
        let map = Arc::new(native::map_file(&file).with_context(|| format!("can't map {path:?}"))?);
        Ok(Rc::new(Mapped { path: path.to_owned(), file, map, pages: OnceCell::new() }))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Has the system read the file from its disk while other work goes on.
    pub(super) fn read_ahead(&self) {
        let map = self.map.clone();
        // Without the thread, the pages come when they are touched.
        let _ = std::thread::Builder::new().name("read-ahead".into()).spawn(move || {
            for start in (0..map.len()).step_by(AHEAD) {
                let length = AHEAD.min(map.len() - start);
                #[cfg(unix)]
                let _ = map.advise_range(memmap2::Advice::WillNeed, start, length);
            }
        });
    }

    /// A contiguous CPU tensor on the pages of the file; None where the place isn't aligned to the
    /// number type, or the system has no such maps. The range has as many bytes as the shape needs.
    pub(super) fn tensor(&self, range: &Range<usize>, shape: &[i64], kind: Kind) -> Option<Tensor> {
        if range.is_empty() || !range.start.is_multiple_of(kind.elt_size_in_bytes()) {
            return None;
        }
        let pages = self.pages.get_or_init(|| self.map_pages()).as_ref()?;
        let bytes = pages.f_narrow(0, range.start as i64, range.len() as i64).ok()?;
        // Detached: a tensor by itself, which can be trained, not a view of the bytes.
        bytes.f_view_dtype(kind).ok()?.f_view(shape).ok()?.f_detach().ok()
    }

    /// The whole file as bytes on private pages.
    fn map_pages(&self) -> Option<Tensor> {
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            // By its descriptor: another file may have the name by now.
            let name = format!("/dev/fd/{}", self.file.as_raw_fd());
            let bytes = i64::try_from(self.map.len()).ok()?;
            Tensor::f_from_file(&name, false, bytes, (Kind::Uint8, Device::Cpu)).ok()
        }
        #[cfg(not(unix))]
        None
    }

    /// Whether the tensor lies on the pages of this file.
    pub(super) fn holds(&self, tensor: &Tensor) -> bool {
        let Some(Some(pages)) = self.pages.get() else { return false };
        if tensor.device() != Device::Cpu {
            return false;
        }
        let start = pages.data_ptr() as usize;
        (start..start + self.map.len()).contains(&(tensor.data_ptr() as usize))
    }

    /// The pages within `range` may leave the memory; touched again, they come from the file.
    pub(super) fn release(&self, range: &Range<usize>) {
        native::release_map(&self.map, range);
        if let Some(Some(pages)) = self.pages.get()
            && let Ok(part) = pages.f_narrow(0, range.start as i64, range.len() as i64)
        {
            native::release_pages(&part);
        }
    }
}
