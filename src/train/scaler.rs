//! Dynamic scaling of the loss for f16 (Micikevicius et al. 2018), with the numbers of `torch.amp.GradScaler`:
//! gradients below f16's smallest number would be lost, so the loss is multiplied before the backward pass
//! and the gradients are divided after it.

use serde::{Deserialize, Serialize};

/// Steps in a row without overflow after which the scale doubles.
const GROWTH_INTERVAL: u64 = 2000;

/// The scale, and what it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    pub scale: f64,
    /// Steps without overflow since the scale last changed.
    pub growth_tracker: u64,
    /// Steps that were left out so far.
    pub skipped: u64,
}

impl Default for Scaler {
    fn default() -> Self {
        Scaler { scale: 65536.0, growth_tracker: 0, skipped: 0 }
    }
}

impl Scaler {
    /// After a step: whether all gradients were finite.
    pub fn update(&mut self, finite: bool) {
        if !finite {
            self.scale *= 0.5;
            self.growth_tracker = 0;
            self.skipped += 1;
            return;
        }
        self.growth_tracker += 1;
        if self.growth_tracker == GROWTH_INTERVAL {
            self.scale *= 2.0;
            self.growth_tracker = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.amp.GradScaler("cpu")`: its scale after steps with and without an infinite gradient.
    #[test]
    fn the_scale_moves_as_the_reference_s() {
        let mut scaler = Scaler::default();
        // Steps of a kind, whether they are finite, the scale afterwards.
        let table = [
            (2, false, 16384.0),
            (1999, true, 16384.0),
            (1, true, 32768.0),
            (1999, true, 32768.0),
            (1, false, 16384.0),
            (1999, true, 16384.0),
            (1, true, 32768.0),
        ];
        for (steps, finite, expected) in table {
            (0..steps).for_each(|_| scaler.update(finite));
            assert_eq!(scaler.scale, expected);
        }
        assert_eq!(scaler.skipped, 3);
    }
}
