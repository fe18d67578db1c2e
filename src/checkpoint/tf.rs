//! Reading `tf_model.h5`: the variables of a Keras model under their TensorFlow names.
//!
//! Names and layouts become those of PyTorch as `convert_tf_weight_name_to_pt_weight_name` of
//! transformers changes them, and as `TFVisionEncoderDecoderModel` drops the main layer of its
//! encoder.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::entry::{Entries, Entry};
use super::hdf5;
use super::mapped::Mapped;

/// Main layers of encoders: TensorFlow has this level, PyTorch does not.
const ENCODER_MAIN_LAYERS: [&str; 6] =
    ["vit", "deit", "swin", "data2vec_vision", "vit_mae", "clip"];

/// The tensors of a file under their PyTorch names.
pub(super) fn open(path: &Path) -> Result<Entries> {
    let file = Mapped::open(path)?;
    let read = || -> Result<Entries> {
        let datasets = hdf5::datasets(file.bytes())?;
        ensure!(!datasets.is_empty(), "the file holds no datasets");
        let entries = datasets.into_iter().map(|dataset| {
            // The first group is the layer of Keras, below it are the names of variables.
            let variable = dataset.path.split_once('/').map_or(&*dataset.path, |(_, name)| name);
            let entry = Entry {
                info: dataset.info,
                file: file.clone(),
                layout: dataset.layout,
                permute: Vec::new(),
            };
            to_pytorch(variable, entry)
        });
        Ok(entries.collect())
    };
    read().with_context(|| format!("{path:?}"))
}

/// The key and the layout PyTorch has for a variable of this name.
pub(super) fn to_pytorch(variable: &str, mut entry: Entry) -> (String, Entry) {
    let (key, order) = convert(variable, entry.info.shape.len());
    // The bias of GPT-2's Conv1D is a row of a matrix.
    if key.ends_with(".bias") && matches!(entry.info.shape[..], [1, _]) {
        entry.info.shape.remove(0);
    }
    (key, entry.permuted(order))
}

/// `convert_tf_weight_name_to_pt_weight_name`: the key, and the order in which PyTorch has the
/// dimensions (empty: the same).
fn convert(variable: &str, rank: usize) -> (String, Vec<i64>) {
    let variable = variable.replace(":0", "").replace("_._", "/");
    let mut path: Vec<&str> = variable.split('/').filter(|level| !level.is_empty()).collect();
    // Some variables, such as BART's final_logits_bias, have no scope.
    if path.len() > 1 {
        path.remove(0);
    }
    let last = path.len().saturating_sub(1);
    for level in path.iter_mut().take(last) {
        // A layer `a___b` is named `b`.
        *level = level.rsplit("___").next().unwrap_or(level);
    }
    let reversed = || (0..rank as i64).rev().collect();
    let permute = match path.last() {
        Some(&"kernel") if rank == 4 => vec![3, 2, 0, 1],
        Some(&("kernel" | "pointwise_kernel" | "depthwise_kernel")) => reversed(),
        _ => Vec::new(),
    };
    if let Some(last) = path.last_mut() {
        *last = match *last {
            "kernel" | "embeddings" | "gamma" => "weight",
            "beta" => "bias",
            "moving_mean" => "running_mean",
            "moving_variance" => "running_var",
            "pointwise_kernel" => "pointwise.weight",
            "depthwise_kernel" => "depthwise.weight",
            other => other,
        };
    }
    if let ["encoder", main, ..] = path[..]
        && ENCODER_MAIN_LAYERS.contains(&main)
    {
        path.remove(1);
    }
    (path.join("."), permute)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{check_expected, fixture, refusal};
    use super::super::{Checkpoint, Format};
    use super::*;

    #[test]
    fn files_of_keras_are_read() {
        for name in ["h5", "h5-latest", "h5-v108", "h5-layouts"] {
            assert_eq!(check_expected(name).format(), Format::Tensorflow, "{name}");
        }
    }

    #[test]
    fn variables_become_keys() {
        let check = |variable: &str, rank: usize, key: &str, permute: &[i64]| {
            assert_eq!(convert(variable, rank), (key.to_owned(), permute.to_vec()), "{variable}");
        };
        // convert_tf_weight_name_to_pt_weight_name of transformers 4.57.6.
        let scope = "tf_bert_lm_head_model";
        let layer = "bert/encoder/layer_._11/attention";
        let own = format!("{scope}/{layer}/self/query/kernel:0");
        check(&own, 2, "bert.encoder.layer.11.attention.self.query.weight", &[1, 0]);
        let norm = format!("{scope}/{layer}/output/LayerNorm");
        let norm_key = "bert.encoder.layer.11.attention.output.LayerNorm";
        check(&format!("{norm}/gamma:0"), 1, &format!("{norm_key}.weight"), &[]);
        check(&format!("{norm}/beta:0"), 1, &format!("{norm_key}.bias"), &[]);
        let head = format!("{scope}/mlm___cls/predictions/transform/dense/kernel:0");
        check(&head, 2, "cls.predictions.transform.dense.weight", &[1, 0]);
        let words = format!("{scope}/bert/embeddings/word_embeddings/weight:0");
        check(&words, 2, "bert.embeddings.word_embeddings.weight", &[]);
        check("model/shared/embeddings:0", 2, "shared.weight", &[]);
        check("final_logits_bias:0", 2, "final_logits_bias", &[]);
        check("m/conv/kernel:0", 4, "conv.weight", &[3, 2, 0, 1]);
        check("m/conv/kernel:0", 3, "conv.weight", &[2, 1, 0]);
        check("m/c/depthwise_kernel:0", 3, "c.depthwise.weight", &[2, 1, 0]);
        check("m//a//b:0", 1, "a.b", &[]);
        // tf_to_pt_weight_rename of TFVisionEncoderDecoderModel.
        check("m/encoder/vit/layernorm/gamma:0", 1, "encoder.layernorm.weight", &[]);
        check("m/encoder/encoder/layer/0/bias:0", 1, "encoder.encoder.layer.0.bias", &[]);
        check("m/decoder/transformer/wte/weight:0", 2, "decoder.transformer.wte.weight", &[]);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let check = |name: &str, expected: &str| {
            let path = fixture("refused").join(format!("{name}.h5"));
            let error = format!("{:#}", Checkpoint::open_file(&path).err().unwrap());
            assert!(error.starts_with(&format!("{path:?}: ")), "{error}");
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        };
        check("gzip", "dataset \"layer/x\": its data went through the filter gzip");
        check("shuffle", "the filter shuffle");
        check("lzf", "the filter lzf");
        check("string", "its type (variable-length) is not supported");
        check("big-endian", "its big-endian numbers are not supported");
        check("unsigned", "its type (integer of 4 bytes) is not supported");
        check("unwritten", "its chunks were never written");
        check("null", "it is empty");
        check("soft-link", "its member \"x\" is a symbolic link");
        check("ring", "the group \"layer/again\" has a second name");
        check("dense", "in a fractal heap");
        check("new-chunks", "in chunks of a newer kind");
    }

    #[test]
    fn truncated_files_are_refused() {
        for name in ["h5", "h5-latest"] {
            let whole = std::fs::read(fixture(name).join("tf_model.h5")).unwrap();
            for length in [100, 4000, whole.len() - 1] {
                let error = refusal("tf_model.h5", &whole[..length]);
                let missing = format!("the file is truncated: {} bytes", whole.len() - length);
                assert!(error.contains(&missing), "{name} {length}: {error}");
            }
            assert!(refusal("tf_model.h5", &whole[..20]).contains("truncated or damaged at byte"));
        }
    }
}
