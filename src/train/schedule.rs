//! Learning rates as pure functions of the step, as the reference's `optimization.py` has them.

use std::f64::consts::PI;
use std::str::FromStr;

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    Linear,
    Cosine,
    /// Cosine with hard restarts; one cycle, the reference's default, is a cosine that ends at 0.
    CosineWithRestarts,
    Polynomial,
    /// No warm-up at all, whatever the options say.
    Constant,
    ConstantWithWarmup,
    InverseSqrt,
}

/// Where a run stands in its schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub schedule: Schedule,
    /// The peak.
    pub learning_rate: f64,
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub max_steps: u64,
}

/// Names of all schedules, as `--lr-scheduler-type` takes them.
pub const NAMES: [&str; 7] = [
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
];

/// Where the reference's polynomial decay of power 1 ends.
const POLYNOMIAL_END: f64 = 1e-7;
/// The reference's time scale of `inverse_sqrt` without a warm-up.
const TIMESCALE: u64 = 10_000;

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "linear" => Schedule::Linear,
            "cosine" => Schedule::Cosine,
            "cosine_with_restarts" => Schedule::CosineWithRestarts,
            "polynomial" => Schedule::Polynomial,
            "constant" => Schedule::Constant,
            "constant_with_warmup" => Schedule::ConstantWithWarmup,
            "inverse_sqrt" => Schedule::InverseSqrt,
            _ => return Err(format!("expected one of {}", NAMES.join(", "))),
        })
    }
}

/// The number of warm-up steps: `steps`, or if that is 0 this share of all steps, rounded up
/// (`TrainingArguments.get_warmup_steps`).
pub fn warmup_steps(steps: u64, ratio: f64, max_steps: u64) -> u64 {
    if steps > 0 { steps } else { (max_steps as f64 * ratio).ceil() as u64 }
}

impl Rate {
    /// The learning rate of the step after `done` steps: the first one is `at(0)`.
    pub fn at(&self, done: u64) -> f64 {
        self.learning_rate * self.factor(done)
    }

    /// What multiplies the peak (`LambdaLR`'s function).
    fn factor(&self, done: u64) -> f64 {
        let (step, warmup, total) = (done as f64, self.warmup_steps as f64, self.max_steps as f64);
        if self.schedule == Schedule::Constant {
            return 1.0;
        }
        if done < self.warmup_steps {
            return step / warmup.max(1.0);
        }
        let progress = (step - warmup) / (total - warmup).max(1.0);
        match self.schedule {
            Schedule::Linear => ((total - step) / (total - warmup).max(1.0)).max(0.0),
            Schedule::Cosine => (0.5 * (1.0 + (PI * progress).cos())).max(0.0),
            Schedule::CosineWithRestarts if progress >= 1.0 => 0.0,
            Schedule::CosineWithRestarts => (0.5 * (1.0 + (PI * progress).cos())).max(0.0),
            Schedule::Polynomial => self.polynomial(progress),
            Schedule::Constant | Schedule::ConstantWithWarmup => 1.0,
            Schedule::InverseSqrt => {
                let timescale = if warmup > 0.0 { warmup } else { TIMESCALE as f64 };
                1.0 / ((step + timescale - warmup) / timescale).sqrt()
            }
        }
    }

    /// Power 1, down to 1e-7; a peak below that stays (the reference refuses one).
    fn polynomial(&self, progress: f64) -> f64 {
        let end = POLYNOMIAL_END.min(self.learning_rate);
        let left = (1.0 - progress).max(0.0);
        ((self.learning_rate - end) * left + end) / self.learning_rate
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Learning rates of `transformers.get_scheduler` at the steps 0, 1, 3, 4, 7, 11, 12, 13 with a peak
    /// of 5e-4, a warm-up of 4 (or 0) and 12 steps in all.
    #[test]
    fn rates_are_those_of_the_reference() {
        const STEPS: [u64; 8] = [0, 1, 3, 4, 7, 11, 12, 13];
        let table: &[(&str, u64, [f64; 8])] = RATES;
        for (name, warmup_steps, expected) in table {
            let rate = Rate {
                schedule: name.parse().unwrap(),
                learning_rate: 5e-4,
                warmup_steps: *warmup_steps,
                max_steps: 12,
            };
            for (step, expected) in STEPS.iter().zip(expected) {
                let found = rate.at(*step);
                assert!((found - expected).abs() <= 1e-16, "{name} {step}: {found} {expected}");
            }
        }
        assert!("linearly".parse::<Schedule>().is_err());
        assert!(NAMES.iter().all(|name| name.parse::<Schedule>().is_ok()));
    }

    #[test]
    fn a_share_of_the_steps_is_rounded_up() {
        for ((steps, ratio, all), expected) in
            [((0, 0.1, 95), 10), ((0, 0.0, 95), 0), ((7, 0.1, 95), 7), ((0, 1.0, 3), 3)]
        {
            assert_eq!(warmup_steps(steps, ratio, all), expected);
        }
    }

    const RATES: &[(&str, u64, [f64; 8])] = &[
        ("linear", 4, [0.0, 0.000125, 0.000375, 0.0005, 0.0003125, 6.25e-05, 0.0, 0.0]),
        (
            "linear",
            0,
            [
                0.0005,
                0.0004583333333333333,
                0.000375,
                0.0003333333333333333,
                0.00020833333333333335,
                4.1666666666666665e-05,
                0.0,
                0.0,
            ],
        ),
        (
            "cosine",
            4,
            [
                0.0,
                0.000125,
                0.000375,
                0.0005,
                0.0003456708580912725,
                1.9030116872178316e-05,
                0.0,
                1.903011687217829e-05,
            ],
        ),
        (
            "cosine",
            0,
            [
                0.0005,
                0.0004914814565722671,
                0.00042677669529663686,
                0.000375,
                0.0001852952387243698,
                8.51854342773295e-06,
                0.0,
                8.518543427732894e-06,
            ],
        ),
        (
            "cosine_with_restarts",
            4,
            [
                0.0,
                0.000125,
                0.000375,
                0.0005,
                0.0003456708580912725,
                1.9030116872178316e-05,
                0.0,
                0.0,
            ],
        ),
        (
            "cosine_with_restarts",
            0,
            [
                0.0005,
                0.0004914814565722671,
                0.00042677669529663686,
                0.000375,
                0.0001852952387243698,
                8.51854342773295e-06,
                0.0,
                0.0,
            ],
        ),
        (
            "polynomial",
            4,
            [
                0.0,
                0.000125,
                0.000375,
                0.0005,
                0.00031253750000000005,
                6.258750000000001e-05,
                1e-07,
                1e-07,
            ],
        ),
        (
            "polynomial",
            0,
            [
                0.0005,
                0.0004583416666666667,
                0.000375025,
                0.00033336666666666673,
                0.00020839166666666669,
                4.175833333333336e-05,
                1e-07,
                1e-07,
            ],
        ),
        ("constant", 4, [0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005]),
        ("constant", 0, [0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005]),
        (
            "constant_with_warmup",
            4,
            [0.0, 0.000125, 0.000375, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005],
        ),
        (
            "constant_with_warmup",
            0,
            [0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.0005],
        ),
        (
            "inverse_sqrt",
            4,
            [
                0.0,
                0.000125,
                0.000375,
                0.0005,
                0.0003779644730092272,
                0.00030151134457776364,
                0.00028867513459481295,
                0.0002773500981126146,
            ],
        ),
        (
            "inverse_sqrt",
            0,
            [
                0.0005,
                0.0004999750018748439,
                0.0004999250168707824,
                0.0004999000299900036,
                0.0004998250918214391,
                0.0004997252266672312,
                0.0004997002697302832,
                0.0004996753165321088,
            ],
        ),
    ];
}
