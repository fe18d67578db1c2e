//! What a run trains on and is measured by: tables read and checked, streams looked at.

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::data::check::{CACHE_BYTES, CheckOptions, Prepared, WHOLE, prepare};
use super::data::{Dataset, LabelRule, Labeller, Source, Stream, Table};
use super::log::Talk;
use super::options::{Interval, Options};
use super::setup::Request;
use super::state::Fingerprint;
use crate::image::DecodeOptions;
use crate::text::Tokenizer;
use crate::ved::{Processor, VisionEncoderDecoder};

/// Everything that the flags of the data name.
pub(super) struct Material {
    pub train: Source,
    pub eval: Option<(Dataset, Table)>,
    pub labels: LabelRule,
    /// Different images of the two; a stream does not know.
    pub images: (Option<usize>, Option<usize>),
    /// Tokens of the longest label that was seen.
    pub longest: usize,
    pub fingerprint: Fingerprint,
}

/// Longest label of a decoder that counts its positions without end.
const MAX_TARGET_LENGTH: usize = 512;
/// How the table of `--data` is called.
const TRAINING: &str = "training data";
pub(super) const NO_END: &str =
    "--data pipe: is a stream without end: say with --max-steps how long to train";
/// Samples of a stream that are shown before the first step.
const SHOWN: usize = 3;

/// How texts become labels of this model.
fn label_rule(
    model: &VisionEncoderDecoder,
    tokenizer: &Tokenizer,
    options: &Options,
    eos: Option<i64>,
) -> Result<LabelRule> {
    let limits = model.decoder.limits();
    let positions = limits.max_positions.map_or(MAX_TARGET_LENGTH, |most| most as usize);
    let wanted = options.max_target_length.unwrap_or(positions.min(MAX_TARGET_LENGTH));
    ensure!(
        limits.max_positions.is_none() || wanted <= positions,
        "--max-target-length {wanted}: the decoder has {positions} positions"
    );
    LabelRule::new(tokenizer, eos, wanted, limits.vocab_size)
}

/// Reads and checks what `--data` and `--eval-data` name.
pub(super) fn read(
    request: &Request,
    options: &Options,
    model: &VisionEncoderDecoder,
    processor: &Processor,
    eos: Option<i64>,
    talk: &Talk,
) -> Result<Material> {
    let labels = label_rule(model, &processor.tokenizer, options, eos)?;
    let labeller = labels.labeller(&processor.tokenizer);
    let check = |table: Table, what: &str, arranged: bool| -> Result<Prepared> {
        let options = CheckOptions {
            skip_bad_rows: options.skip_bad_rows,
            decode: DecodeOptions::default(),
            cache_bytes: CACHE_BYTES,
            arranged,
            whole: WHOLE,
        };
        let counting = talk.counting(&format!("checking the {what}"));
        let progress = |done, all| counting.done(done, all);
        let prepared = prepare(table, &labeller, &processor.image_processor, &options, &progress)?;
        drop(counting);
        let is_example = |sentence: &str| sentence.starts_with("label ");
        for sentence in prepared.report.sentences() {
            // The labels of one table show what the tokenizer does.
            if what == TRAINING || !is_example(&sentence) {
                talk.say(&format!("{what}: {sentence}"));
            }
        }
        Ok(prepared)
    };
    let evaluation = |mut table: Table| -> Result<Prepared> {
        table.rows.truncate(options.eval_samples.unwrap_or(usize::MAX));
        check(table, "evaluation data", true)
    };
    let other = || -> Result<Option<Table>> {
        let path = request.eval_data.as_ref();
        path.map(|path| Table::read(path, &request.columns)).transpose()
    };

    if let Some(stream) = Stream::parse(&request.data.to_string_lossy())? {
        let longest = look_at(&stream, options, request.eval_data.is_some(), &labeller, talk)?;
        let eval = other()?.map(evaluation).transpose()?;
        let processor = Box::new(processor.image_processor.clone());
        return Ok(Material::new(Source::Stream(stream, processor), None, eval, labels, longest));
    }
    let table = Table::read(&request.data, &request.columns)?;
    let (table, eval) = match options.eval_split {
        Some(part) => table.split(part, options.seed).map(|(table, eval)| (table, Some(eval)))?,
        None => (table, other()?),
    };
    let train = check(table, TRAINING, options.augment.is_none())?;
    let eval = eval.map(evaluation).transpose()?;
    if let Some(eval) = &eval {
        match train.report.shared_images(&eval.report) {
            0 => {}
            shared => talk.warn(&format!(
                "{shared} images of the evaluation data are in the training data as well: the scores \
                 will flatter"
            )),
        }
    }
    let longest = train.report.tokens.1;
    Ok(Material::new(Source::Rows(train.dataset.clone()), Some(train), eval, labels, longest))
}

/// Shows the first samples of a stream as labels, and refuses what makes no sense with it. Gives the
/// tokens of the longest of them.
fn look_at(
    stream: &Stream,
    options: &Options,
    has_eval: bool,
    labeller: &Labeller,
    talk: &Talk,
) -> Result<usize> {
    options.max_steps.context(NO_END)?;
    if let Some(share) = options.eval_split {
        bail!("--eval-split {share}: a stream can't be split; pass a table by --eval-data");
    }
    if options.save_steps == Interval::Epoch {
        talk.warn(
            "a stream has no epochs, so nothing is saved before the end; pass --save-steps N",
        );
    }
    if has_eval && options.eval_steps == Interval::Epoch {
        let sentence = "a stream has no epochs, so nothing is evaluated before the end";
        ensure!(
            options.early_stopping_patience.is_none(),
            "--early-stopping-patience: {sentence}; pass --eval-steps N"
        );
        talk.warn(&format!("{sentence}; pass --eval-steps N"));
    }
    let mut longest = 0;
    for (name, text) in stream.first(SHOWN)? {
        let label = labeller.encode(&text)?;
        longest = longest.max(label.ids.len());
        let back = labeller.decode(&label.ids)?;
        talk.say(&format!(
            "{TRAINING}: {name}: {text:?} is {} tokens and comes back as {back:?}",
            label.ids.len()
        ));
    }
    Ok(longest)
}

impl Material {
    fn new(
        train: Source,
        rows: Option<Prepared>,
        eval: Option<Prepared>,
        labels: LabelRule,
        longest: usize,
    ) -> Self {
        let images = |part: &Option<Prepared>| part.as_ref().map(|part| part.report.images);
        let tokens = eval.as_ref().map_or(0, |eval| eval.report.tokens.1);
        Material {
            fingerprint: fingerprint(&train, rows.as_ref(), eval.as_ref()),
            images: (images(&rows), images(&eval)),
            longest: longest.max(tokens),
            train,
            eval: eval.map(|eval| (eval.dataset, eval.table)),
            labels,
        }
    }
}

/// What the rows are, or the command, so that a resumed run can tell that they changed.
fn fingerprint(train: &Source, rows: Option<&Prepared>, eval: Option<&Prepared>) -> Fingerprint {
    let mut hash = Sha256::new();
    if let Source::Stream(stream, _) = train {
        hash.update(stream.command().as_bytes());
    }
    for part in [rows, eval].into_iter().flatten() {
        for (row, sample) in part.table.rows.iter().zip(part.dataset.rows()) {
            hash.update(row.image.name().as_bytes());
            hash.update([0]);
            sample.label.iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update([0]);
        }
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let eval_rows = eval.map_or(0, |eval| eval.dataset.len());
    Fingerprint { train_rows: train.rows().unwrap_or(0), eval_rows, sha256 }
}
