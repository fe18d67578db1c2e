//! A plane of numbers and what can be done to it: the ink of a line before it becomes a picture.

use fastrand::Rng;

/// Rows of numbers; in a line's plane 0 is paper and 1 is full ink.
#[derive(Clone)]
pub(crate) struct Plane {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) data: Vec<f32>,
}

/// A number from `low` to `high`.
pub(crate) fn uniform(rng: &mut Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.f32()
}

/// A normal number of mean 0 and variance 1, near enough: the sum of four uniform ones.
pub(crate) fn normal(rng: &mut Rng) -> f32 {
    let bits = rng.u64(..);
    let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xFFFF).sum();
    (sum as f32 / 65536.0 - 2.0) * 1.732
}

impl Plane {
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Plane { width, height, data: vec![0.0; width * height] }
    }

    /// The value at a place; 0 outside.
    fn at(&self, x: isize, y: isize) -> f32 {
        if x < 0 || y < 0 || x as usize >= self.width || y as usize >= self.height {
            return 0.0;
        }
        self.data[y as usize * self.width + x as usize]
    }

    /// The value between four places; 0 outside.
    fn between(&self, x: f32, y: f32) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = (x - left, y - top);
        let (left, top) = (left as isize, top as isize);
        let upper = self.at(left, top) * (1.0 - fx) + self.at(left + 1, top) * fx;
        let lower = self.at(left, top + 1) * (1.0 - fx) + self.at(left + 1, top + 1) * fx;
        upper * (1.0 - fy) + lower * fy
    }

    /// Left, top, right, bottom of all ink; right and bottom lie just outside.
    pub(crate) fn bounds(&self) -> Option<[usize; 4]> {
        let inked = |row: &[f32]| row.iter().any(|value| *value > 0.05);
        let top = self.data.chunks(self.width).position(inked)?;
        let bottom = self.data.chunks(self.width).rposition(inked)? + 1;
        let rows = &self.data[top * self.width..bottom * self.width];
        let column = |x: &usize| rows.iter().skip(*x).step_by(self.width).any(|v| *v > 0.05);
        let left = (0..self.width).find(column)?;
        let right = (0..self.width).rev().find(column)? + 1;
        Some([left, top, right, bottom])
    }

    /// A part, which may reach outside.
    pub(crate) fn crop(&self, left: isize, top: isize, width: usize, height: usize) -> Plane {
        let mut part = Plane::new(width, height);
        for y in 0..height {
            for x in 0..width {
                part.data[y * width + x] = self.at(left + x as isize, top + y as isize);
            }
        }
        part
    }

    /// Every pixel taken from the place that `source` tells.
    pub(crate) fn warp(&self, source: impl Fn(f32, f32) -> (f32, f32)) -> Plane {
        let mut out = Plane::new(self.width, self.height);
        for y in 0..self.height {
            for x in 0..self.width {
                let (sx, sy) = source(x as f32, y as f32);
                out.data[y * self.width + x] = self.between(sx, sy);
            }
        }
        out
    }

    /// Another size: each new pixel is the mean of what it covers.
    pub(crate) fn resize(&self, width: usize, height: usize) -> Plane {
        let rows = stretch(&self.data, self.width, self.height, width, true);
        Plane { width, height, data: stretch(&rows, width, self.height, height, false) }
    }

    /// Gaussian blur by three boxes.
    pub(crate) fn blur(&mut self, sigma: f32) {
        // Small sigmas by a kernel of three, since boxes start at three.
        if sigma < 0.75 {
            let side = (-0.5 / (sigma * sigma).max(1e-3)).exp();
            self.convolve([side, 1.0, side].map(|weight| weight / (1.0 + 2.0 * side)));
            return;
        }
        let times = (sigma * sigma / 0.667).round().clamp(1.0, 12.0) as usize;
        for _ in 0..times {
            self.convolve([1.0 / 3.0; 3]);
        }
    }

    fn convolve(&mut self, [a, b, c]: [f32; 3]) {
        let (width, height) = (self.width, self.height);
        if width < 2 || height < 2 {
            return;
        }
        for row in self.data.chunks_mut(width) {
            let mut before = row[0];
            for x in 0..width {
                let now = row[x];
                let after = row[(x + 1).min(width - 1)];
                row[x] = a * before + b * now + c * after;
                before = now;
            }
        }
        let mut before: Vec<f32> = self.data[..width].to_vec();
        for y in 0..height {
            let next = (y + 1).min(height - 1) * width;
            for (x, above) in before.iter_mut().enumerate() {
                let now = self.data[y * width + x];
                self.data[y * width + x] = a * *above + b * now + c * self.data[next + x];
                *above = now;
            }
        }
    }

    /// Thicker ink: each pixel takes the largest of itself, its right and its lower neighbour.
    pub(crate) fn dilate(&mut self) {
        self.neighbours(f32::max);
    }

    /// Thinner ink.
    pub(crate) fn erode(&mut self) {
        self.neighbours(f32::min);
    }

    fn neighbours(&mut self, pick: fn(f32, f32) -> f32) {
        for y in 0..self.height {
            for x in 0..self.width {
                let place = y * self.width + x;
                let mut value = self.data[place];
                if x + 1 < self.width {
                    value = pick(value, self.data[place + 1]);
                }
                if y + 1 < self.height {
                    value = pick(value, self.data[place + self.width]);
                }
                self.data[place] = value;
            }
        }
    }

    /// Slow noise from 0 to 1: random numbers on a grid of `step` pixels, and straight lines between.
    pub(crate) fn clouds(width: usize, height: usize, step: f32, rng: &mut Rng) -> Plane {
        let columns = (width as f32 / step) as usize + 2;
        let rows = (height as f32 / step) as usize + 2;
        let mut grid = Plane::new(columns, rows);
        grid.data.iter_mut().for_each(|value| *value = rng.f32());
        let mut out = Plane::new(width, height);
        for y in 0..height {
            for x in 0..width {
                out.data[y * width + x] = grid.between(x as f32 / step, y as f32 / step);
            }
        }
        out
    }
}

/// One axis to another length. `across` tells whether it is the axis of the columns.
fn stretch(data: &[f32], width: usize, height: usize, to: usize, across: bool) -> Vec<f32> {
    let from = if across { width } else { height };
    let scale = from as f32 / to as f32;
    let reach = scale.max(1.0) / 2.0;
    let mut out = vec![0.0; if across { to * height } else { width * to }];
    for target in 0..to {
        let centre = (target as f32 + 0.5) * scale;
        let first = (centre - reach).max(0.0) as usize;
        let last = ((centre + reach).ceil() as usize).clamp(first + 1, from);
        let share = |i: usize| {
            let (low, high) =
                ((centre - reach).max(i as f32), (centre + reach).min(i as f32 + 1.0));
            (high - low).max(0.0)
        };
        let weights: Vec<f32> = (first..last).map(share).collect();
        let total: f32 = weights.iter().sum::<f32>().max(1e-6);
        for (offset, weight) in weights.iter().enumerate() {
            let (source, weight) = (first + offset, weight / total);
            if across {
                for y in 0..height {
                    out[y * to + target] += weight * data[y * width + source];
                }
            } else {
                let (from, into) = (source * width, target * width);
                for x in 0..width {
                    out[into + x] += weight * data[from + x];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar() -> Plane {
        let mut plane = Plane::new(20, 10);
        (4..6).for_each(|y| plane.data[y * 20 + 5..y * 20 + 15].fill(1.0));
        plane
    }

    #[test]
    fn bounds_and_crops() {
        assert_eq!(bar().bounds(), Some([5, 4, 15, 6]));
        assert_eq!(Plane::new(3, 3).bounds(), None);
        let part = bar().crop(-2, 3, 30, 4);
        assert_eq!(part.bounds(), Some([7, 1, 17, 3]));
    }

    #[test]
    fn ink_is_kept_by_blur_and_by_size() {
        let ink = |plane: &Plane| plane.data.iter().sum::<f32>();
        let mut blurred = bar();
        blurred.blur(1.0);
        assert!((ink(&blurred) - 20.0).abs() < 0.2, "{}", ink(&blurred));
        let half = bar().resize(10, 5);
        assert!((ink(&half) * 4.0 - 20.0).abs() < 0.01, "{}", ink(&half));
        let larger = bar().resize(40, 20);
        assert!((ink(&larger) / 4.0 - 20.0).abs() < 0.2, "{}", ink(&larger));
    }

    #[test]
    fn a_warp_that_moves_nothing_changes_nothing() {
        assert_eq!(bar().warp(|x, y| (x, y)).data, bar().data);
        assert_eq!(bar().warp(|x, y| (x + 1.0, y)).bounds(), Some([4, 4, 14, 6]));
    }

    #[test]
    fn ink_spreads_and_shrinks() {
        let mut thick = bar();
        thick.dilate();
        assert_eq!(thick.bounds(), Some([4, 3, 15, 6]));
        let mut thin = bar();
        thin.erode();
        assert_eq!(thin.bounds(), Some([5, 4, 14, 5]));
    }

    #[test]
    fn noise_is_normal_enough() {
        let mut rng = Rng::with_seed(3);
        let values: Vec<f32> = (0..20000).map(|_| normal(&mut rng)).collect();
        let mean = values.iter().sum::<f32>() / 20000.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 20000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
