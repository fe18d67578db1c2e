//! Pillow's resampling filters.

use anyhow::{Result, bail};

/// A resampling filter, under Pillow's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

impl Filter {
    /// The filter of Pillow's number, the value of `resample` in preprocessor_config.json.
    pub fn from_code(code: u64) -> Result<Self> {
        Ok(match code {
            0 => Filter::Nearest,
            1 => Filter::Lanczos,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            4 => Filter::Box,
            5 => Filter::Hamming,
            _ => bail!(
                "resample = {code} is not supported; the filters are 0 (nearest), 1 (lanczos), \
                 2 (bilinear), 3 (bicubic), 4 (box) and 5 (hamming)"
            ),
        })
    }

    /// Pillow's number of the filter.
    pub fn code(self) -> u64 {
        match self {
            Filter::Nearest => 0,
            Filter::Lanczos => 1,
            Filter::Bilinear => 2,
            Filter::Bicubic => 3,
            Filter::Box => 4,
            Filter::Hamming => 5,
        }
    }

    /// Half the width of the filter, in source pixels when enlarging.
    pub(super) fn support(self) -> f64 {
        match self {
            Filter::Nearest | Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    /// The weight at distance `x` from the centre.
    pub(super) fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Filter::Nearest | Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - distance).max(0.0),
            Filter::Hamming if distance == 0.0 => 1.0,
            Filter::Hamming if distance < 1.0 => {
                let angle = distance * std::f64::consts::PI;
                // Pillow keeps these two constants in single precision.
                angle.sin() / angle * (f64::from(0.54f32) + f64::from(0.46f32) * angle.cos())
            }
            // Keys' cubic with a = -0.5.
            Filter::Bicubic if distance < 1.0 => (1.5 * distance - 2.5) * distance * distance + 1.0,
            Filter::Bicubic if distance < 2.0 => {
                (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
            }
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Hamming | Filter::Bicubic | Filter::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let angle = x * std::f64::consts::PI;
    angle.sin() / angle
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_pillows() {
        for code in 0..6 {
            assert_eq!(Filter::from_code(code).unwrap().code(), code);
        }
        let error = Filter::from_code(6).unwrap_err().to_string();
        assert!(error.starts_with("resample = 6 is not supported"), "{error}");
    }
}
