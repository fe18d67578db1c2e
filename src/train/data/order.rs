//! The order of an epoch: a function of seed and epoch alone.
//!
//! The reference's Trainer draws the order of epoch E with `torch.randperm(n)` from a generator with the
//! seed `seed + E` (accelerate's `SeedableRandomSampler`). So does this file, number by number: with
//! equal seeds both see the same examples in the same order.

/// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), as torch's generator on the CPU.
struct Mt19937 {
    state: [u32; 624],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u64) -> Self {
        let mut state = [0u32; 624];
        // torch keeps the low half of the seed.
        state[0] = seed as u32;
        for i in 1..624 {
            let previous = state[i - 1];
            state[i] =
                (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Mt19937 { state, next: 624 }
    }

    fn twist(&mut self) {
        for i in 0..624 {
            let bits = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7FFF_FFFF);
            let mix = if bits & 1 == 0 { 0 } else { 0x9908_B0DF };
            self.state[i] = self.state[(i + 397) % 624] ^ (bits >> 1) ^ mix;
        }
        self.next = 0;
    }

    fn random(&mut self) -> u32 {
        if self.next == 624 {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }
}

/// The numbers below `n` in an order drawn by `seed`: `torch.randperm(n, generator=manual_seed(seed))`.
pub fn permutation(n: usize, seed: u64) -> Vec<usize> {
    let mut generator = Mt19937::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in 0..n.saturating_sub(1) {
        let j = i + generator.random() as usize % (n - i);
        order.swap(i, j);
    }
    order
}

/// The rows of an epoch in their order, cut into batches of `batch_size` (the last may be smaller).
///
/// With `lengths`, rows of similar length share a batch: the shuffled order is cut into windows of 50
/// batches (the reference's `LengthGroupedSampler`), each window is sorted by length, and its batches
/// are taken in an order of their own, so that lengths do not fall in step within a window.
pub fn epoch_order(
    n: usize,
    batch_size: usize,
    shuffle: bool,
    lengths: Option<&[usize]>,
    seed: u64,
    epoch: u64,
) -> Vec<usize> {
    let seed = seed.wrapping_add(epoch);
    let order = if shuffle { permutation(n, seed) } else { (0..n).collect() };
    let Some(lengths) = lengths else { return order };
    let mut grouped = Vec::with_capacity(n);
    for (number, window) in order.chunks(batch_size * WINDOW).enumerate() {
        let mut window = window.to_vec();
        window.sort_by_key(|row| std::cmp::Reverse(lengths[*row]));
        let whole = window.len() / batch_size;
        for batch in permutation(whole, seed.wrapping_add(1 + number as u64)) {
            grouped.extend_from_slice(&window[batch * batch_size..(batch + 1) * batch_size]);
        }
        // Only the last window has rows that fill no batch: they stay last.
        grouped.extend_from_slice(&window[whole * batch_size..]);
    }
    grouped
}

/// Batches whose rows are sorted together.
const WINDOW: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_those_of_torch() {
        assert_eq!(permutation(10, 42), [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]);
        assert_eq!(permutation(10, 43), [8, 4, 9, 0, 5, 1, 6, 7, 2, 3]);
        assert_eq!(permutation(7, 0), [4, 0, 5, 3, 2, 6, 1]);
        let long = permutation(3000, 42);
        assert_eq!(long[..8], [1542, 1823, 1884, 1051, 1478, 1900, 1366, 1305]);
        assert_eq!(long[2996..], [513, 2250, 1825, 1853]);
        assert!(permutation(0, 1).is_empty());
    }

    #[test]
    fn groups_hold_every_row_once_and_similar_lengths() {
        let lengths: Vec<usize> = (0..1003).map(|row| (row * 7919) % 97).collect();
        let order = epoch_order(1003, 4, true, Some(&lengths), 42, 1);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1003));
        let spread = |rows: &[usize]| {
            let of = rows.iter().map(|row| lengths[*row]);
            of.clone().max().unwrap_or(0) - of.min().unwrap_or(0)
        };
        assert!(order[..1000].chunks(4).all(|batch| spread(batch) <= 10));
        let plain = epoch_order(1003, 4, true, None, 42, 1);
        assert!(plain.chunks(4).any(|batch| spread(batch) > 40));
    }
}
