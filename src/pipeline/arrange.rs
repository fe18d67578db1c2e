//! Which pictures share a batch.

use super::prepare::Prepared;
use crate::image::Pixels;

/// Pictures that go through the model together, with their numbers among the records at hand.
pub(super) type Group = Vec<(usize, Prepared)>;

/// Batches of up to `size` pictures of one pixel size, the one with the first picture first. `sorted`:
/// those alike in aspect share one. `neighbours`: only such do, whatever `sorted` says.
pub(super) fn arrange(
    mut waiting: Group,
    size: usize,
    sorted: bool,
    neighbours: bool,
) -> Vec<Group> {
    let mut groups = Vec::new();
    while let Some((number, head)) = waiting.first() {
        let (shape, mut expected) = (shape(&head.pixels), *number);
        let (mut group, rest): (Group, Group) = waiting.into_iter().partition(|(index, image)| {
            let fits = (*index == expected || !neighbours) && self::shape(&image.pixels) == shape;
            expected += usize::from(fits);
            fits
        });
        waiting = rest;
        if sorted && !neighbours {
            // Lines as long as each other have texts as long as each other, and end together.
            group.sort_by(|a, b| a.1.aspect.total_cmp(&b.1.aspect));
        }
        while !group.is_empty() {
            let rest = group.split_off(size.min(group.len()));
            groups.push(std::mem::replace(&mut group, rest));
        }
    }
    groups.sort_by_key(|group| group.iter().map(|(index, _)| *index).min());
    groups
}

/// Channels, height and width.
pub(super) fn shape(pixels: &Pixels) -> (usize, usize, usize) {
    (pixels.channels, pixels.height, pixels.width)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of (width of the pixels, aspect), and the numbers of each batch.
    fn arranged(pictures: &[(usize, f32)], size: usize, flags: (bool, bool)) -> Vec<Vec<usize>> {
        let prepared = |(width, aspect): &(usize, f32)| Prepared {
            pixels: Pixels { channels: 1, height: 1, width: *width, data: vec![0.0; *width] },
            blank: false,
            aspect: *aspect,
            width: 1,
            height: 1,
            orientation: 1,
            rows: None,
            given: None,
        };
        let waiting = pictures.iter().map(prepared).enumerate().collect();
        arrange(waiting, size, flags.0, flags.1)
            .iter()
            .map(|group| group.iter().map(|(index, _)| *index).collect())
            .collect()
    }

    #[test]
    fn alike_pictures_share_a_batch() {
        let lines = [(8, 3.0), (8, 9.0), (8, 2.0), (8, 8.0), (8, 1.0), (8, 7.0)];
        let sorted = arranged(&lines, 2, (true, false));
        assert_eq!(sorted, [vec![0, 5], vec![3, 1], vec![4, 2]]);
        assert_eq!(arranged(&lines, 4, (false, false)), [vec![0, 1, 2, 3], vec![4, 5]]);
        assert_eq!(arranged(&lines, 4, (true, true)), [vec![0, 1, 2, 3], vec![4, 5]]);
        let sizes = [(8, 1.0), (4, 1.0), (8, 1.0), (8, 1.0), (4, 1.0)];
        assert_eq!(arranged(&sizes, 2, (true, false)), [vec![0, 2], vec![1, 4], vec![3]]);
        assert_eq!(arranged(&sizes, 9, (true, true)), [vec![0], vec![1], vec![2, 3], vec![4]]);
    }
}
