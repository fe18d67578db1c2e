//! Activations under the names that configs use (the reference's `activations.py`, `ACT2FN`).

use anyhow::{Result, bail};
use tch::Tensor;

use super::gelu::gelu;
use crate::native::Then;

/// An elementwise function named in a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Gelu,
    GeluNew,
    GeluTanh,
    GeluFast,
    GeluAccurate,
    Gelu10,
    QuickGelu,
    Relu,
    Relu2,
    Relu6,
    LeakyRelu,
    Silu,
    Mish,
    Tanh,
    Sigmoid,
    Laplace,
    Linear,
}

impl Activation {
    /// The activation of a config's name; an unknown name is an error that says it.
    pub fn from_name(name: &str) -> Result<Self> {
        Ok(match name {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_python_tanh" => Activation::GeluNew,
            "gelu_pytorch_tanh" => Activation::GeluTanh,
            "gelu_fast" => Activation::GeluFast,
            "gelu_accurate" => Activation::GeluAccurate,
            "gelu_10" => Activation::Gelu10,
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "relu2" => Activation::Relu2,
            "relu6" => Activation::Relu6,
            "leaky_relu" => Activation::LeakyRelu,
            "silu" | "swish" => Activation::Silu,
            "mish" => Activation::Mish,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "laplace" => Activation::Laplace,
            "linear" => Activation::Linear,
            _ => bail!("activation {name:?} is not supported"),
        })
    }

    /// Elementwise; the shape stays.
    pub fn forward(self, xs: &Tensor) -> Tensor {
        let vectorized = match self.form() {
            Then::Nothing => None,
            form => gelu(xs, form),
        };
        vectorized.unwrap_or_else(|| self.by_libtorch(xs))
    }

    /// The form of GELU that it is, if it is one.
    pub(super) fn form(self) -> Then {
        match self {
            Activation::Gelu => Then::Gelu,
            // The reference writes it down in four ways.
            Activation::GeluNew
            | Activation::GeluTanh
            | Activation::GeluFast
            | Activation::GeluAccurate => Then::GeluTanh,
            _ => Then::Nothing,
        }
    }

    #[allow(clippy::approx_constant)] // the reference's own digits
    fn by_libtorch(self, xs: &Tensor) -> Tensor {
        match self {
            Activation::Gelu => xs.gelu("none"),
            // "gelu_new" spells the tanh formula out; libtorch's fused one differs in the last bit only,
            // and is several times faster.
            Activation::GeluNew | Activation::GeluTanh => xs.gelu("tanh"),
            Activation::GeluFast => {
                let inner = xs * 0.797_884_560_8 * (xs * xs * 0.044_715 + 1.0);
                xs * 0.5 * (inner.tanh() + 1.0)
            }
            Activation::GeluAccurate => {
                let inner = (xs + xs.pow_tensor_scalar(3) * 0.044_715)
                    * (2.0 / std::f64::consts::PI).sqrt();
                xs * 0.5 * (inner.tanh() + 1.0)
            }
            Activation::Gelu10 => xs.gelu("none").clamp(-10.0, 10.0),
            Activation::QuickGelu => xs * (xs * 1.702).sigmoid(),
            Activation::Relu => xs.relu(),
            Activation::Relu2 => xs.relu().square(),
            Activation::Relu6 => xs.clamp(0.0, 6.0),
            Activation::LeakyRelu => xs.leaky_relu(),
            Activation::Silu => xs.silu(),
            Activation::Mish => xs.mish(),
            Activation::Tanh => xs.tanh(),
            Activation::Sigmoid => xs.sigmoid(),
            // mu and sigma are those of the reference's LaplaceActivation.
            Activation::Laplace => {
                let scaled = (xs - 0.707_107) / (0.282_095 * std::f64::consts::SQRT_2);
                (scaled.erf() + 1.0) * 0.5
            }
            Activation::Linear => xs.shallow_clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_reference() {
        const TANH: [f64; 6] =
            [-0.0036374, -0.1588080, -0.1542860, 0.3457140, 0.8411920, 2.9963627];
        const XS: [f32; 6] = [-3.0, -1.0, -0.5, 0.5, 1.0, 3.0];
        let xs = Tensor::from_slice(&XS);
        let table: &[(&str, [f64; 6])] = &[
            ("gelu", [-0.0040497, -0.1586553, -0.1542688, 0.3457312, 0.8413447, 2.9959503]),
            ("gelu_new", TANH),
            ("gelu_pytorch_tanh", TANH),
            ("gelu_fast", TANH),
            ("gelu_accurate", TANH),
            ("quick_gelu", [-0.0180713, -0.1542042, -0.1496116, 0.3503884, 0.8457958, 2.9819288]),
        ];
        for (name, expected) in table {
            let activation = Activation::from_name(name).expect(name);
            // In one pass, and by the operators that know gradients.
            for found in [activation.forward(&xs), activation.by_libtorch(&xs)] {
                let found: Vec<f64> = Vec::try_from(found).expect("numbers");
                for ((found, expected), x) in found.iter().zip(expected).zip(XS) {
                    // 1 + erf of -3 loses digits in f32.
                    let bound = 2e-7 * f64::from(x.abs()).max(1.0);
                    assert!((found - expected).abs() < bound, "{name}: {found} for {expected}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        let error = Activation::from_name("gelu_newer").expect_err("unknown").to_string();
        assert_eq!(error, "activation \"gelu_newer\" is not supported");
    }
}
