//! Whether a picture is empty: a scan of white paper, a black frame, a plain colour.

use super::Rgb8;

/// Blocks on each side of a block that its surroundings are taken from.
const AROUND: usize = 3;

/// The least grey levels by which the mean of a block stands out: compression leaves blocks that differ by
/// less where light changes slowly.
const LEAST: f32 = 2.5;

/// The same where the paper is flat, most of it of one grey level: text of three levels is seen.
const LEAST_ON_FLAT: f32 = 1.25;

/// The part of the pixels that have the paper's grey level where it is flat.
const FLAT: f32 = 0.75;

/// The means of blocks scatter by noise; so many standard deviations of that are no sign of ink.
const DEVIATIONS: f32 = 6.0;

/// The same for single pixels.
const SINGLE: f32 = 40.0;
const SINGLE_DEVIATIONS: f32 = 10.0;

/// Noise beyond this many grey levels is something to look at.
const ROUGHEST: f32 = 16.0;

/// What counts as an empty picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blank {
    /// Nothing to read: paper, whatever the light on it.
    NoInk,
    /// Nothing to see at all: one plain colour. (A clear sky has its shades, and is worth a caption.)
    OneColor,
}

/// Grey levels between the lightest and the darkest pixel of what is still one colour.
const ONE_COLOR: u8 = 12;

impl Blank {
    /// True if the picture is empty in this sense.
    pub fn holds(self, image: &Rgb8) -> bool {
        match self {
            Blank::NoInk => is_blank(image),
            Blank::OneColor => (0..3).all(|channel| {
                let values = || image.data.iter().skip(channel).step_by(3);
                let (least, most) = (values().min(), values().max());
                least.zip(most).is_none_or(|(least, most)| most - least <= ONE_COLOR)
            }),
        }
    }
}

/// True if nothing stands out: no block of 4 x 4 pixels and no pixel differs from its surroundings by more
/// than noise explains. Noise is measured between neighbouring pixels; slow changes of light don't count.
///
/// Meant to be sure: a single full stop makes a picture not empty, and so does dust.
fn is_blank(image: &Rgb8) -> bool {
    // Ink of the paper's own brightness is seen by its colour.
    let planes: [fn(&[u8]) -> f32; 3] = [
        grey,
        |pixel| 128.0 + (f32::from(pixel[0]) - f32::from(pixel[1])) / 2.0,
        |pixel| 128.0 + (f32::from(pixel[2]) - f32::from(pixel[1])) / 2.0,
    ];
    planes
        .iter()
        .all(|plane| is_plain(image, &image.data.chunks_exact(3).map(plane).collect::<Vec<_>>()))
}

/// True if nothing stands out in one plane of a picture.
fn is_plain(image: &Rgb8, luma: &[f32]) -> bool {
    if luma.is_empty() {
        return true;
    }
    let side = match image.width.min(image.height) {
        0..8 => 1,
        8..16 => 2,
        _ => 4,
    };
    let sigma = noise(luma, image.width);
    // No paper is as rough: this is a pattern, all over the picture.
    if sigma > ROUGHEST {
        return false;
    }
    let least = if is_flat(luma) { LEAST_ON_FLAT } else { LEAST };
    let least = least.max(DEVIATIONS * sigma / side as f32);
    let (means, columns) = block_means(luma, image.width, side);
    let rows = means.len() / columns;
    let sums = Sums::new(&means, columns);
    let single = SINGLE.max(SINGLE_DEVIATIONS * sigma);
    let stands_out = |(place, value): (usize, &f32)| {
        let (x, y) = (place % image.width / side, place / image.width / side);
        (value - sums.mean(x.min(columns - 1), y.min(rows - 1), AROUND)).abs() > single
    };
    // Fine patterns have blocks that are all alike.
    if luma.iter().enumerate().any(stands_out) {
        return false;
    }
    (0..rows).all(|y| {
        (0..columns).all(|x| {
            let around = sums.mean(x, y, AROUND);
            (means[y * columns + x] - around).abs() < least
        })
    })
}

fn grey(pixel: &[u8]) -> f32 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(f32::from);
    0.299 * r + 0.587 * g + 0.114 * b
}

/// True if most pixels have one grey level, as in pictures that were drawn and not photographed.
fn is_flat(luma: &[f32]) -> bool {
    let mut counts = [0u32; 256];
    luma.iter().for_each(|value| counts[(value.round() as usize).min(255)] += 1);
    counts.iter().max().is_some_and(|most| *most as f32 >= FLAT * luma.len() as f32)
}

/// The standard deviation of noise, from the median difference of neighbours: ink is rarer than paper.
fn noise(luma: &[f32], width: usize) -> f32 {
    let mut counts = [0u64; 256];
    for row in luma.chunks(width) {
        for pair in row.windows(2) {
            counts[((pair[0] - pair[1]).abs().round() as usize).min(255)] += 1;
        }
    }
    let half = counts.iter().sum::<u64>() / 2;
    let mut seen = 0;
    let median = counts.iter().position(|count| {
        seen += count;
        seen > half
    });
    // The median of |a - b| of two normal numbers is 0.954 standard deviations.
    median.unwrap_or(0) as f32 / 0.954
}

/// Means of whole blocks, and how many there are in a row; what is left at the edges is part of the last.
fn block_means(luma: &[f32], width: usize, side: usize) -> (Vec<f32>, usize) {
    let height = luma.len() / width;
    let (columns, rows) = ((width / side).max(1), (height / side).max(1));
    let mut means = vec![0.0; columns * rows];
    let mut counts = vec![0.0; columns * rows];
    for (y, row) in luma.chunks(width).enumerate() {
        let base = (y / side).min(rows - 1) * columns;
        for (x, value) in row.iter().enumerate() {
            let block = base + (x / side).min(columns - 1);
            means[block] += value;
            counts[block] += 1.0;
        }
    }
    means.iter_mut().zip(&counts).for_each(|(mean, count)| *mean /= count);
    (means, columns)
}

/// Sums over rectangles.
struct Sums {
    columns: usize,
    rows: usize,
    /// One row and column more than there are blocks.
    table: Vec<f64>,
}

impl Sums {
    fn new(values: &[f32], columns: usize) -> Sums {
        let rows = values.len() / columns;
        let wide = columns + 1;
        let mut table = vec![0.0; wide * (rows + 1)];
        for y in 0..rows {
            let mut line = 0.0;
            for x in 0..columns {
                line += f64::from(values[y * columns + x]);
                table[(y + 1) * wide + x + 1] = table[y * wide + x + 1] + line;
            }
        }
        Sums { columns, rows, table }
    }

    /// The mean of the blocks at most `reach` away from a place, as far on one side as on the other:
    /// what grows steadily across the picture has no part in it.
    fn mean(&self, x: usize, y: usize, reach: usize) -> f32 {
        let across = reach.min(x).min(self.columns - 1 - x);
        let down = reach.min(y).min(self.rows - 1 - y);
        let (left, right) = (x - across, x + across + 1);
        let (top, bottom) = (y - down, y + down + 1);
        let at = |x: usize, y: usize| self.table[y * (self.columns + 1) + x];
        let sum = at(right, bottom) - at(left, bottom) - at(right, top) + at(left, top);
        (sum / ((right - left) * (bottom - top)) as f64) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize, value: impl Fn(usize, usize) -> f32) -> Rgb8 {
        let mut data = Vec::new();
        for y in 0..height {
            for x in 0..width {
                data.extend([value(x, y).clamp(0.0, 255.0) as u8; 3]);
            }
        }
        Rgb8 { width, height, data }
    }

    /// Noise of about `sigma`, the same on every machine.
    fn scatter(x: usize, y: usize, sigma: f32) -> f32 {
        let mut bits = (x as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ (y as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
        bits = (bits ^ (bits >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits ^= bits >> 32;
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xFFFF).sum();
        (sum as f32 / 65536.0 - 2.0) * 1.732 * sigma
    }

    #[test]
    fn paper_is_blank() {
        assert!(is_blank(&picture(1, 1, |_, _| 7.0)));
        assert!(is_blank(&picture(400, 60, |_, _| 255.0)));
        assert!(is_blank(&picture(33, 5, |_, _| 0.0)));
        for sigma in [1.0, 4.0, 12.0] {
            assert!(is_blank(&picture(500, 300, |x, y| 200.0 + scatter(x, y, sigma))), "{sigma}");
        }
        // Light that falls off to one side, and a page of two tones without an edge.
        assert!(is_blank(&picture(640, 480, |x, y| 255.0 - x as f32 * 0.2 - y as f32 * 0.1)));
        assert!(is_blank(&picture(400, 300, |x, _| 200.0 + 40.0 * (x as f32 / 64.0).sin())));
    }

    #[test]
    fn a_sky_is_paper_but_no_plain_colour() {
        let sky = picture(200, 100, |_, y| 120.0 + y as f32 * 0.5);
        assert!(Blank::NoInk.holds(&sky) && !Blank::OneColor.holds(&sky));
        assert!(Blank::OneColor.holds(&picture(20, 10, |x, _| 100.0 + (x % 3) as f32)));
    }

    #[test]
    fn ink_of_the_same_brightness_is_seen_by_its_colour() {
        let mut page = picture(100, 40, |_, _| 0.0);
        for (place, pixel) in page.data.chunks_exact_mut(3).enumerate() {
            let ink = (40..44).contains(&(place % 100));
            pixel.copy_from_slice(if ink { &[60, 132, 60] } else { &[200, 60, 60] });
        }
        assert!(!Blank::NoInk.holds(&page));
    }

    #[test]
    fn ink_is_seen() {
        let dot = |x: usize, y: usize| (100..104).contains(&x) && (30..34).contains(&y);
        assert!(!is_blank(&picture(400, 60, |x, y| if dot(x, y) { 0.0 } else { 255.0 })));
        // A faint stroke of three pixels' width, 20 grey levels from its noisy paper.
        let stroke = |x: usize, y: usize| (50..53).contains(&x) && (10..50).contains(&y);
        let faint = |x, y| 230.0 + scatter(x, y, 2.0) - if stroke(x, y) { 20.0 } else { 0.0 };
        assert!(!is_blank(&picture(400, 60, faint)));
        // Three grey levels from paper that is flat, or nearly.
        for paper in [0.0, 0.2] {
            let faint = |x, y| {
                (240.0 + scatter(x, y, paper)).round() - if stroke(x, y) { 3.0 } else { 0.0 }
            };
            assert!(!is_blank(&picture(400, 60, faint)), "{paper}");
            assert!(is_blank(&picture(400, 60, |x, y| (240.0 + scatter(x, y, paper)).round())));
        }
        let stripes = |x: usize, _| if x % 4 < 2 { 0.0 } else { 255.0 };
        assert!(!is_blank(&picture(40, 60, stripes)));
        assert!(!is_blank(&picture(20, 31, |_, y| if y % 4 < 2 { 90.0 } else { 200.0 })));
        let inverse = |x, y| if stroke(x, y) { 40.0 } else { 10.0 };
        assert!(!is_blank(&picture(400, 60, inverse)));
    }
}
