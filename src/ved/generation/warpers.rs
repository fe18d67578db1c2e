//! Rules that only sampling uses: they cut off the unlikely end of the distribution.
//!
//! `keep` is the number of best tokens that a rule never takes.

use tch::{Kind, Tensor};

use super::config::GenerationConfig;
use super::logits::LogitsProcessor;

/// The sampling rules of a config, in the reference's order.
pub(super) fn push(
    config: &GenerationConfig,
    beams: bool,
    list: &mut Vec<Box<dyn LogitsProcessor>>,
) {
    // Beams need a token besides every eos to go on with.
    let keep = match (beams, config.eos_token_id.len() as i64) {
        (false, _) => 1,
        (true, 0) => 2,
        (true, eos) => eos + 1,
    };
    if config.temperature != 1.0 {
        list.push(Box::new(Temperature { temperature: config.temperature }));
    }
    if config.top_k > 0 {
        list.push(Box::new(TopK { top_k: config.top_k.max(keep) }));
    }
    if config.top_p < 1.0 {
        list.push(Box::new(TopP { top_p: config.top_p, keep }));
    }
    if let Some(min_p) = config.min_p {
        list.push(Box::new(MinP { min_p, keep }));
    }
    if config.typical_p < 1.0 {
        list.push(Box::new(TypicalP { mass: config.typical_p, keep }));
    }
    if config.epsilon_cutoff > 0.0 {
        list.push(Box::new(EpsilonCutoff { epsilon: config.epsilon_cutoff, keep }));
    }
    if config.eta_cutoff > 0.0 {
        list.push(Box::new(EtaCutoff { epsilon: config.eta_cutoff, keep }));
    }
}

/// `temperature`
pub struct Temperature {
    pub temperature: f64,
}

impl LogitsProcessor for Temperature {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        scores / self.temperature
    }
}

/// `top_k`: the k best, and what equals the last of them.
pub struct TopK {
    pub top_k: i64,
}

impl LogitsProcessor for TopK {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        let removed = below_best(&scores, self.top_k);
        cut(&scores, &removed)
    }
}

/// `top_p`: the fewest best tokens that have this probability together (Holtzman et al. 2020).
pub struct TopP {
    pub top_p: f64,
    pub keep: i64,
}

impl LogitsProcessor for TopP {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        let (sorted, order) = scores.sort(-1, false);
        let cumulative = sorted.softmax(-1, Kind::Float).cumsum(-1, Kind::Float);
        let removed = cumulative.le(1.0 - self.top_p);
        let kept = self.keep.min(scores.size()[1]);
        let _ = removed.narrow(1, scores.size()[1] - kept, kept).fill_(0);
        cut(&scores, &removed.scatter(1, &order, &removed))
    }
}

/// `min_p`: at least this share of the best token's probability.
pub struct MinP {
    pub min_p: f64,
    pub keep: i64,
}

impl LogitsProcessor for MinP {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        let probabilities = scores.softmax(-1, Kind::Float);
        let least = probabilities.amax([-1i64].as_slice(), true) * self.min_p;
        let order = scores.argsort(-1, true);
        let removed = probabilities.lt_tensor(&least).gather(1, &order, false);
        let _ = removed.narrow(1, 0, self.keep.min(scores.size()[1])).fill_(0);
        cut(&scores, &removed.scatter(1, &order, &removed))
    }
}

/// `typical_p`: the tokens whose information is nearest to the entropy (Meister et al. 2022).
pub struct TypicalP {
    pub mass: f64,
    pub keep: i64,
}

impl LogitsProcessor for TypicalP {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        let v = scores.size()[1];
        let normalized = scores.log_softmax(-1, Kind::Float);
        let entropy =
            -(&normalized * normalized.exp()).nansum([-1i64].as_slice(), true, Kind::Float);
        let (sorted, order) = (-normalized - entropy).abs().sort(-1, false);
        let likeliness = scores.gather(1, &order, false).softmax(-1, Kind::Float);
        let cumulative = likeliness.cumsum(-1, Kind::Float);
        let last = cumulative.lt(self.mass).sum_dim_intlist(1, true, Kind::Int64).clamp_max(v - 1);
        let removed = sorted.gt_tensor(&sorted.gather(1, &last, false));
        let _ = removed.narrow(1, 0, self.keep.min(v)).fill_(0);
        cut(&scores, &removed.scatter(1, &order, &removed))
    }
}

/// `epsilon_cutoff`: at least this probability (Hewitt et al. 2022).
pub struct EpsilonCutoff {
    pub epsilon: f64,
    pub keep: i64,
}

impl LogitsProcessor for EpsilonCutoff {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        let removed = scores.softmax(-1, Kind::Float).lt(self.epsilon);
        cut(&scores, &removed.logical_and(&below_best(&scores, self.keep)))
    }
}

/// `eta_cutoff`: at least min(ε, √ε·exp(-entropy)) (Hewitt et al. 2022).
pub struct EtaCutoff {
    pub epsilon: f64,
    pub keep: i64,
}

impl LogitsProcessor for EtaCutoff {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        let normalized = scores.log_softmax(-1, Kind::Float);
        let probabilities = normalized.exp();
        // As `Categorical.entropy` does: -inf counts as the least number, so that 0·-inf is 0.
        let information = normalized.clamp_min(f64::from(f32::MIN)) * &probabilities;
        let entropy = -information.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
        let eta = ((-entropy).exp() * self.epsilon.sqrt()).clamp_max(self.epsilon);
        let removed = scores.softmax(-1, Kind::Float).lt_tensor(&eta);
        cut(&scores, &removed.logical_and(&below_best(&scores, self.keep)))
    }
}

/// Which scores are less than the k-th best. [N, V] -> [N, V] bool
fn below_best(scores: &Tensor, k: i64) -> Tensor {
    let (best, _) = scores.topk(k.min(scores.size()[1]), -1, true, true);
    scores.lt_tensor(&best.narrow(1, best.size()[1] - 1, 1))
}

fn cut(scores: &Tensor, removed: &Tensor) -> Tensor {
    scores.masked_fill(removed, f64::NEG_INFINITY)
}
