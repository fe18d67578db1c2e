//! The physical numbers of the pages of a document.

use crate::pipeline::Record;

/// Numbers pages from 0, whether they could be read or not.
///
/// The pages of a file keep their own numbers: page 3 is number 2, also where it is the only one that is
/// read. A file behind another goes on after its last page, so that no number comes twice.
#[derive(Default)]
pub(super) struct Numbers {
    /// The file at hand.
    image: String,
    /// Its page at hand, counted from 1; 0 before the first record.
    page: usize,
    /// The number of its first page.
    first: usize,
}

impl Numbers {
    /// The number of a record's page; the records of a run come in order.
    pub(super) fn of(&mut self, record: &Record) -> usize {
        let page = record.page.unwrap_or(1);
        let is_same_file = self.image == record.image;
        // The same page named twice is two pages.
        let begins = record.region.is_none_or(|region| region.line == 1);
        let goes_on = page > self.page || (page == self.page && !begins);
        if !(is_same_file && goes_on) {
            self.first = if self.page == 0 { 0 } else { self.number() + 1 };
            self.image.clone_from(&record.image);
        }
        self.page = page;
        self.number()
    }

    fn number(&self) -> usize {
        self.first + self.page - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{End, Region};

    #[test]
    fn pages_keep_their_numbers_and_files_go_on() {
        let mut numbers = Numbers::default();
        // Image, page, line; what fails has no line.
        let records = [
            ("a.tif", Some(3), Some(1), 2),
            ("a.tif", Some(3), Some(2), 2),
            ("a.tif", Some(5), None, 4),
            ("a.tif", Some(6), Some(1), 5),
            ("b.png", None, Some(1), 6),
            ("b.png", None, Some(2), 6),
            ("b.png", None, Some(1), 7),
            ("bad.png", None, None, 8),
            ("c.tif", Some(2), None, 10),
            ("c.tif", Some(1), None, 11),
        ];
        for (image, page, line, number) in records {
            let record = Record {
                image: image.to_string(),
                origin: None,
                page,
                region: line.map(|line| Region { line, bbox: [0; 4] }),
                end: End::Line,
                outcome: Err(anyhow::anyhow!("of no matter")),
            };
            assert_eq!(numbers.of(&record), number, "{image} {page:?} {line:?}");
        }
    }
}
