//! `Params`: where a constructor is in the checkpoint, and the tensors it asks for there.
//!
//! The constructor is the loader: `p / "layer" / i / "attention"` is the key in the file, and asking
//! for a tensor takes it from the file, checks its shape, or draws it by the family's rule.

use std::fmt::Display;
use std::ops::Div;
use std::rc::Rc;

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

use super::linear::Packing;
use super::store::{Missing, Store};

/// How a variable is drawn when there is no checkpoint to take it from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Normal, cut at plus and minus 2 (not 2 deviations), as `nn.init.trunc_normal_` does by default.
    TruncNormal(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
    /// Glorot and Bengio 2010; a convolution counts as the matrix [out, in·kh·kw].
    XavierUniform,
    /// LeCun: truncated normal with variance 1 / fan-in.
    LecunNormal,
    /// Normal, with this row left at zero (the padding row of an embedding).
    NormalExceptRow(f64, i64),
}

pub const ZEROS: Init = Init::Constant(0.0);
pub const ONES: Init = Init::Constant(1.0);

/// A place in the tree of names of one store.
#[derive(Clone)]
pub struct Params {
    store: Rc<Store>,
    prefix: String,
    many_rows: bool,
}

/// What a tensor of the checkpoint is to the model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Trained,
    /// Stored, but never changed by training.
    Fixed,
    /// The same, of whole numbers, which the model computes itself.
    Whole,
}

impl Params {
    /// The root of a store.
    pub fn root(store: Rc<Store>) -> Self {
        Params { store, prefix: String::new(), many_rows: false }
    }

    pub fn device(&self) -> Device {
        self.store.device()
    }

    pub fn kind(&self) -> Kind {
        self.store.kind()
    }

    /// What the matrices of dense layers become; None where they stay variables.
    pub fn packing(&self) -> Option<Packing> {
        self.store.packs()
    }

    /// True where matrices are rounded. Elsewhere nothing but products is to differ from the reference.
    pub(super) fn rounds(&self) -> bool {
        !matches!(self.packing(), None | Some(Packing::F32))
    }

    /// The same place, for layers that see many rows at once: encoders, and what reads their states.
    /// Decoders see a row for each sequence.
    pub fn for_many_rows(&self) -> Self {
        Params { many_rows: true, ..self.clone() }
    }

    pub(super) fn many_rows(&self) -> bool {
        self.many_rows
    }

    /// Frees the memory of what has been read of the source.
    pub(super) fn give_back(&self) {
        self.store.give_back();
    }

    /// The layer holds this variable's value itself from now on.
    pub(super) fn let_go(&self, name: &str) {
        self.store.let_go(&self.key(name));
    }

    fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// A trainable variable of the model.
    ///
    /// Missing and misshapen tensors are noted, not returned: `Store::check` tells all of them at once.
    pub fn var(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        self.variable(name, shape, Sort::Trained, || init.draw(shape))
    }

    /// A table that the checkpoint stores but training never changes; `make` computes it if absent.
    pub fn table(
        &self,
        name: &str,
        shape: &[i64],
        make: impl FnOnce() -> Tensor,
    ) -> Result<Tensor> {
        self.variable(name, shape, Sort::Fixed, make)
    }

    /// A tensor that the reference's model owns but whose value never reaches the output (poolers,
    /// mask tokens): kept if the file has it, made when a model is assembled, never missed, and not
    /// trained, because no gradient reaches it.
    pub fn spare(&self, name: &str, shape: &[i64], init: Init) -> Result<()> {
        let key = self.key(name);
        if self.store.missing() == Missing::Refuse && !self.store.has(&key) {
            return Ok(());
        }
        self.variable(name, shape, Sort::Fixed, || init.draw(shape)).map(|_| ())
    }

    /// Whole numbers that the reference's model stores although its sizes determine them (Swin's
    /// `relative_position_index`): kept if the file has them, computed when a model is assembled,
    /// never missed.
    pub fn buffer(&self, name: &str, values: &Tensor) -> Result<()> {
        let key = self.key(name);
        if self.store.missing() == Missing::Refuse && !self.store.has(&key) {
            return Ok(());
        }
        self.variable(name, &values.size(), Sort::Whole, || values.shallow_clone()).map(|_| ())
    }

    /// These variables belong to a `LayerNorm`.
    pub(super) fn mark_norm(&self, names: &[&str]) {
        names.iter().for_each(|name| self.store.note_norm(&self.key(name)));
    }

    /// True if the source has this key: for families that were saved under two spellings.
    pub fn has(&self, name: &str) -> bool {
        self.store.has(&self.key(name))
    }

    /// A key that may lie in old files and means nothing (buffers that are computed now).
    pub fn ignore(&self, name: &str) {
        self.store.note_spare(&self.key(name));
    }

    /// Two names of one tensor when `tie` is true: (value under the first name, under the second).
    ///
    /// If the file has only one of the two, it serves both. If it has both with different values,
    /// each keeps its own and a warning says so. Untied, they are two variables.
    pub fn tied(
        &self,
        first: &str,
        second: &str,
        shape: &[i64],
        init: Init,
        tie: bool,
    ) -> Result<(Tensor, Tensor)> {
        if !tie {
            return Ok((self.var(first, shape, init)?, self.var(second, shape, init)?));
        }
        let (first_key, second_key) = (self.key(first), self.key(second));
        let a = self.store.take(&first_key).transpose()?;
        let b = self.store.take(&second_key).transpose()?;
        let value = match (a, b) {
            (Some(a), Some(b)) => {
                if a.size() == b.size() && !a.equal(&b) {
                    self.store.warn(format!(
                        "{first_key:?} and {second_key:?} differ although the config ties them; \
                         each keeps its own value (transformers 4 takes the first for both)"
                    ));
                    self.store.note_untied();
                    let a = self.keep(&first_key, &first_key, a, shape, Sort::Trained)?;
                    return Ok((a, self.keep(&second_key, &second_key, b, shape, Sort::Trained)?));
                }
                self.keep(&first_key, &first_key, a, shape, Sort::Trained)?
            }
            (Some(a), None) => self.keep(&first_key, &first_key, a, shape, Sort::Trained)?,
            (None, Some(b)) => self.keep(&first_key, &second_key, b, shape, Sort::Trained)?,
            (None, None) => self.var(first, shape, init)?,
        };
        self.store.note_alias(&second_key, &first_key);
        Ok((value.shallow_clone(), value))
    }

    /// Several names of one tensor, whatever the config says: the first that the file has gives it.
    ///
    /// If the file has more of them with other values, a warning says so.
    pub fn shared(&self, names: &[&str], shape: &[i64], init: Init) -> Result<Tensor> {
        let keys: Vec<String> = names.iter().map(|name| self.key(name)).collect();
        let Some(first) = keys.first() else { bail!("a tensor needs a name") };
        let source = keys.iter().find(|key| self.store.has(key)).unwrap_or(first);
        let value = if source == first {
            self.var(names[0], shape, init)?
        } else {
            self.load(first, source, shape, Sort::Trained)?
        };
        for key in &keys[1..] {
            self.store.note_alias(key, first);
            if let Some(Ok(other)) = self.store.take(key)
                && other.size() == value.size()
                && !other.equal(&value)
            {
                self.store.warn(format!("{key:?} differs from {source:?}, which is used instead"));
            }
        }
        Ok(value)
    }

    fn variable(
        &self,
        name: &str,
        shape: &[i64],
        sort: Sort,
        make: impl FnOnce() -> Tensor,
    ) -> Result<Tensor> {
        let key = self.key(name);
        if self.store.has(&key) {
            return self.load(&key, &key, shape, sort);
        }
        let value = match self.store.missing() {
            Missing::Refuse => {
                self.store.note_missing(&key);
                Tensor::zeros(shape, (self.kind(), self.device()))
            }
            Missing::Initialize => {
                self.store.note_made(&key);
                let made = make();
                let kind = if made.is_floating_point() { self.kind() } else { made.kind() };
                made.to_device(self.device()).to_kind(kind)
            }
        };
        self.store.add(&key, value, sort == Sort::Trained)
    }

    /// Adds variable `name` with the value that the source has under `key`.
    fn load(&self, name: &str, key: &str, shape: &[i64], sort: Sort) -> Result<Tensor> {
        let value = match self.store.take(key) {
            Some(found) => found?,
            None => Tensor::zeros(shape, (self.kind(), self.device())),
        };
        self.keep(name, key, value, shape, sort)
    }

    /// Adds variable `name` with `value`, which the source has under `key`, if it has the right shape and
    /// its numbers are what is asked for.
    fn keep(
        &self,
        name: &str,
        key: &str,
        value: Tensor,
        shape: &[i64],
        sort: Sort,
    ) -> Result<Tensor> {
        let fits = sort == Sort::Whole || value.is_floating_point();
        let trainable = sort == Sort::Trained;
        if value.size() == shape && fits {
            return self.store.add(name, value, trainable);
        }
        if fits {
            self.store.note_misshapen(key, &value.size(), shape);
        } else {
            self.store.note_unfit(key, value.kind());
        }
        self.store.add(name, Tensor::zeros(shape, (self.kind(), self.device())), trainable)
    }
}

impl<T: Display> Div<T> for &Params {
    type Output = Params;

    fn div(self, name: T) -> Params {
        Params {
            store: self.store.clone(),
            prefix: self.key(&name.to_string()),
            many_rows: self.many_rows,
        }
    }
}

impl<T: Display> Div<T> for Params {
    type Output = Params;

    fn div(self, name: T) -> Params {
        &self / name
    }
}

impl Init {
    /// Normal, with the row of the padding token (if there is one) left at zero.
    pub fn normal_padded(std: f64, padding_idx: Option<i64>) -> Self {
        match padding_idx {
            Some(row) => Init::NormalExceptRow(std, row),
            None => Init::Normal(std),
        }
    }

    /// A new f32 tensor on the CPU, drawn from libtorch's generator (seeded by `tch::manual_seed`).
    pub fn draw(self, shape: &[i64]) -> Tensor {
        let _guard = tch::no_grad_guard();
        let empty = || Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        // Fans of a matrix [out, in] or a convolution [out, in, kh, kw].
        let fan_in = || shape.iter().skip(1).product::<i64>().max(1) as f64;
        let fan_out = || shape.first().copied().unwrap_or(1) as f64;
        match self {
            Init::Constant(value) => empty().fill_(value),
            Init::Normal(std) => empty().normal_(0.0, std),
            Init::TruncNormal(std) => truncated_normal(shape, std),
            Init::Uniform(bound) => empty().uniform_(-bound, bound),
            Init::XavierUniform => {
                let bound = (6.0 / (fan_in() + fan_out())).sqrt();
                empty().uniform_(-bound, bound)
            }
            // The constant undoes the loss of variance by the cut at two deviations (`variance_scaling_`).
            Init::LecunNormal => {
                let std = (1.0 / fan_in()).sqrt() / 0.879_625_661_034_239_8;
                truncated_normal(shape, 1.0) * std
            }
            Init::NormalExceptRow(std, row) => {
                let drawn = empty().normal_(0.0, std);
                if (0..shape[0]).contains(&row) {
                    let _ = drawn.get(row).zero_();
                }
                drawn
            }
        }
    }
}

/// Normal(0, std) cut at ±2, by inverting the distribution function as `nn.init.trunc_normal_` does.
fn truncated_normal(shape: &[i64], std: f64) -> Tensor {
    // Φ(2/std) by way of erf; libtorch has it for tensors only.
    let phi = |x: f64| {
        let erf = Tensor::from(x / std::f64::consts::SQRT_2).erf();
        (1.0 + f64::try_from(erf).unwrap_or(1.0)) / 2.0
    };
    let (low, high) = (phi(-2.0 / std), phi(2.0 / std));
    let uniform = Tensor::zeros(shape, (Kind::Double, Device::Cpu))
        .uniform_(2.0 * low - 1.0, 2.0 * high - 1.0);
    let normal = uniform.erfinv() * (std * std::f64::consts::SQRT_2);
    normal.clamp(-2.0, 2.0).to_kind(Kind::Float)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
