//! What is read next, fetched while something is computed.

use std::ops::Range;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Memory that the core is told to fetch while it computes: rows, so many bytes apart.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Fetch {
    start: *const i8,
    /// Of a row.
    lines: usize,
    apart: usize,
    rows: usize,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Fetch {
    pub const NOTHING: Fetch = Fetch { start: std::ptr::null(), lines: 0, apart: 0, rows: 0 };

    /// All of these numbers.
    pub fn of<T>(numbers: &[T]) -> Self {
        Fetch::rows(numbers, 0..1, &(0..numbers.len()), numbers.len())
    }

    /// Some rows of numbers and some columns, where a row begins `apart` numbers after the one before.
    pub fn rows<T>(
        numbers: &[T],
        rows: Range<usize>,
        columns: &Range<usize>,
        apart: usize,
    ) -> Self {
        let start = numbers.as_ptr().wrapping_add(rows.start * apart + columns.start).cast();
        let lines = (columns.len() * size_of::<T>()).div_ceil(LINE);
        Fetch { start, lines, apart: apart * size_of::<T>(), rows: rows.len() }
    }

    /// How many lines are to be fetched at each of so many times.
    pub(super) fn share(&self, times: usize) -> usize {
        (self.lines * self.rows).div_ceil(times.max(1))
    }

    /// All lines, one after the other.
    pub(super) fn lines(self) -> Lines {
        Lines { of: self, line: 0 }
    }
}

/// A line after the other; behind the last row they go on.
pub(super) struct Lines {
    of: Fetch,
    line: usize,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Lines {
    #[inline(always)]
    pub(super) fn next(&mut self) -> *const i8 {
        let found = self.of.start.wrapping_add(self.line * LINE);
        self.line += 1;
        if self.line >= self.of.lines {
            self.line = 0;
            self.of.start = self.of.start.wrapping_add(self.of.apart);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line of a matrix's part is told once.
    #[test]
    fn lines_are_those_of_the_rows() {
        let numbers = [0f32; 5 * 100];
        let fetch = Fetch::rows(&numbers, 2..4, &(10..50), 100);
        assert_eq!((fetch.share(1), fetch.share(4), fetch.share(100)), (6, 2, 1));
        let mut lines = fetch.lines();
        let places: Vec<isize> =
            (0..6).map(|_| lines.next() as isize - numbers.as_ptr() as isize).collect();
        let row = |row: isize| [0, 64, 128].map(|line| row * 400 + 40 + line);
        assert_eq!(places, [row(2), row(3)].concat());
        assert_eq!(Fetch::NOTHING.share(3), 0);
        assert_eq!(Fetch::of(&numbers).share(1), 500 * 4 / 64 + 1);
    }
}
