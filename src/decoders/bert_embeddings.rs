//! The embeddings of BERT and its descendants.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::bert::{Config, PositionType};
use crate::nn::position::{plain, skipping_padding};
use crate::nn::{Cache, Embedding, LayerNorm, Linear, Params, dropout};

/// Sum of a token's vectors, normalised.
pub(super) struct Embeddings {
    pub word: Embedding,
    pub positions: Positions,
    /// [types, E]
    pub token_type: Option<Tensor>,
    /// ERNIE's, [tasks, E]
    pub task_type: Option<Tensor>,
    pub layer_norm: Option<LayerNorm>,
    pub dropout: f64,
}

/// Which vectors tell the place of a token.
pub(super) enum Positions {
    /// Self-attention alone knows.
    None,
    /// Rows 0, 1, ..
    Plain(Embedding),
    /// RoBERTa's: padding keeps its own row, the others count on from there.
    SkippingPadding(Embedding, i64),
}

impl Embeddings {
    /// Keys `token_type_embeddings` and `LayerNorm` below `p`; the words are the caller's, because
    /// the head may share them.
    pub(super) fn new(
        p: &Params,
        config: &Config,
        word: Tensor,
        positions: Positions,
    ) -> Result<Self> {
        let size = word.size()[1];
        Ok(Embeddings {
            word: Embedding::new(word, config.pad_token_id),
            positions,
            token_type: Some(Embeddings::token_type(p, config, size)?),
            task_type: Embeddings::task_type(p, config, size)?,
            layer_norm: Some(p.layer_norm("LayerNorm", size, config.layer_norm_eps)?),
            dropout: config.hidden_dropout_prob,
        })
    }

    /// Key `token_type_embeddings.weight`. -> [types, E]
    pub(super) fn token_type(p: &Params, config: &Config, size: i64) -> Result<Tensor> {
        ensure!(
            config.type_vocab_size > 0,
            "type_vocab_size {} is no size",
            config.type_vocab_size
        );
        let shape = [config.type_vocab_size, size];
        (p / "token_type_embeddings").var("weight", &shape, config.init())
    }

    /// Key `task_type_embeddings.weight`, if the config uses it. -> [tasks, E]
    fn task_type(p: &Params, config: &Config, size: i64) -> Result<Option<Tensor>> {
        if !config.use_task_id {
            return Ok(None);
        }
        let tasks = config.task_type_vocab_size;
        ensure!(tasks > 0, "task_type_vocab_size {tasks} is no size");
        (p / "task_type_embeddings").var("weight", &[tasks, size], config.init()).map(Some)
    }

    /// ids [N, t] -> [N, t, E]
    pub(super) fn forward(&self, ids: &Tensor, cache: &mut Cache, train: bool) -> Tensor {
        let mut xs = self.word.forward(ids);
        if let Some(types) = &self.token_type {
            xs += types.get(0); // captions have one segment
        }
        if let Some(positions) = self.positions.forward(ids, cache) {
            xs += positions;
        }
        if let Some(tasks) = &self.task_type {
            xs += tasks.get(0);
        }
        let xs = match &self.layer_norm {
            Some(norm) => norm.forward(&xs),
            None => xs,
        };
        dropout(&xs, self.dropout, train)
    }
}

/// From embeddings of size `e` to `hidden_size`, where they differ: keys `name.{weight,bias}`.
pub(super) fn project(p: &Params, name: &str, e: i64, config: &Config) -> Result<Option<Linear>> {
    if e == config.hidden_size {
        return Ok(None);
    }
    p.linear(name, e, config.hidden_size, config.init()).map(Some)
}

impl Positions {
    /// Key `position_embeddings.weight` [P, E], whatever self-attention knows.
    pub(super) fn absolute(p: &Params, config: &Config, size: i64) -> Result<Self> {
        let rows = config.max_position_embeddings;
        Ok(Positions::Plain(p.embedding("position_embeddings", rows, size, config.init())?))
    }

    /// `absolute`, but only a spare table where self-attention has relative keys.
    pub(super) fn plain(p: &Params, config: &Config, size: i64) -> Result<Self> {
        let (rows, init) = (config.max_position_embeddings, config.init());
        if config.position_embedding_type == PositionType::Absolute {
            return Positions::absolute(p, config, size);
        }
        (p / "position_embeddings").spare("weight", &[rows, size], init)?;
        Ok(Positions::None)
    }

    /// ids [N, t] -> [t, E] or [N, t, E]
    fn forward(&self, ids: &Tensor, cache: &mut Cache) -> Option<Tensor> {
        match self {
            Positions::None => None,
            Positions::Plain(table) => {
                Some(table.forward(&plain(ids.size()[1], cache.past(), ids.device())))
            }
            Positions::SkippingPadding(table, padding_idx) => {
                Some(table.forward(&skipping_padding(ids, *padding_idx, cache)))
            }
        }
    }
}
