//! The size that an image is resized to where it depends on the image.
//!
//! The formulas are those of transformers, roundings and truncations included.

use super::Rgb8;
use super::geometry::{scale, shortest_edge_size};
use super::size::Size;

/// The size (height, width) that an image comes to by `size`, for classes that are no documents'.
pub(super) fn target_size(image: &Rgb8, size: Size) -> (usize, usize) {
    match size {
        Size::Exact { height, width } => (height, width),
        Size::ShortestEdge(edge) => shortest_edge_size(image, edge),
        Size::Edges { shortest, longest } => {
            let (short, long) = sorted(image);
            match limited(short, long, shortest, longest) {
                (edge, _) if edge == short => (image.height, image.width),
                edges => placed(image, edges),
            }
        }
        Size::Within { height, width } => within(image, height, width),
    }
}

/// What the sides of an image for YOLOS are multiples of (`mod_size`).
pub(super) const DETECTION_STEP: usize = 16;

/// As [`target_size`], edges cut down to multiples of [`DETECTION_STEP`] (`get_size_with_aspect_ratio` of YOLOS).
pub(super) fn detection_size(image: &Rgb8, size: Size) -> (usize, usize) {
    match size {
        Size::Edges { shortest, longest } => {
            let (short, long) = sorted(image);
            let stands = image.width < image.height;
            let edges = match limited(short, long, shortest, longest) {
                // Images that stand are not asked, which differs where the limit was rounded.
                (edge, _) if edge == short && !stands => (short, long),
                edges => edges,
            };
            let (height, width) = placed(image, edges);
            (height - height % DETECTION_STEP, width - width % DETECTION_STEP)
        }
        other => target_size(image, other),
    }
}

/// The shorter and the longer side.
fn sorted(image: &Rgb8) -> (usize, usize) {
    (image.width.min(image.height), image.width.max(image.height))
}

/// Sides (shorter, longer) as (height, width), the way `image` lies.
fn placed(image: &Rgb8, (short, long): (usize, usize)) -> (usize, usize) {
    if image.width < image.height { (long, short) } else { (short, long) }
}

/// Sides of `short` and `long` scaled to a shorter one of `shortest`, or to a longer one of `longest`
/// where it would become longer (`get_size_with_aspect_ratio`, its rounding and truncation included).
fn limited(short: usize, long: usize, shortest: usize, longest: usize) -> (usize, usize) {
    let (from, to) = (short as f64, long as f64);
    if to / from * shortest as f64 > longest as f64 {
        let exact = longest as f64 * from / to;
        // Python's `round` goes to the even number.
        return (exact.round_ties_even() as usize, (exact * to / from) as usize);
    }
    (shortest, scale(shortest, long, short))
}

/// The largest size within `height` and `width` (`get_image_size_for_max_height_width`).
fn within(image: &Rgb8, height: usize, width: usize) -> (usize, usize) {
    let (rows, columns) = (image.height as f64, image.width as f64);
    let scale = (height as f64 / rows).min(width as f64 / columns);
    ((rows * scale) as usize, (columns * scale) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_reference() {
        // Height and width of an image, shortest and longest edge, and what becomes of it: by
        // `get_size_with_aspect_ratio` of image_transforms.py, and of image_processing_yolos.py.
        let cases: &[[usize; 8]] = &[
            [480, 640, 800, 1333, 800, 1066, 800, 1056],
            [640, 480, 800, 1333, 1066, 800, 1056, 800],
            [800, 1333, 800, 1333, 800, 1333, 800, 1328],
            [1333, 800, 800, 1333, 1333, 800, 1328, 800],
            [800, 1200, 800, 1333, 800, 1200, 800, 1200],
            [1200, 800, 800, 1333, 1200, 800, 1200, 800],
            [500, 500, 500, 600, 500, 500, 496, 496],
            [100, 1000, 800, 1333, 133, 1333, 128, 1328],
            [1000, 100, 800, 1333, 1333, 133, 1328, 128],
            [3, 500, 32, 64, 0, 64, 0, 64],
            [31, 20, 24, 40, 37, 24, 32, 16],
            [625, 51, 256, 626, 625, 51, 624, 48],
            [762, 114, 666, 760, 762, 114, 752, 112],
            [622, 46, 330, 616, 622, 46, 608, 32],
            [675, 23, 614, 683, 675, 23, 672, 16],
            [930, 1436, 514, 158, 102, 158, 96, 144],
            [830, 206, 249, 918, 918, 228, 912, 224],
            [2733, 1770, 374, 760, 577, 374, 576, 368],
            [315, 1591, 207, 1051, 207, 1045, 192, 1040],
            [1793, 734, 475, 1316, 1160, 475, 1152, 464],
            [458, 204, 409, 1228, 918, 409, 912, 400],
            [1004, 2952, 376, 1228, 376, 1105, 368, 1104],
            [2555, 2673, 66, 680, 66, 69, 64, 64],
            [390, 551, 58, 983, 58, 81, 48, 80],
            [1285, 836, 521, 208, 208, 135, 208, 128],
            [1868, 2174, 603, 1265, 603, 701, 592, 688],
            [2526, 1319, 822, 634, 634, 331, 624, 320],
            [1701, 2777, 600, 569, 349, 569, 336, 560],
            [2316, 39, 555, 414, 414, 7, 400, 0],
            [2502, 2738, 727, 616, 563, 616, 560, 608],
            [2786, 1277, 297, 238, 238, 109, 224, 96],
            [1156, 1136, 516, 493, 493, 484, 480, 480],
            [178, 2801, 829, 858, 55, 858, 48, 848],
            [2223, 2177, 303, 166, 166, 163, 160, 160],
            [890, 1885, 132, 643, 132, 279, 128, 272],
            [365, 506, 578, 253, 182, 253, 176, 240],
            [778, 89, 449, 389, 389, 44, 384, 32],
            [158, 316, 732, 969, 484, 969, 480, 960],
            [520, 220, 548, 481, 481, 204, 480, 192],
        ];
        for &[height, width, shortest, longest, rows, columns, even_rows, even_columns] in cases {
            let image = Rgb8 { width, height, data: Vec::new() };
            let size = Size::Edges { shortest, longest };
            let case = format!("{height}x{width} by {size:?}");
            assert_eq!(target_size(&image, size), (rows, columns), "{case}");
            assert_eq!(detection_size(&image, size), (even_rows, even_columns), "{case}");
        }
    }

    #[test]
    fn the_largest_size_within() {
        // By `get_image_size_for_max_height_width`.
        let cases: &[[usize; 6]] = &[
            [480, 640, 800, 800, 600, 800],
            [640, 480, 300, 500, 300, 225],
            [37, 81, 50, 40, 18, 40],
            [81, 37, 50, 40, 50, 22],
            [100, 100, 99, 77, 77, 77],
            [1000, 3, 200, 200, 200, 0],
            [251, 1295, 1868, 655, 126, 655],
            [1548, 304, 1151, 1642, 1151, 226],
            [413, 1406, 1475, 603, 177, 603],
            [208, 1269, 1379, 36, 5, 36],
            [1171, 1643, 12, 1511, 12, 16],
            [346, 31, 274, 77, 274, 24],
            [373, 317, 617, 1621, 617, 524],
            [1246, 716, 1231, 1772, 1231, 707],
        ];
        for &[height, width, most_rows, most_columns, rows, columns] in cases {
            let image = Rgb8 { width, height, data: Vec::new() };
            let size = Size::Within { height: most_rows, width: most_columns };
            assert_eq!(target_size(&image, size), (rows, columns), "{height}x{width} by {size:?}");
            assert_eq!(
                detection_size(&image, size),
                (rows, columns),
                "{height}x{width} by {size:?}"
            );
        }
    }
}
