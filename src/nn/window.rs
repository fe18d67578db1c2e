//! Attention within windows (Liu et al. 2021): cutting, shifting, relative positions, merging.

use tch::{Device, Kind, Tensor};

/// What the reference adds to the scores of tokens that the cyclic shift brought together.
const FAR: f64 = -100.0;

/// A map [B, h, w, C] cut into windows of w×w tokens, if need be after a cyclic shift.
pub struct Windows {
    map: (i64, i64),
    side: i64,
    /// Size of the shift, and what its seams add to the scores.
    shift: Option<(i64, Seams)>,
}

/// Masks of the windows that a seam runs through, [w², w²] each. After a shift that is the last row
/// and the last column of windows; all others hold neighbours only.
struct Seams {
    row: Tensor,
    column: Tensor,
    both: Tensor,
}

impl Windows {
    /// `shift` 0 is no shift; `far` counts how often the family adds the mask; `like` has the kind and the
    /// device of the maps to come.
    pub fn new(map: (i64, i64), side: i64, shift: i64, far: f64, like: &Tensor) -> Self {
        let shift = (shift > 0)
            .then(|| (shift, Seams::new(side, shift, far * FAR, like.kind(), like.device())));
        Windows { map, side, shift }
    }

    /// Applies `attention` to the tokens of every window, [n, w², C], and the bias of their scores,
    /// broadcast to [n, A, w², w²]; the result has the shape of the tokens. Where the windows reach over
    /// the map's edge they hold zeros, which take part as tokens.
    /// xs [B, h, w, C], bias [1, A, w², w²] -> [B, h, w, C]
    pub fn attend(
        &self,
        xs: &Tensor,
        bias: &Tensor,
        attention: impl Fn(&Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let whole = self.pad(xs); // [B, H, W, C]
        let height = whole.size()[1];
        let attended = match &self.shift {
            None => self.within(&whole, bias, &attention),
            Some((shift, seams)) => {
                let shifted = whole.roll([-shift, -shift], [1, 2]);
                let inner = height - self.side;
                // Per strip of rows: first row, number of rows, bias of the inner windows, of the last.
                let strips = [
                    (0, inner, bias.shallow_clone(), bias + &seams.column),
                    (inner, self.side, bias + &seams.row, bias + &seams.both),
                ];
                let strips = strips.iter().filter(|(_, rows, ..)| *rows > 0);
                let strips: Vec<Tensor> = strips
                    .map(|(top, rows, left, right)| {
                        let strip = shifted.narrow(1, *top, *rows);
                        self.beside_each_other(&strip, left, right, &attention)
                    })
                    .collect();
                Tensor::cat(&strips, 1).roll([*shift, *shift], [1, 2])
            }
        };
        if self.is_whole() {
            return attended;
        }
        attended.narrow(1, 0, self.map.0).narrow(2, 0, self.map.1)
    }

    /// Applies `block` to the map, which calls the function that it is given, `attend`, for what its tokens
    /// (or what it makes of each) see of those of their windows: one token for one. Without `train` a large map
    /// on a CPU is done in strips of windows, as what a block makes on its way is many times as large.
    /// xs [B, h, w, C] -> [B, h, w, C]
    pub fn apply(
        &self,
        xs: &Tensor,
        bias: &Tensor,
        train: bool,
        attention: impl Fn(&Tensor, &Tensor) -> Tensor,
        block: impl Fn(&Tensor, &dyn Fn(&Tensor) -> Tensor) -> Tensor,
    ) -> Tensor {
        let (rows, is_whole) = (self.strip(xs), self.is_whole());
        if train || !is_whole || xs.device() != Device::Cpu || 2 * rows >= self.map.0 {
            return block(xs, &|xs| self.attend(xs, bias, &attention));
        }
        let Some((shift, seams)) = &self.shift else {
            let strips = xs.split(rows, 1);
            let strips = strips.iter().map(|xs| block(xs, &|xs| self.within(xs, bias, &attention)));
            return Tensor::cat(&strips.collect::<Vec<_>>(), 1);
        };
        let shift = *shift;
        let inner = self.map.0 - self.side;
        let strip = |xs: &Tensor, left: &Tensor, right: &Tensor| {
            let done = block(&xs.roll([-shift], [2]), &|xs| {
                self.beside_each_other(xs, left, right, &attention)
            });
            done.roll([shift], [2])
        };
        let column = bias + &seams.column;
        let tops = (0..inner).step_by(rows as usize);
        let mut strips: Vec<Tensor> = tops
            .map(|top| strip(&xs.narrow(1, top + shift, rows.min(inner - top)), bias, &column))
            .collect();
        // The last strip is the map's last rows and its first.
        let (rest, first) = (self.side - shift, xs.narrow(1, 0, shift));
        let last = Tensor::cat(&[xs.narrow(1, inner + shift, rest), first], 1);
        let last = strip(&last, &(bias + &seams.row), &(bias + &seams.both));
        strips.insert(0, last.narrow(1, rest, shift));
        strips.push(last.narrow(1, 0, rest));
        Tensor::cat(&strips, 1)
    }

    /// How many rows of tokens, whole windows, a strip of [B, h, w, C] has.
    fn strip(&self, xs: &Tensor) -> i64 {
        const TOKENS: i64 = 1 << 13;
        let of_windows = xs.size()[0] * self.map.1 * self.side;
        (TOKENS / of_windows.max(1)).max(1) * self.side
    }

    /// True where no window reaches over the map's edge.
    fn is_whole(&self) -> bool {
        self.map.0 % self.side == 0 && self.map.1 % self.side == 0
    }

    /// Zeros at the right and at the bottom, up to whole windows.
    fn pad(&self, xs: &Tensor) -> Tensor {
        let missing = |length: i64| (self.side - length % self.side) % self.side;
        pad_map(xs, (missing(self.map.0), missing(self.map.1)))
    }

    /// One bias for all windows of a strip [B, H, W, C] but the last of each row, and one for these.
    fn beside_each_other(
        &self,
        strip: &Tensor,
        left: &Tensor,
        right: &Tensor,
        attention: impl Fn(&Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let inner = strip.size()[2] - self.side;
        let right = self.within(&strip.narrow(2, inner, self.side), right, &attention);
        if inner == 0 {
            return right;
        }
        let left = self.within(&strip.narrow(2, 0, inner), left, &attention);
        Tensor::cat(&[left, right], 2)
    }

    /// One bias for all windows of [B, H, W, C], whole windows.
    fn within(
        &self,
        xs: &Tensor,
        bias: &Tensor,
        attention: impl Fn(&Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let size = xs.size();
        let (side, c) = (self.side, size[3]);
        let (rows, columns) = (size[1] / side, size[2] / side);
        let tokens = xs
            .reshape([size[0], rows, side, columns, side, c])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([-1, side * side, c]); // [B·rows·columns, w², C]
        attention(&tokens, bias)
            .reshape([size[0], rows, columns, side, side, c])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape(size)
    }
}

impl Seams {
    fn new(side: i64, shift: i64, far: f64, kind: Kind, device: Device) -> Self {
        // The last `shift` rows (columns) of a window come from the other end of the map.
        let wrapped = Tensor::arange(side, (Kind::Int64, device)).ge(side - shift);
        let row = wrapped.unsqueeze(1).expand([side, side], false).flatten(0, 1); // [w²]
        let column = wrapped.unsqueeze(0).expand([side, side], false).flatten(0, 1);
        let apart = |side: &Tensor| side.unsqueeze(0).ne_tensor(&side.unsqueeze(1)); // [w², w²]
        let (row, column) = (apart(&row), apart(&column));
        let both = row.logical_or(&column);
        let mask = |apart: Tensor| apart.to_kind(kind) * far;
        Seams { row: mask(row), column: mask(column), both: mask(both) }
    }
}

/// Adds zeros to a map [B, h, w, C] at the bottom and at the right.
pub fn pad_map(xs: &Tensor, (bottom, right): (i64, i64)) -> Tensor {
    if (bottom, right) == (0, 0) {
        return xs.shallow_clone();
    }
    xs.constant_pad_nd([0, 0, 0, right, 0, bottom])
}

/// Joins each 2×2 square of tokens, column by column; an odd map is padded with zeros first.
/// [B, h, w, C] -> [B, ⌈h/2⌉, ⌈w/2⌉, 4C]
pub fn merge_squares(xs: &Tensor) -> Tensor {
    let size = xs.size();
    let xs = pad_map(xs, (size[1] % 2, size[2] % 2));
    let (height, width) = ((size[1] + 1) / 2, (size[2] + 1) / 2);
    xs.reshape([size[0], height, 2, width, 2, size[3]]).permute([0, 1, 3, 4, 2, 5]).reshape([
        size[0],
        height,
        width,
        4 * size[3],
    ])
}

/// Number of each pair's relative position in a window of h×w tokens, (Δrow + h-1)·(2w-1) + Δcolumn +
/// w-1. -> [hw, hw]
pub fn relative_index((height, width): (i64, i64), device: Device) -> Tensor {
    let options = (Kind::Int64, device);
    let rows = Tensor::arange(height, options).repeat_interleave_self_int(width, None, None); // [hw]
    let columns = Tensor::arange(width, options).repeat([height]);
    let differences = |xs: &Tensor| xs.unsqueeze(1) - xs.unsqueeze(0); // [hw, hw]
    (differences(&rows) + (height - 1)) * (2 * width - 1) + differences(&columns) + (width - 1)
}

/// `relative_index` for a class token before h·w patches (BEiT): cls to patch, patch to cls and cls to
/// cls take the three numbers after those of the patches. -> [1+hw, 1+hw]
pub fn relative_index_with_cls(grid: (i64, i64), device: Device) -> Tensor {
    let distances = (2 * grid.0 - 1) * (2 * grid.1 - 1);
    let patches = relative_index(grid, device);
    let p = patches.size()[0];
    let fill = |size: [i64; 2], n: i64| Tensor::full(size, distances + n, (Kind::Int64, device));
    let first = Tensor::cat(&[fill([1, 1], 2), fill([1, p], 0)], 1);
    Tensor::cat(&[first, Tensor::cat(&[fill([p, 1], 1), patches], 1)], 0)
}

/// A bias of attention scores from a table [R, A] and the pairs' numbers [S, S]. -> [1, A, S, S]
pub fn relative_bias(table: &Tensor, index: &Tensor) -> Tensor {
    let s = index.size()[0];
    table
        .index_select(0, &index.flatten(0, 1))
        .reshape([s, s, -1])
        .permute([2, 0, 1])
        .contiguous()
        .unsqueeze(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CPU: Device = Device::Cpu;

    fn rows(xs: &Tensor) -> Vec<Vec<f64>> {
        Vec::try_from(xs.to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn pairs_are_numbered_by_their_distance() {
        let expected: [[f64; 4]; 4] = [
            [4.0, 3.0, 1.0, 0.0],
            [5.0, 4.0, 2.0, 1.0],
            [7.0, 6.0, 4.0, 3.0],
            [8.0, 7.0, 5.0, 4.0],
        ];
        assert_eq!(rows(&relative_index((2, 2), CPU)), expected);
        assert_eq!(rows(&relative_index((1, 2), CPU)), [[1.0, 0.0], [2.0, 1.0]]);
    }

    #[test]
    fn cls_has_three_numbers_of_its_own() {
        let square: &[&[i64]] = &[
            &[11, 9, 9, 9, 9],
            &[10, 4, 3, 1, 0],
            &[10, 5, 4, 2, 1],
            &[10, 7, 6, 4, 3],
            &[10, 8, 7, 5, 4],
        ];
        let row: &[&[i64]] = &[&[5, 3, 3], &[4, 1, 0], &[4, 2, 1]];
        for (grid, expected) in [((2, 2), square), ((1, 2), row)] {
            let found: Vec<Vec<i64>> = Vec::try_from(relative_index_with_cls(grid, CPU)).unwrap();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_bias_lies_head_by_head() {
        let table = Tensor::arange(6, (Kind::Float, CPU)).reshape([3, 2]);
        let bias = relative_bias(&table, &relative_index((1, 2), CPU));
        assert_eq!(bias.size(), [1, 2, 2, 2]);
        assert_eq!(rows(&bias.reshape([2, 4])), [[2.0, 0.0, 4.0, 2.0], [3.0, 1.0, 5.0, 3.0]]);
    }

    #[test]
    fn seams_are_those_of_the_reference() {
        let seams = Seams::new(2, 1, -100.0, Kind::Float, CPU);
        let (o, x) = (0.0, -100.0);
        let table: [(&Tensor, [[f64; 4]; 4]); 3] = [
            (&seams.column, [[o, x, o, x], [x, o, x, o], [o, x, o, x], [x, o, x, o]]),
            (&seams.row, [[o, o, x, x], [o, o, x, x], [x, x, o, o], [x, x, o, o]]),
            (&seams.both, [[o, x, x, x], [x, o, x, x], [x, x, o, x], [x, x, x, o]]),
        ];
        for (found, expected) in table {
            assert_eq!(rows(found), expected);
        }
    }

    #[test]
    fn squares_are_joined_column_by_column() {
        let map = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).reshape([1, 2, 2, 1]);
        assert_eq!(rows(&merge_squares(&map).reshape([1, 4])), [[1.0, 3.0, 2.0, 4.0]]);
        let odd = map.narrow(1, 0, 1);
        assert_eq!(rows(&merge_squares(&odd).reshape([1, 4])), [[1.0, 0.0, 2.0, 0.0]]);
    }

    /// Strips of five windows, and what lies behind a seam apart.
    #[test]
    fn strips_of_a_large_map_are_what_the_whole_map_is() {
        let map = Tensor::arange(2 * 200 * 80 * 3, (Kind::Float, CPU)).reshape([2, 200, 80, 3]);
        let map = (map * 0.37).sin();
        let bias = Tensor::arange(10_000, (Kind::Float, CPU)).sin().reshape([1, 1, 100, 100]);
        for shift in [0, 5] {
            let windows = Windows::new((200, 80), 10, shift, 1.0, &map);
            assert_eq!(windows.strip(&map), 50);
            let attention = |tokens: &Tensor, bias: &Tensor| {
                (tokens.matmul(&tokens.transpose(1, 2)) + bias.squeeze_dim(1))
                    .softmax(-1, Kind::Float)
                    .matmul(tokens)
            };
            let calls = std::cell::Cell::new(0);
            let block = |xs: &Tensor, attend: &dyn Fn(&Tensor) -> Tensor| {
                calls.set(calls.get() + 1);
                xs + attend(&(xs * 2.0))
            };
            let apply = |train| windows.apply(&map, &bias, train, attention, block);
            let (whole, strips) = (apply(true), apply(false));
            assert_eq!(calls.get(), 1 + if shift == 0 { 4 } else { 5 });
            assert_eq!(strips.size(), whole.size());
            assert!(strips.allclose(&whole, 1e-6, 1e-6, false), "{shift}");
        }
    }

    /// Each window of a 4x4 map, shifted by 1, sees the tokens and the masks it should.
    #[test]
    fn a_shift_rolls_and_masks_and_comes_back() {
        let map = Tensor::arange(16, (Kind::Float, CPU)).reshape([1, 4, 4, 1]);
        let zero = Tensor::zeros([1, 1, 4, 4], (Kind::Float, CPU));
        let windows = Windows::new((4, 4), 2, 1, 1.0, &map);
        let back = windows.attend(&map, &zero, |tokens, _| tokens.shallow_clone());
        assert!(back.equal(&map));
        // The smallest token of a window marks it; its masked pairs are counted.
        let seen = windows.attend(&map, &zero, |tokens, bias| {
            let masked = bias.ne(0.0).sum(Kind::Float);
            tokens.amin([1], true).expand_as(tokens) * 100.0 + masked
        });
        // Rows and columns 1 and 2 hold the inner window; the map's four corners meet in the last one.
        let expected = [
            [12.0, 108.0, 108.0, 12.0],
            [408.0, 500.0, 500.0, 408.0],
            [408.0, 500.0, 500.0, 408.0],
            [12.0, 108.0, 108.0, 12.0],
        ];
        assert_eq!(rows(&seen.reshape([4, 4])), expected);
    }
}
