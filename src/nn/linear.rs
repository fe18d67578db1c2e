//! Dense layers, and the one place that chooses how a matrix product is computed.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::params::{Init, Params, ZEROS};
use super::precision::{self, low};

/// y = x·Wᵀ + b with W stored [out, in], as `nn.Linear`.
pub struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

/// y = x·W + b with W stored [in, out], as the reference's `Conv1D` (GPT-2).
pub struct Conv1d {
    pub weight: Tensor,
    pub bias: Tensor,
}

/// A dense layer in either storage.
pub enum Projection {
    Linear(Linear),
    Conv1d(Conv1d),
}

impl Params {
    /// A dense layer with bias: keys `name.weight` [out, in] and `name.bias` [out].
    pub fn linear(&self, name: &str, inputs: i64, outputs: i64, init: Init) -> Result<Linear> {
        let p = self / name;
        let weight = p.var("weight", &[outputs, inputs], init)?;
        Ok(Linear { weight, bias: Some(p.var("bias", &[outputs], ZEROS)?) })
    }

    /// A dense layer whose bias is there if `bias` says so.
    pub fn linear_if(
        &self,
        name: &str,
        inputs: i64,
        outputs: i64,
        bias: bool,
        init: Init,
    ) -> Result<Linear> {
        if bias {
            return self.linear(name, inputs, outputs, init);
        }
        let weight = (self / name).var("weight", &[outputs, inputs], init)?;
        Ok(Linear { weight, bias: None })
    }

    /// GPT-2's transposed dense layer: keys `name.weight` [in, out] and `name.bias` [out].
    pub fn conv1d(&self, name: &str, inputs: i64, outputs: i64, init: Init) -> Result<Conv1d> {
        let p = self / name;
        let weight = p.var("weight", &[inputs, outputs], init)?;
        Ok(Conv1d { weight, bias: p.var("bias", &[outputs], ZEROS)? })
    }
}

impl Linear {
    /// [.., in] -> [.., out]
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        product(xs, &self.weight, self.bias.as_ref())
    }
}

impl Conv1d {
    /// [.., in] -> [.., out]
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        if !self.weight.requires_grad() {
            return product(xs, &self.weight.tr(), Some(&self.bias));
        }
        // So the weight's gradient comes as the weight is stored; `linear` gives it turned over.
        let mut size = xs.size();
        let inputs = size.pop().unwrap_or_default();
        size.push(self.weight.size()[1]);
        let xs = low(xs).reshape([-1, inputs]);
        low(&self.bias).addmm(&xs, &low(&self.weight)).reshape(size)
    }
}

impl Projection {
    /// Width of what it gives.
    pub fn outputs(&self) -> i64 {
        match self {
            Projection::Linear(linear) => linear.weight.size()[0],
            Projection::Conv1d(conv1d) => conv1d.weight.size()[1],
        }
    }

    /// [.., in] -> [.., out]
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        match self {
            Projection::Linear(linear) => linear.forward(xs),
            Projection::Conv1d(conv1d) => conv1d.forward(xs),
        }
    }
}

/// What layers of one width make of the same input, by a single product, while they are trained in 16
/// bits: the input is cast once, and fewer kernels are compiled. (In f32 one large product takes as long as
/// the small ones.) None elsewhere, and where some have a bias and others none.
pub fn together<const N: usize>(layers: [&Linear; N], xs: &Tensor) -> Option<[Tensor; N]> {
    let [first, others @ ..] = &layers[..] else { return None };
    let alike = |layer: &&Linear| {
        layer.weight.requires_grad()
            && layer.weight.size() == first.weight.size()
            && layer.bias.is_some() == first.bias.is_some()
    };
    if !(precision::is_mixed() && alike(first) && others.iter().all(alike)) {
        return None;
    }
    let weight = Tensor::cat(&layers.map(|layer| low(&layer.weight)), 0); // [N·out, in]
    let biases: Vec<&Tensor> = layers.iter().filter_map(|layer| layer.bias.as_ref()).collect();
    let bias = (!biases.is_empty()).then(|| Tensor::cat(&biases, 0)); // [N·out]
    product(xs, &weight, bias.as_ref()).chunk(N as i64, -1).try_into().ok()
}

/// Rows up to which the weights times the transposed input beats `linear` on a CPU (f32).
const FEW_ROWS: i64 = 8;

/// x·Wᵀ + b. x [.., in], W [out, in] (any strides), b [out] -> [.., out]
pub fn product(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    if precision::is_mixed() {
        let bias = bias.map(low);
        return low(xs).linear(&low(weight), bias.as_ref());
    }
    let size = xs.size();
    let inputs = size[size.len() - 1];
    let rows = xs.numel() as i64 / inputs.max(1);
    let plain = xs.device() != Device::Cpu
        || xs.kind() != Kind::Float
        || rows == 1
        || rows > FEW_ROWS
        // GPT-2's storage is the other way round, where `linear` has nothing to gain.
        || !weight.is_contiguous()
        || xs.requires_grad()
        || weight.requires_grad();
    if plain {
        return xs.linear(weight, bias);
    }
    // At decode sizes `linear` leaves half of the memory bandwidth unused; W·xᵀ does not.
    let product = weight.matmul(&xs.reshape([rows, inputs]).tr()).tr(); // [rows, out]
    let product = match bias {
        Some(bias) => product + bias,
        None => product,
    };
    let mut size = size;
    if let Some(last) = size.last_mut() {
        *last = weight.size()[0];
    }
    product.reshape(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::precision::Autocast;

    fn layer(bias: bool, trained: bool) -> Linear {
        let draw = |size: &[i64]| {
            Tensor::randn(size, (Kind::Double, Device::Cpu)).set_requires_grad(trained)
        };
        Linear { weight: draw(&[3, 4]), bias: bias.then(|| draw(&[3])) }
    }

    /// What N layers give, and the gradients of their weights and of what they read.
    fn learn<const N: usize>(layers: &[Linear; N], xs: &Tensor, found: [Tensor; N]) -> Vec<Tensor> {
        let weights = layers.iter().flat_map(|layer| [Some(&layer.weight), layer.bias.as_ref()]);
        let inputs: Vec<&Tensor> = weights.flatten().chain([xs]).collect();
        // Every layer's result weighs differently.
        let parts = found.iter().zip(1..).map(|(part, n)| part.square().sum(None::<Kind>) * n);
        let loss: Tensor = parts.sum();
        let mut all = Tensor::run_backward(&[&loss], &inputs, false, false);
        all.extend(found);
        all
    }

    /// In f64, which no cast touches.
    #[test]
    fn one_product_for_three_layers_teaches_them_the_same() {
        let _mixed = Autocast::new(Some(Kind::BFloat16));
        tch::manual_seed(5);
        for bias in [true, false] {
            let layers = [(); 3].map(|()| layer(bias, true));
            let xs = Tensor::randn([2, 5, 4], (Kind::Double, Device::Cpu)).set_requires_grad(true);
            let joined = together(layers.each_ref(), &xs).expect("layers alike");
            let apart = layers.each_ref().map(|layer| layer.forward(&xs));
            let (joined, apart) = (learn(&layers, &xs, joined), learn(&layers, &xs, apart));
            for (joined, apart) in joined.iter().zip(&apart) {
                assert!((joined - apart).abs().max().double_value(&[]) < 1e-12);
            }
        }
    }

    #[test]
    fn layers_that_differ_or_rest_stay_apart() {
        let xs = Tensor::ones([1, 4], (Kind::Double, Device::Cpu));
        let alike = [layer(true, true), layer(true, true)];
        assert!(together(alike.each_ref(), &xs).is_none());
        let _mixed = Autocast::new(Some(Kind::BFloat16));
        assert!(together(alike.each_ref(), &xs).is_some());
        for (one, other) in [
            (layer(true, true), layer(false, true)),
            (layer(true, false), layer(true, false)),
            (layer(true, true), layer(true, false)),
        ] {
            assert!(together([&one, &other], &xs).is_none());
        }
    }
}
