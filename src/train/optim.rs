//! AdamW (Loshchilov and Hutter 2019) with moments that can be saved, computed as `torch.optim.AdamW`
//! does with `fused=True`, the default of the reference's Trainer; what it trains; clipping.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use tch::{Kind, Tensor, no_grad};

use crate::native::{self, AdamWPart, AdamWStep};
use crate::nn::Store;
use crate::nn::lookup::Lookup;
use crate::nn::segment::Tape;

/// Settings of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    pub betas: (f64, f64),
    pub eps: f64,
    /// Decoupled decay of the parameters that decay.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; 0 does not clip.
    pub max_grad_norm: f64,
}

/// The half of a model that stays as it is.
///
/// `enc_to_dec_proj`, which lies between the halves, is trained in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freeze {
    pub encoder: bool,
    pub decoder: bool,
}

/// A variable that is trained.
pub struct Parameter {
    pub name: String,
    pub tensor: Tensor,
    /// True if weight decay applies to it.
    pub decays: bool,
}

/// Sums of gradients over micro-batches, one place a parameter; None where no gradient came.
pub struct Gradients {
    sums: Vec<Option<Tensor>>,
}

/// The moments of one parameter.
struct Moments {
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    /// Updates so far: a step without a gradient (layerdrop) does not count.
    step: i64,
}

/// The optimizer over named parameters.
pub struct AdamW {
    parameters: Vec<Parameter>,
    moments: Vec<Moments>,
    options: AdamWOptions,
    /// Few operators update all parameters: on a GPU.
    together: bool,
}

/// The parameters of a model, in the order of its constructor; gradients are tracked for them alone.
///
/// A shared tensor stands once, under its first name. Biases and norms do not decay: the rule is that
/// of the reference's `Trainer.get_decay_parameter_names`.
pub fn parameters(store: &Store, freeze: Freeze) -> Vec<Parameter> {
    let frozen = |name: &str| {
        (freeze.encoder && name.starts_with("encoder."))
            || (freeze.decoder && name.starts_with("decoder."))
    };
    let mut parameters = Vec::new();
    for variable in store.variables() {
        let trained = variable.trainable && !frozen(&variable.name);
        let tensor = variable.tensor;
        if tensor.is_floating_point() {
            let _ = tensor.set_requires_grad(trained);
        }
        if trained {
            let decays = !variable.norm && decays(&variable.name);
            parameters.push(Parameter { name: variable.name, tensor, decays });
        }
    }
    parameters
}

/// False for names with `bias`, `layernorm`, `rmsnorm`, or a part that is or ends in a `norm`.
fn decays(name: &str) -> bool {
    let name = name.to_lowercase();
    let norm = |part: &str| part == "norm" || part.ends_with("_norm");
    !(name.contains("bias")
        || name.contains("layernorm")
        || name.contains("rmsnorm")
        || name.split('.').any(norm))
}

impl Gradients {
    /// Nothing yet, for so many parameters.
    pub fn new(parameters: usize) -> Self {
        Gradients { sums: (0..parameters).map(|_| None).collect() }
    }

    /// Adds the gradients of `loss` [] by `parameters`, and those of rows that were looked up in some of
    /// them; its graph is gone afterwards.
    pub fn add(&mut self, loss: &Tensor, parameters: &[Parameter], lookups: &[Lookup]) {
        let found = Tensor::run_backward(&[loss], &inputs(parameters, lookups), false, false);
        self.take_all(found, parameters, lookups);
    }

    /// The same for a loss whose forward pass is on a tape.
    pub fn add_taped(
        &mut self,
        tape: Tape,
        loss: &Tensor,
        parameters: &[Parameter],
        lookups: &[Lookup],
    ) {
        tape.backward(loss, &inputs(parameters, lookups), |found| {
            self.take_all(found, parameters, lookups);
        });
    }

    /// Adds gradients in the order of `inputs`.
    fn take_all(&mut self, mut found: Vec<Tensor>, parameters: &[Parameter], lookups: &[Lookup]) {
        let rows = found.split_off(parameters.len());
        self.take(found);
        for (lookup, rows) in lookups.iter().zip(rows).filter(|(_, rows)| rows.defined()) {
            let own = |p: &Parameter| lookup.is_of(&p.tensor);
            let Some(i) = parameters.iter().position(own) else { continue };
            let zeros = || parameters[i].tensor.detach().zeros_like();
            lookup.add(&rows, self.sums[i].get_or_insert_with(zeros));
        }
    }

    /// Adds gradients that were computed elsewhere; an undefined tensor is none.
    pub fn take(&mut self, gradients: Vec<Tensor>) {
        no_grad(|| {
            for (sum, gradient) in self.sums.iter_mut().zip(gradients) {
                match sum {
                    _ if !gradient.defined() => {}
                    Some(sum) => *sum += gradient,
                    None => *sum = Some(gradient),
                }
            }
        });
    }

    /// Multiplies all of them.
    pub fn scale(&mut self, factor: f64) {
        no_grad(|| {
            for sum in self.sums.iter_mut().flatten() {
                let _ = sum.g_mul_scalar_(factor);
            }
        });
    }

    /// The gradient of each parameter.
    pub fn iter(&self) -> impl Iterator<Item = Option<&Tensor>> {
        self.sums.iter().map(Option::as_ref)
    }

    /// The norm of all of them together, as `clip_grad_norm_` computes it; not finite if one is not.
    pub fn norm(&self) -> f64 {
        let all: Vec<&Tensor> = self.sums.iter().flatten().collect();
        let Some(first) = all.first() else { return 0.0 };
        let one_by_one = || {
            let norms: Vec<Tensor> = all.iter().map(|g| g.detach().norm()).collect();
            Tensor::stack(&norms, 0).norm()
        };
        let at_once = || no_grad(|| native::norm_of_all(&all));
        let norm = if first.device().is_cuda() { at_once() } else { None };
        norm.unwrap_or_else(one_by_one).double_value(&[])
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.sums.iter_mut().for_each(|sum| *sum = None);
    }
}

/// What gradients are asked for: parameters, then rows.
fn inputs<'a>(parameters: &'a [Parameter], lookups: &'a [Lookup]) -> Vec<&'a Tensor> {
    let rows = lookups.iter().map(|lookup| &lookup.rows);
    parameters.iter().map(|parameter| &parameter.tensor).chain(rows).collect()
}

impl AdamW {
    /// Over f32 parameters, with moments of zero.
    pub fn new(parameters: Vec<Parameter>, options: AdamWOptions) -> Self {
        let zeros = |p: &Parameter| p.tensor.detach().contiguous().zeros_like();
        let moments = parameters.iter();
        let moments = moments.map(|p| Moments { exp_avg: zeros(p), exp_avg_sq: zeros(p), step: 0 });
        let moments = moments.collect();
        let together = parameters.first().is_some_and(|p| p.tensor.device().is_cuda());
        AdamW { moments, parameters, options, together }
    }

    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Clips and applies the gradients, and forgets them. Gives their norm before clipping; if that is
    /// no finite number, nothing is changed.
    pub fn step(&mut self, gradients: &mut Gradients, learning_rate: f64) -> f64 {
        let norm = gradients.norm();
        if norm.is_finite() {
            // `clip_grad_norm_`'s rule; the factor is applied as the gradients are read.
            let max = self.options.max_grad_norm;
            let clip = if max > 0.0 { (max / (norm + 1e-6)).min(1.0) } else { 1.0 };
            let all = gradients.iter().enumerate();
            let mut all: Vec<(usize, Tensor)> =
                all.filter_map(|(i, gradient)| Some((i, gradient?.contiguous()))).collect();
            for (i, _) in &all {
                self.moments[*i].step += 1;
            }
            no_grad(|| {
                if self.together {
                    all = self.update_together(all, learning_rate, clip);
                }
                for (i, gradient) in all {
                    self.update(i, &gradient, learning_rate, clip);
                }
            });
        }
        gradients.clear();
        norm
    }

    fn weight_decay(&self, i: usize) -> f64 {
        if self.parameters[i].decays { self.options.weight_decay } else { 0.0 }
    }

    /// Updates parameters, with their gradients, by few operators for all of them. -> those that it left
    fn update_together(
        &self,
        all: Vec<(usize, Tensor)>,
        learning_rate: f64,
        clip: f64,
    ) -> Vec<(usize, Tensor)> {
        let AdamWOptions { betas, eps, .. } = self.options;
        let (mut all, mut left): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(i, _)| self.parameters[*i].tensor.is_contiguous());
        let alike = |i: &usize| (self.parameters[*i].decays, self.moments[*i].step);
        all.sort_by_key(|(i, _)| alike(i));
        for group in all.chunk_by(|(a, _), (b, _)| alike(a) == alike(b)) {
            let i = group[0].0;
            let (weight_decay, step) = (self.weight_decay(i), self.moments[i].step);
            let settings = AdamWStep { learning_rate, betas, weight_decay, eps, step, clip };
            let parts = group.iter().map(|(i, gradient)| -> AdamWPart {
                let Moments { exp_avg, exp_avg_sq, .. } = &self.moments[*i];
                [&self.parameters[*i].tensor, gradient, exp_avg, exp_avg_sq]
            });
            let parts: Vec<AdamWPart> = parts.collect();
            if !settings.run(&parts) {
                left.extend(group.iter().map(|(i, gradient)| (*i, gradient.shallow_clone())));
            }
        }
        left
    }

    fn update(&mut self, i: usize, gradient: &Tensor, learning_rate: f64, clip: f64) {
        let weight_decay = self.weight_decay(i);
        let (parameter, moments) = (&mut self.parameters[i], &mut self.moments[i]);
        let (beta1, beta2) = self.options.betas;
        let (step, eps) = (moments.step as f64, self.options.eps);
        let rule = Rule {
            clip,
            keep: 1.0 - learning_rate * weight_decay,
            beta1,
            beta2,
            step_size: learning_rate / (1.0 - beta1.powf(step)),
            root2: (1.0 - beta2.powf(step)).sqrt(),
            eps,
        };
        let (exp_avg, exp_avg_sq) = (&mut moments.exp_avg, &mut moments.exp_avg_sq);
        let values = [&parameter.tensor, gradient, exp_avg, exp_avg_sq];
        if native::with_floats(values, |values| rule.on_slices(values)).is_none() {
            rule.on_tensors(&mut parameter.tensor, gradient, exp_avg, exp_avg_sq);
        }
    }

    /// The moments for saving: `exp_avg.NAME`, `exp_avg_sq.NAME` and `step.NAME` [] of each parameter.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for (parameter, moments) in self.parameters.iter().zip(&self.moments) {
            let name = &parameter.name;
            state.push((format!("exp_avg.{name}"), moments.exp_avg.shallow_clone()));
            state.push((format!("exp_avg_sq.{name}"), moments.exp_avg_sq.shallow_clone()));
            state.push((format!("step.{name}"), Tensor::from(moments.step)));
        }
        state
    }

    /// Takes saved moments back; every parameter must have its own.
    pub fn restore(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let saved: HashMap<&str, &Tensor> =
            state.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let find = |name: String| {
            let found = saved.get(name.as_str()).copied();
            found.with_context(|| format!("the state of the optimizer has no tensor {name:?}"))
        };
        for (parameter, moments) in self.parameters.iter().zip(&mut self.moments) {
            let name = &parameter.name;
            let exp_avg = find(format!("exp_avg.{name}"))?;
            let exp_avg_sq = find(format!("exp_avg_sq.{name}"))?;
            for found in [exp_avg, exp_avg_sq] {
                ensure!(
                    found.size() == parameter.tensor.size(),
                    "the state of the optimizer for {name:?} is {:?}, the model has {:?}",
                    found.size(),
                    parameter.tensor.size()
                );
            }
            moments.exp_avg.copy_(exp_avg);
            moments.exp_avg_sq.copy_(exp_avg_sq);
            moments.step = find(format!("step.{name}"))?.to_kind(Kind::Int64).int64_value(&[]);
        }
        Ok(())
    }
}

/// The numbers of one update.
struct Rule {
    /// Multiplies the gradient.
    clip: f64,
    /// Multiplies the parameter: 1 - lr·decay.
    keep: f64,
    beta1: f64,
    beta2: f64,
    /// lr / (1 - β1^t)
    step_size: f64,
    /// √(1 - β2^t)
    root2: f64,
    eps: f64,
}

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 16;

impl Rule {
    /// One pass over the memory of parameter, gradient and the two moments.
    fn on_slices(&self, [parameter, gradient, exp_avg, exp_avg_sq]: [&mut [f32]; 4]) {
        if parameter.len() <= CHUNK || native::thread_count() == 1 {
            return self.on_chunk(parameter, gradient, exp_avg, exp_avg_sq);
        }
        parameter
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(exp_avg.par_chunks_mut(CHUNK))
            .zip(exp_avg_sq.par_chunks_mut(CHUNK))
            .for_each(|(((p, g), m), v)| self.on_chunk(p, g, m, v));
    }

    fn on_chunk(&self, parameter: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32]) {
        let (clip, keep) = (self.clip as f32, self.keep as f32);
        let (new1, beta2, new2) =
            ((1.0 - self.beta1) as f32, self.beta2 as f32, (1.0 - self.beta2) as f32);
        let (step_size, root2, eps) = (self.step_size as f32, self.root2 as f32, self.eps as f32);
        let moments = m.iter_mut().zip(v);
        for ((p, g), (m, v)) in parameter.iter_mut().zip(gradient).zip(moments) {
            let g = g * clip;
            *m += new1 * (g - *m);
            *v = beta2 * *v + new2 * g * g;
            *p = *p * keep - step_size * *m / (v.sqrt() / root2 + eps);
        }
    }

    /// The same by operators of libtorch, on any device.
    fn on_tensors(
        &self,
        parameter: &mut Tensor,
        gradient: &Tensor,
        exp_avg: &mut Tensor,
        exp_avg_sq: &mut Tensor,
    ) {
        let clipped = if self.clip < 1.0 { gradient * self.clip } else { gradient.shallow_clone() };
        let _ = exp_avg.lerp_(&clipped, 1.0 - self.beta1);
        let _ = exp_avg_sq.g_mul_scalar_(self.beta2);
        let _ = exp_avg_sq.addcmul_(&(&clipped * (1.0 - self.beta2)), &clipped);
        let mut denominator = exp_avg_sq.sqrt();
        let _ = denominator.g_div_scalar_(self.root2);
        let _ = denominator.g_add_scalar_(self.eps);
        if self.keep != 1.0 {
            let _ = parameter.g_mul_scalar_(self.keep);
        }
        let _ = parameter.addcdiv_(&(&*exp_avg * -self.step_size), &denominator);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
