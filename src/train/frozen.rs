//! `--freeze-encoder`: what a frozen encoder says of an image stays the same, so it is computed once and
//! kept, if memory allows it and nothing is drawn on the way.
//!
//! The reference's Trainer leaves dropout and stochastic depth on in a frozen encoder (`model.train()`
//! reaches all modules). So does this program: such an encoder, or one whose images are augmented, is
//! run anew for every batch.

use anyhow::Result;
use serde_json::{Map, Value};
use tch::{Device, Tensor};

use super::Run;
use super::data::{BatchOptions, Dataset, Position, Source};
use super::memory::{self, guarded};
use super::options::Options;
use super::setup::Setup;
use crate::encoders;
use crate::nn::precision::Autocast;
use crate::signals;
use crate::ved::VisionEncoderDecoder;

/// Memory that the states of all images may take.
pub const STATES_BYTES: usize = 2 << 30;

/// The encoder's states of every image of a table.
pub struct FrozenStates {
    /// [S, De] each, on the CPU, by the number of the image.
    states: Vec<Option<Tensor>>,
}

impl FrozenStates {
    /// The states of a batch of images. -> [B, S, De]
    pub fn batch(&self, images: &[usize]) -> Tensor {
        let states: Vec<&Tensor> =
            images.iter().filter_map(|image| self.states[*image].as_ref()).collect();
        Tensor::stack(&states, 0)
    }

    /// Computes all of them, in the order of the table and in batches that nothing but the options
    /// shapes: a resumed run has the same. `encode` maps [B, C, H, W] to [B, S, De].
    ///
    /// `progress` is told how many of all images are done, and which ones were left out just now.
    ///
    /// None if they would take more than `STATES_BYTES`, if images differ in size, or after an interrupt.
    pub fn compute(
        data: &Dataset,
        options: &Options,
        encode: impl Fn(&Tensor) -> Result<Tensor>,
        mut progress: impl FnMut(usize, usize, &[String]),
    ) -> Result<Option<FrozenStates>> {
        let each = data.each_image();
        let batches = BatchOptions {
            batch_size: options.per_device_train_batch_size,
            shuffle: false,
            workers: Some(options.workers()),
            epochs: Some(1),
            skip_bad_rows: options.skip_bad_rows,
            ..BatchOptions::default()
        };
        let mut states: Vec<Option<Tensor>> = (0..data.images().len()).map(|_| None).collect();
        let (mut done, mut size) = (0, None);
        for batch in each.batches(&batches, Position::default())? {
            let batch = batch?;
            done += batch.images.len() + batch.left_out.len();
            progress(done, each.len(), &batch.left_out);
            if batch.labels.is_empty() {
                continue;
            }
            let found = encode(&batch.pixel_values())?.to_device(Device::Cpu);
            let own = found.size().split_off(1);
            let bytes = each.len() * own.iter().product::<i64>() as usize * size_of::<f32>();
            if signals::asked() || bytes > STATES_BYTES || *size.get_or_insert(own.clone()) != own {
                return Ok(None);
            }
            for (state, image) in found.unbind(0).iter().zip(&batch.images) {
                // A copy: the parts of one tensor would keep each other alive.
                states[*image] = Some(state.copy());
            }
        }
        Ok(Some(FrozenStates { states }))
    }
}

impl Run<'_> {
    /// Runs a frozen encoder once over all images, where that saves work and nothing forbids it.
    pub(super) fn freeze(&mut self) -> Result<()> {
        let Setup { state, train, reader, talk, .. } = &self.setup;
        let steps = state.max_steps.saturating_sub(state.global_step) as usize;
        let options = self.options;
        let samples =
            steps * options.gradient_accumulation_steps * options.per_device_train_batch_size;
        let Source::Rows(train) = train else { return Ok(()) };
        if !options.freeze_encoder || samples <= train.each_image().len() {
            return Ok(());
        }
        if let Some(reason) = changing(&reader.model, options)? {
            talk.say(&format!("the frozen encoder is run for every batch: {reason}"));
            return Ok(());
        }
        let encode = |pixel_values: &Tensor| {
            let _mixed = Autocast::new(options.mixed_precision());
            let pixel_values = pixel_values.to_device(self.request.device);
            guarded(
                || memory::for_a_step(options),
                || Ok(tch::no_grad(|| reader.model.encode(&pixel_values, true))),
            )
        };
        let counting = talk.counting("encoding the images once");
        let mut left_out = Vec::new();
        let progress = |done: usize, all: usize, bad: &[String]| {
            left_out.extend_from_slice(bad);
            counting.done(done, all);
        };
        let frozen = FrozenStates::compute(train, options, encode, progress)?;
        drop(counting);
        if frozen.is_none() && !signals::asked() {
            talk.say(&format!(
                "the frozen encoder is run for every batch: the states of all images would take more than \
                 {} GiB, or their sizes differ",
                STATES_BYTES >> 30
            ));
        }
        if frozen.is_some() {
            talk.say("the encoder is frozen: what it says of each image is kept");
        }
        self.frozen = frozen;
        self.tell_left_out(&left_out);
        Ok(())
    }
}

/// Why the states can't be kept, where the settings say so; the value is told to the user.
pub fn changing(model: &VisionEncoderDecoder, options: &Options) -> Result<Option<String>> {
    if options.augment.is_some() {
        return Ok(Some("images are augmented".to_string()));
    }
    if options.trim_padding > 0.0 {
        return Ok(Some("columns are left out by --trim-padding".to_string()));
    }
    if options.ctc_weight > 0.0 {
        return Ok(Some("--ctc-weight reads its columns".to_string()));
    }
    let defaults = (encoders::find(model.config.encoder_type())?.defaults)();
    let drawing = drawing(&defaults, &model.config.encoder);
    Ok(drawing.map(|setting| format!("the encoder's config has {setting}")))
}

/// The first setting by which an encoder draws numbers while it trains.
fn drawing(defaults: &Value, config: &Value) -> Option<String> {
    let mut all = Map::new();
    for part in [defaults, config].into_iter().filter_map(Value::as_object) {
        all.extend(part.clone());
    }
    // DINOv3 alters the positions of its patches at random (`pos_embed_rescale` and its like).
    let draws = |name: &str| name.contains("drop") || name.starts_with("pos_embed_");
    let mut found = all.iter().filter(|(name, value)| draws(name) && value.as_f64() > Some(0.0));
    found.next().map(|(name, value)| format!("{name} {value}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_draws_is_named() {
        let defaults = |name: &str| encoders::find(name).map(|arch| (arch.defaults)());
        let table = [
            ("vit", json!({}), None),
            ("vit", json!({"hidden_dropout_prob": 0.1}), Some("hidden_dropout_prob 0.1")),
            ("dinov2", json!({}), None),
            ("swin", json!({}), Some("drop_path_rate 0.1")),
            ("swin", json!({"drop_path_rate": 0.0}), None),
            ("dinov3_vit", json!({}), Some("pos_embed_rescale 2.0")),
            ("dinov3_vit", json!({"pos_embed_rescale": null}), None),
        ];
        for (name, config, expected) in table {
            let found = defaults(name).ok().and_then(|defaults| drawing(&defaults, &config));
            assert_eq!(found.as_deref(), expected, "{name} {config}");
        }
    }
}
