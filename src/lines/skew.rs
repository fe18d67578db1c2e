//! The skew of a page, from the projection profiles of its pieces of ink.

use super::ink::Piece;

/// The steepest slope that is looked for: about nine degrees.
const STEEPEST: f32 = 0.16;

/// How far text goes down (positive) for each pixel to the right; 0 where the page does not tell.
pub(super) fn slope(pieces: &[Piece], height: f32) -> f32 {
    let glyphs: Vec<&Piece> = pieces
        .iter()
        .filter(|piece| piece.rect.height() >= 0.5 * height && piece.rect.height() <= 3.0 * height)
        .collect();
    let left = glyphs.iter().map(|piece| piece.rect.left).fold(f32::MAX, f32::min);
    let right = glyphs.iter().map(|piece| piece.rect.right).fold(0.0, f32::max);
    if glyphs.len() < 5 || right - left < 5.0 * height {
        return 0.0;
    }
    // A step moves the far end of the widest line by a part of a glyph.
    let fine = (0.08 * height / (right - left)).max(0.0003);
    let coarse = (4.0 * fine).min(0.01);
    let level = sharpness(&glyphs, 0.0, height);
    let best = sharpest(&glyphs, height, 0.0, STEEPEST, coarse);
    let best = sharpest(&glyphs, height, best, coarse, fine);
    // Less than a part of a glyph over the whole width is not worth the blur of turning.
    let matters = best.abs() * (right - left) > 0.15 * height;
    if matters && sharpness(&glyphs, best, height) > 1.03 * level { best } else { 0.0 }
}

/// The sharpest slope within `reach` of the middle; of equals, the nearest to it.
fn sharpest(glyphs: &[&Piece], height: f32, middle: f32, reach: f32, step: f32) -> f32 {
    let steps = (reach / step).ceil() as i32;
    let mut slopes: Vec<f32> = (-steps..=steps).map(|index| middle + index as f32 * step).collect();
    slopes.sort_by(|a, b| (a - middle).abs().total_cmp(&(b - middle).abs()));
    let scored = slopes.into_iter().map(|slope| (sharpness(glyphs, slope, height), slope));
    scored.fold((-1.0, middle), |best, next| if next.0 > best.0 { next } else { best }).1
}

/// How sharp the profile of tops and feet is along lines of a slope: the sum of squares of a histogram
/// smoothed over a few rows.
fn sharpness(glyphs: &[&Piece], slope: f32, height: f32) -> f32 {
    let bin = (height / 8.0).max(1.0);
    let at = |piece: &Piece, y: f32| {
        let middle = (piece.rect.left + piece.rect.right) / 2.0;
        (y - middle * slope) / bin
    };
    let feet: Vec<f32> = glyphs.iter().map(|piece| at(piece, piece.rect.bottom)).collect();
    let tops: Vec<f32> = glyphs.iter().map(|piece| at(piece, piece.rect.top)).collect();
    let weights: Vec<f32> =
        glyphs.iter().map(|piece| (piece.rect.width() / height).clamp(0.3, 3.0)).collect();
    let mut score = 0.0;
    for places in [feet, tops] {
        let first = places.iter().copied().fold(f32::MAX, f32::min).floor();
        let last = places.iter().copied().fold(f32::MIN, f32::max).floor();
        let mut histogram = vec![0.0; (last - first) as usize + 2];
        for (place, weight) in places.iter().zip(&weights) {
            // Each place is shared between two rows, so that slopes change the score smoothly.
            let part = place - place.floor();
            let row = (place.floor() - first) as usize;
            histogram[row] += weight * (1.0 - part);
            histogram[row + 1] += weight * part;
        }
        score += histogram.iter().map(|count| count * count).sum::<f32>();
    }
    score
}
