//! Positions: of tokens that skip padding, sinusoidal tables, relative keys, 2-D interpolation.

use tch::{Device, Kind, Tensor};

use super::cache::Cache;
use super::precision::low;

/// Positions past, past+1, .. of t new tokens. -> [t]
pub fn plain(t: i64, past: i64, device: Device) -> Tensor {
    Tensor::arange_start(past, past + t, (Kind::Int64, device))
}

/// Positions of the RoBERTa family (fairseq): padding stays at `padding_idx`, the others count on
/// from `padding_idx + 1` (reference: `create_position_ids_from_input_ids`). Remembers in the cache
/// how many tokens were no padding. ids [N, t] -> [N, t]
pub fn skipping_padding(ids: &Tensor, padding_idx: i64, cache: &mut Cache) -> Tensor {
    let mask = ids.ne(padding_idx).to_kind(Kind::Int64); // [N, t]
    let counted = match &cache.counted {
        Some(counted) => counted.shallow_clone(),
        None => Tensor::zeros([ids.size()[0], 1], (Kind::Int64, ids.device())),
    };
    let before = if cache.counts_padding {
        counted.full_like(cache.past())
    } else {
        counted.shallow_clone()
    };
    let positions = (mask.cumsum(1, Kind::Int64) + before) * &mask + padding_idx;
    cache.counted = Some(counted + mask.sum_dim_intlist(1, true, Kind::Int64));
    positions
}

/// The sinusoidal table of fairseq (`SinusoidalPositionalEmbedding`): rows [sin.. | cos..] with
/// frequencies exp(-j·ln(10000)/(D/2-1)); the row `padding_idx` is zero. -> [rows, D]
pub fn sinusoidal_fairseq(rows: i64, d: i64, padding_idx: Option<i64>) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    let half = d / 2;
    let step = 10000f64.ln() / (half - 1).max(1) as f64;
    let frequencies = (Tensor::arange(half, options) * -step).exp(); // [D/2]
    let angles = Tensor::arange(rows, options).unsqueeze(1) * frequencies.unsqueeze(0); // [rows, D/2]
    let mut table = Tensor::cat(&[angles.sin(), angles.cos()], 1);
    if d % 2 == 1 {
        table = Tensor::cat(&[table, Tensor::zeros([rows, 1], options)], 1);
    }
    if let Some(row) = padding_idx.filter(|row| (0..rows).contains(row)) {
        let _ = table.get(row).zero_();
    }
    table
}

/// The sinusoidal table of Marian and Pegasus: [sin of even | cos of odd frequencies] with angles
/// pos / 10000^(2⌊j/2⌋/D), computed in f64 as the reference does with numpy. -> [rows, D]
pub fn sinusoidal_marian(rows: i64, d: i64) -> Tensor {
    let sines = (d + 1) / 2;
    let mut table = vec![0f32; (rows * d) as usize];
    for (position, row) in table.chunks_mut(d as usize).enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            // Column j holds frequency 2j of the sines, then frequency 2(j - D/2) + 1 of the cosines.
            let j = j as i64;
            let source = if j < sines { 2 * j } else { 2 * (j - sines) + 1 };
            let angle = position as f64 / 10000f64.powf(2.0 * (source / 2) as f64 / d as f64);
            *value = if j < sines { angle.sin() } else { angle.cos() } as f32;
        }
    }
    Tensor::from_slice(&table).reshape([rows, d])
}

/// The fixed positions of a grid (h, w) of ViT-MAE and AIMv2: sines and cosines of the column, then of
/// the row, with frequencies 10000^(-4j/D) (`get_2d_sincos_pos_embed`). D is a multiple of 4.
/// -> [h·w, D]
pub fn sinusoidal_grid((height, width): (i64, i64), d: i64) -> Tensor {
    let quarter = d / 4;
    let mut table = vec![0f32; (height * width * d) as usize];
    for (i, row) in table.chunks_mut(d as usize).enumerate() {
        let place = (i as i64 / width, i as i64 % width);
        for (j, value) in row.iter_mut().enumerate() {
            let (part, j) = (j as i64 / quarter, j as i64 % quarter);
            let position = if part < 2 { place.1 } else { place.0 };
            let angle = position as f64 / 10000f64.powf(4.0 * j as f64 / d as f64);
            *value = if part % 2 == 0 { angle.sin() } else { angle.cos() } as f32;
        }
    }
    Tensor::from_slice(&table).reshape([height * width, d])
}

/// What self-attention knows of distances between tokens.
pub enum Relative {
    Key(RelativeKey),
    Rotary(Rotary),
}

/// Rotary positions (Su et al. 2021): queries and keys are turned by an angle that grows with the
/// position, so that their product depends on the distance alone.
pub struct Rotary {
    /// Sines and cosines of each position and pair of channels, [P, d/2] each.
    pub sin: Tensor,
    pub cos: Tensor,
    /// True: values are turned too.
    pub value: bool,
}

impl Rotary {
    /// The same tables once more; nothing is copied.
    pub fn share(&self) -> Self {
        let (sin, cos) = (self.sin.shallow_clone(), self.cos.shallow_clone());
        Rotary { sin, cos, value: self.value }
    }

    /// Turns the neighbouring channels (2i, 2i + 1) of tokens past, past+1, ..
    /// [N, A, t, d] -> [N, A, t, d]
    pub fn turn(&self, xs: &Tensor, past: i64) -> Tensor {
        let size = xs.size();
        let t = size[2];
        let (sin, cos) = (self.sin.narrow(0, past, t), self.cos.narrow(0, past, t)); // [t, d/2]
        let pairs = xs.unflatten(-1, [-1, 2]); // [N, A, t, d/2, 2]
        let (even, odd) = (pairs.select(-1, 0), pairs.select(-1, 1));
        let turned = [&even * &cos - &odd * &sin, &odd * &cos + &even * &sin];
        Tensor::stack(&turned, -1).reshape(size)
    }
}

/// BERT's `position_embedding_type` relative_key and relative_key_query (Shaw et al. 2018,
/// Huang et al. 2020).
pub struct RelativeKey {
    /// [2·max - 1, d]
    pub distance_embedding: Tensor,
    /// True for relative_key_query: keys meet the distances too.
    pub with_key: bool,
}

impl RelativeKey {
    /// What is added to the unscaled scores. q [N, A, t, d], keys [N, A, T, d] -> [N, A, t, T]
    pub fn bias(&self, q: &Tensor, keys: &Tensor, past: i64) -> Tensor {
        let (t, total) = (q.size()[2], keys.size()[2]);
        let left = plain(t, past, q.device()).unsqueeze(1);
        let right = plain(total, 0, q.device()).unsqueeze(0);
        let center = (self.distance_embedding.size()[0] - 1) / 2;
        let distance =
            Tensor::embedding(&self.distance_embedding, &(left - right + center), -1, false, false); // [t, T, d]
        let path = None::<&[i64]>;
        let scores = Tensor::einsum("bhld,lrd->bhlr", &[low(q), low(&distance)], path);
        if !self.with_key {
            return scores;
        }
        scores + Tensor::einsum("bhrd,lrd->bhlr", &[low(keys), low(&distance)], path)
    }
}

/// Patch positions [1, h·w, D] of a grid (h, w), bicubically resized to another grid, as ViT's
/// `interpolate_pos_encoding` does (a = -0.75, align_corners false, optional antialiasing).
/// -> [1, h'·w', D]
pub fn interpolate_grid(
    positions: &Tensor,
    from: (i64, i64),
    to: (i64, i64),
    antialias: bool,
) -> Tensor {
    if from == to {
        return positions.shallow_clone();
    }
    let d = positions.size()[2];
    let grid = positions.reshape([-1, from.0, from.1, d]).permute([0, 3, 1, 2]); // [L, D, h, w]
    let kind = grid.kind();
    let grid = grid.to_kind(Kind::Float);
    let resized = if antialias {
        grid.internal_upsample_bicubic2d_aa([to.0, to.1], false, None, None)
    } else {
        grid.upsample_bicubic2d([to.0, to.1], false, None, None)
    };
    resized.to_kind(kind).permute([0, 2, 3, 1]).reshape([-1, to.0 * to.1, d])
}

/// Patch positions [1, P, D] for an image of `size` (H, W) whose patches are a grid (h, w), as the
/// reference's `interpolate_pos_encoding` has it: a square image of as many patches takes them as they
/// are; for all others they are read as a square, whatever the config's image_size, and resized.
/// `fits_square` says whether that works. -> [1, h·w, D]
pub fn interpolate_square(
    positions: &Tensor,
    size: (i64, i64),
    grid: (i64, i64),
    antialias: bool,
) -> Tensor {
    let count = positions.size()[1];
    if count == grid.0 * grid.1 && size.0 == size.1 {
        return positions.shallow_clone();
    }
    let side = count.isqrt();
    interpolate_grid(positions, (side, side), grid, antialias)
}

/// True if `interpolate_square` can fit `count` positions to this image.
pub fn fits_square(count: i64, size: (i64, i64), grid: (i64, i64)) -> bool {
    (count == grid.0 * grid.1 && size.0 == size.1) || count.isqrt().pow(2) == count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &Tensor, expected: &[f64], bound: f64) {
        let found: Vec<f64> = Vec::try_from(found.flatten(0, -1)).expect("numbers");
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= bound, "{found} for {expected}");
        }
    }

    #[test]
    fn padding_keeps_its_place() {
        let table: &[(&[i64], &[i64])] =
            &[(&[2, 5, 1, 7], &[2, 3, 1, 4]), (&[1, 0, 5, 6, 2], &[1, 2, 3, 4, 5])];
        for (ids, expected) in table {
            let ids = Tensor::from_slice(ids).unsqueeze(0);
            let found = skipping_padding(&ids, 1, &mut Cache::new(0));
            assert_eq!(Vec::<i64>::try_from(found.squeeze()).expect("ids"), *expected);
        }
    }

    #[test]
    fn a_cached_step_counts_the_cache_or_the_tokens() {
        for (counts_padding, expected) in [(true, 3), (false, 2)] {
            let mut cache = Cache::new(0);
            cache.counts_padding = counts_padding;
            let _ = skipping_padding(&Tensor::from_slice(&[1i64]).unsqueeze(0), 1, &mut cache);
            cache.advance(1);
            let next = skipping_padding(&Tensor::from_slice(&[9i64]).unsqueeze(0), 1, &mut cache);
            assert_eq!(i64::try_from(next.squeeze()).expect("id"), expected);
        }
    }

    #[test]
    fn sinusoidal_tables_are_those_of_the_reference() {
        let fairseq = sinusoidal_fairseq(4, 6, Some(1));
        close(&fairseq.get(0), &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0], 0.0);
        close(&fairseq.get(1), &[0.0; 6], 0.0);
        let row = [0.9092974, 0.01999867, 0.0002, -0.4161468, 0.9998, 1.0];
        close(&fairseq.get(2), &row, 1e-6);
        let row = [0.841471, 0.046399, 0.002154, 0.540302, 0.998923, 0.999998];
        close(&sinusoidal_marian(3, 6).get(1), &row, 1e-6);
    }

    #[test]
    fn columns_come_before_rows() {
        // `get_2d_sincos_pos_embed(8, 2)[1]`: row 0, column 1.
        let expected = [0.84147098, 0.00999983, 0.54030231, 0.99995, 0.0, 0.0, 1.0, 1.0];
        close(&sinusoidal_grid((2, 2), 8).get(1), &expected, 1e-7);
        // `build_2d_sincos_position_embedding(2, 3, embed_dim=4)[0, 5]`: row 1, column 2.
        let expected = [0.90929743, -0.41614684, 0.84147098, 0.54030231];
        close(&sinusoidal_grid((2, 3), 4).get(5), &expected, 1e-7);
    }

    #[test]
    fn a_grid_is_interpolated_by_size() {
        let grid = Tensor::from_slice(&[2f32, 4.0, 6.0, 8.0]).reshape([1, 4, 1]);
        let expected = [
            1.4791672, 2.6527781, 3.8263898, 3.8263893, 5.0, 6.1736116, 6.1736121, 7.3472223,
            8.5208330,
        ];
        close(&interpolate_grid(&grid, (2, 2), (3, 3), false), &expected, 2e-6);
    }
}
