//! A line cut out of its page and turned level.

use super::{Line, Rect};
use crate::image::Rgb8;

/// Cuts the line of these pieces (`pieces` on the page as it is, `level` around them once level), both in
/// pixels of the ink, `scale` of the page's pixels each.
pub(super) fn line(page: &Rgb8, pieces: &[Rect], level: &Rect, slope: f32, scale: f32) -> Line {
    let around = pieces.iter().copied().reduce(|a, b| a.join(&b)).unwrap_or(*level);
    let within = |value: f32, most: usize| (value * scale).clamp(0.0, most as f32) as u32;
    // One pixel of the ink around: edges are paler than the threshold.
    let bbox = [
        within(around.left - 1.0, page.width),
        within(around.top - 1.0, page.height),
        within(around.right + 1.0, page.width),
        within(around.bottom + 1.0, page.height),
    ];
    Line { bbox, image: levelled(page, level, slope, scale) }
}

/// The level picture: rows of the page along the slope, in a margin of the line's own background.
fn levelled(page: &Rgb8, level: &Rect, slope: f32, scale: f32) -> Rgb8 {
    let (width, height) = (level.width() * scale, level.height() * scale);
    // Ink and its pale edge come from the page, the rest of the margin is plain.
    let edge = (0.08 * height).max(2.0).ceil();
    let margin = edge + (0.15 * height).ceil();
    let (out_width, out_height) =
        ((width + 2.0 * margin) as usize, (height + 2.0 * margin) as usize);
    let (left, top) = (level.left * scale - margin, level.top * scale - margin);
    // Glyphs were levelled by shifting; turning them upright too needs the rows of a column to lean.
    let middle = (level.top + level.bottom) / 2.0 * scale;
    let place = |x: f32, y: f32| {
        let (along, down) = (left + x, top + y - middle);
        (along - down * slope, along * slope + middle + down)
    };
    let background = background(page, &place, out_width, out_height, margin - edge);
    let mut data = Vec::with_capacity(out_width * out_height * 3);
    let plain = margin - edge;
    let inside = |at: usize, size: usize| at as f32 >= plain && (at as f32) < size as f32 - plain;
    for y in 0..out_height {
        for x in 0..out_width {
            let (from_x, from_y) = place(x as f32, y as f32);
            let from = (inside(x, out_width) && inside(y, out_height))
                .then(|| sample(page, from_x, from_y))
                .flatten();
            data.extend(from.unwrap_or(background));
        }
    }
    Rgb8 { width: out_width, height: out_height, data }
}

/// The median of the line's edges, channel by channel.
fn background(
    page: &Rgb8,
    place: &dyn Fn(f32, f32) -> (f32, f32),
    width: usize,
    height: usize,
    plain: f32,
) -> [u8; 3] {
    let last = height as f32 - plain - 1.0;
    let edges = (0..width).flat_map(|x| [place(x as f32, plain), place(x as f32, last)]);
    let pixels: Vec<[u8; 3]> = edges.filter_map(|(x, y)| sample(page, x, y)).collect();
    let mut median = [255; 3];
    for (channel, value) in median.iter_mut().enumerate() {
        let mut values: Vec<u8> = pixels.iter().map(|pixel| pixel[channel]).collect();
        values.sort_unstable();
        *value = values.get(values.len() / 2).copied().unwrap_or(255);
    }
    median
}

/// Bilinear; none outside the page.
fn sample(page: &Rgb8, x: f32, y: f32) -> Option<[u8; 3]> {
    let inside = x >= 0.0 && y >= 0.0 && x < page.width as f32 && y < page.height as f32;
    if !inside {
        return None;
    }
    let (left, top) = (x as usize, y as usize);
    let (right, bottom) = ((left + 1).min(page.width - 1), (top + 1).min(page.height - 1));
    let (across, down) = (x - left as f32, y - top as f32);
    let at = |x: usize, y: usize, channel: usize| {
        f32::from(page.data[(y * page.width + x) * 3 + channel])
    };
    let mix = |channel: usize| {
        let upper = at(left, top, channel) * (1.0 - across) + at(right, top, channel) * across;
        let lower =
            at(left, bottom, channel) * (1.0 - across) + at(right, bottom, channel) * across;
        (upper * (1.0 - down) + lower * down).round() as u8
    };
    Some([mix(0), mix(1), mix(2)])
}
