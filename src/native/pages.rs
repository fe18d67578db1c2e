//! Memory for what a model keeps, straight from the system.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::half::{Bf16, F16};
use super::tiles::PairedBf16;

/// Numbers of which bytes of zero are one, and which own nothing.
pub trait Plain: sealed::Sealed + Copy + Send + Sync {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! plain {
    ($($number:ty)*) => {$(
        impl Plain for $number {}
        impl sealed::Sealed for $number {}
    )*};
}
plain!(f32 i8 Bf16 F16 PairedBf16);

/// Numbers on pages of their own, all zero at first: as the system gives them, so that nobody writes the zeros.
pub struct Pages<T> {
    first: NonNull<T>,
    len: usize,
}

// SAFETY: the numbers are owned as those of a vector are, and refer to nothing.
unsafe impl<T: Plain> Send for Pages<T> {}
// SAFETY: whoever shares them can only read them.
unsafe impl<T: Plain> Sync for Pages<T> {}

impl<T: Plain> Pages<T> {
    /// So many zeros; None where the system gives no pages.
    pub fn zeros(len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes > 0)?;
        let first = take(bytes).or_else(|| map(bytes))?;
        Some(Pages { first: first.cast(), len })
    }
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: so many numbers lie there, which bytes of zero were already (`Plain`), and only this value
        // knows of them.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T> Drop for Pages<T> {
    fn drop(&mut self) {
        // SAFETY: nobody else knows of them.
        unsafe { unmap(self.first.cast(), self.len * size_of::<T>()) };
    }
}

/// Pages that have been asked for before they are needed.
struct Span {
    /// Addresses: what is left of them.
    next: usize,
    end: usize,
}

/// Locked while pages are touched.
static READY: Mutex<Span> = Mutex::new(Span { next: 0, end: 0 });

/// Pages are needed, or no more: none is touched from here on.
static NEEDED: AtomicBool = AtomicBool::new(false);

/// Gets memory of so many bytes ready for `Pages`, until the first of them is asked for.
///
/// The system looks for memory, and clears it, when a page is touched first: a third of a model's loading. This
/// does it while other threads have other work, that is before libtorch is ready. Later calls do nothing.
pub fn get_ready(bytes: usize) {
    let mut span = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if bytes == 0 || span.end > 0 || NEEDED.load(Ordering::Relaxed) {
        return;
    }
    let Some(first) = map(bytes) else { return };
    for at in (0..bytes).step_by(page()) {
        if NEEDED.load(Ordering::Relaxed) {
            break;
        }
        // SAFETY: within the new pages, of which nobody else knows.
        unsafe { first.add(at).write_volatile(0) };
    }
    let next = first.as_ptr() as usize;
    *span = Span { next, end: next + bytes.next_multiple_of(page()) };
}

/// Gives back what was got ready and nobody has asked for.
pub fn none_needed() {
    NEEDED.store(true, Ordering::Relaxed);
    let mut span = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = NonNull::new(span.next as *mut u8).filter(|_| span.next < span.end) {
        // SAFETY: `take` gave them to nobody, nor will it.
        unsafe { unmap(first, span.end - span.next) };
    }
    span.next = span.end;
}

/// Pages of those that were got ready.
fn take(bytes: usize) -> Option<NonNull<u8>> {
    NEEDED.store(true, Ordering::Relaxed);
    let mut span = READY.lock().unwrap_or_else(PoisonError::into_inner);
    let after = span.next.checked_add(bytes)?.checked_next_multiple_of(page())?;
    (after <= span.end)
        .then(|| std::mem::replace(&mut span.next, after))
        .and_then(|first| NonNull::new(first as *mut u8))
}

/// Bytes of a page.
pub(super) fn page() -> usize {
    #[cfg(unix)]
    // SAFETY: only tells a number.
    return usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    #[cfg(not(unix))]
    4096
}

/// New pages, all zero.
fn map(bytes: usize) -> Option<NonNull<u8>> {
    #[cfg(unix)]
    {
        const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANON;
        const RIGHTS: i32 = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: wherever the system likes: nothing that is there is touched.
        let first = unsafe { libc::mmap(std::ptr::null_mut(), bytes, RIGHTS, FLAGS, -1, 0) };
        NonNull::new(first.cast()).filter(|_| first != libc::MAP_FAILED)
    }
    #[cfg(not(unix))]
    None
}

/// Gives pages of `map` back.
///
/// # Safety
/// Nobody may use them any more. `first` is the beginning of a page.
unsafe fn unmap(first: NonNull<u8>, bytes: usize) {
    #[cfg(unix)]
    // SAFETY: the caller's.
    unsafe {
        libc::munmap(first.as_ptr().cast(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One process has one span, so one test has it all.
    #[test]
    fn pages_are_zero_and_apart_and_may_be_got_ready() {
        let len = 3 * page() / 4 + 1;
        get_ready(4 * page());
        let mut all: Vec<Pages<f32>> = (0..3).filter_map(|_| Pages::zeros(len)).collect();
        for (value, pages) in all.iter_mut().enumerate() {
            assert!(pages.iter().all(|number| *number == 0.0));
            pages.fill(value as f32);
        }
        // The first lies among what was ready, whose rest is too small for another.
        get_ready(1 << 20);
        all.remove(0);
        none_needed();
        for (value, pages) in all.iter().enumerate() {
            assert_eq!(pages.len(), len);
            assert!(pages.iter().all(|number| *number == (value + 1) as f32));
            assert!((pages.as_ptr() as usize).is_multiple_of(page()));
        }
        assert!(Pages::<i8>::zeros(0).is_none());
        assert!(Pages::<f32>::zeros(usize::MAX).is_none());
    }
}
