//! Which tokenizer class of the reference a directory asks for.

use anyhow::{Result, bail};

use super::files::TokenizerFiles;

/// A tokenizer class; several names of the reference share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Gpt2,
    Roberta,
    Bart,
    Blenderbot,
    BlenderbotSmall,
    Bert,
    BertJapanese,
    XlmRoberta,
    MBart,
    MBart50,
    Camembert,
    Barthez,
    Xglm,
    Pegasus,
    Marian,
    Nougat,
    /// A class that is all in its tokenizer.json.
    Generic,
}

use Class::*;

/// Names without the suffix `Fast`; the first of a class is the one that is written.
const NAMES: [(&str, Class); 27] = [
    ("GPT2Tokenizer", Gpt2),
    ("RobertaTokenizer", Roberta),
    ("LongformerTokenizer", Roberta),
    ("BartTokenizer", Bart),
    ("MvpTokenizer", Bart),
    ("LEDTokenizer", Bart),
    ("BlenderbotTokenizer", Blenderbot),
    ("BlenderbotSmallTokenizer", BlenderbotSmall),
    ("BertTokenizer", Bert),
    ("ElectraTokenizer", Bert),
    ("DistilBertTokenizer", Bert),
    ("MobileBertTokenizer", Bert),
    ("ConvBertTokenizer", Bert),
    ("SqueezeBertTokenizer", Bert),
    ("LayoutLMTokenizer", Bert),
    ("BertJapaneseTokenizer", BertJapanese),
    ("XLMRobertaTokenizer", XlmRoberta),
    ("MBartTokenizer", MBart),
    ("MBart50Tokenizer", MBart50),
    ("CamembertTokenizer", Camembert),
    ("BarthezTokenizer", Barthez),
    ("XGLMTokenizer", Xglm),
    ("PegasusTokenizer", Pegasus),
    ("MarianTokenizer", Marian),
    ("NougatTokenizer", Nougat),
    ("PreTrainedTokenizer", Generic),
    ("TokenizersBackend", Generic),
];

/// The classes that go with a decoder's `model_type`, best first.
const MODEL_TYPES: [(&str, &[Class]); 24] = [
    ("gpt2", &[Gpt2]),
    ("opt", &[Gpt2]),
    ("roberta", &[Roberta, XlmRoberta]),
    ("roberta-prelayernorm", &[Roberta]),
    ("data2vec-text", &[Roberta]),
    ("trocr", &[Roberta, XlmRoberta]),
    ("bart", &[Bart, Barthez]),
    ("mvp", &[Bart]),
    ("led", &[Bart]),
    ("blenderbot", &[Blenderbot]),
    ("blenderbot-small", &[BlenderbotSmall]),
    ("bert", &[Bert]),
    ("electra", &[Bert]),
    ("distilbert", &[Bert]),
    ("mobilebert", &[Bert]),
    ("convbert", &[Bert]),
    ("xlm-roberta", &[XlmRoberta]),
    ("xlm-roberta-xl", &[XlmRoberta]),
    ("mbart", &[MBart]),
    ("camembert", &[Camembert]),
    ("xglm", &[Xglm]),
    ("pegasus", &[Pegasus]),
    ("bigbird_pegasus", &[Pegasus]),
    ("marian", &[Marian]),
];

impl Class {
    /// The files that the class is built from when there is no tokenizer.json.
    pub(super) fn parts(self) -> &'static [&'static str] {
        match self {
            Gpt2 | Roberta | Bart | Blenderbot | BlenderbotSmall => &["vocab.json", "merges.txt"],
            Bert | BertJapanese => &["vocab.txt"],
            XlmRoberta | MBart | MBart50 | Camembert | Barthez | Xglm => {
                &["sentencepiece.bpe.model"]
            }
            Pegasus => &["spiece.model"],
            Marian => &["source.spm", "target.spm", "vocab.json"],
            Nougat | Generic => &[],
        }
    }

    /// Classes that the reference has no fast tokenizer for.
    pub(super) fn is_slow(self) -> bool {
        matches!(self, BlenderbotSmall | BertJapanese | Marian)
    }

    fn parts_are_in(self, files: &TokenizerFiles) -> bool {
        !self.parts().is_empty() && self.parts().iter().all(|name| files.has(name))
    }
}

/// The outcome of the search for a class.
pub(super) struct Resolved {
    pub(super) class: Class,
    /// The reference's name for it.
    pub(super) name: String,
    /// Whether a file names the class; otherwise it was guessed and its defaults are not forced.
    pub(super) declared: bool,
    /// Whether the vocabulary comes from tokenizer.json.
    pub(super) from_json: bool,
}

/// Finds the class: `tokenizer_class` of tokenizer_config.json, else of config.json, else by the
/// decoder's model type, else by the files that are there.
pub(super) fn resolve(
    files: &TokenizerFiles,
    decoder_model_type: Option<&str>,
) -> Result<Resolved> {
    let has_json = files.has("tokenizer.json");
    let declared = files
        .config_str("tokenizer_class")
        .or_else(|| files.model_config.get("tokenizer_class").and_then(|name| name.as_str()));
    if let Some(name) = declared {
        return of_name(files, name, has_json);
    }
    let model_type = decoder_model_type.or_else(|| {
        files.model_config.get("decoder").and_then(|decoder| decoder.get("model_type")?.as_str())
    });
    let candidates = MODEL_TYPES
        .iter()
        .find(|(name, _)| Some(*name) == model_type)
        .map_or(&[] as &[Class], |(_, classes)| classes);
    let by_parts = candidates.iter().copied().find(|class| class.parts_are_in(files));
    let guess = |class: Class, from_json| {
        let name = NAMES.iter().find(|(_, other)| *other == class).map_or("", |(name, _)| name);
        Resolved { class, name: name.to_owned(), declared: false, from_json }
    };
    if has_json {
        let class = by_parts.or(candidates.first().copied()).filter(|class| !class.is_slow());
        return Ok(guess(class.unwrap_or(Generic), true));
    }
    let class = match by_parts {
        Some(class) => Some(class),
        None => by_files(files)?,
    };
    match class {
        Some(class) => Ok(guess(class, false)),
        None => bail!(
            "no tokenizer in {:?}: looked for tokenizer.json, vocab.json with merges.txt, vocab.txt, \
             sentencepiece.bpe.model, spiece.model (with a tokenizer_class), and source.spm with \
             target.spm and vocab.json; copy the tokenizer files of the decoder there",
            files.dir
        ),
    }
}

fn of_name(files: &TokenizerFiles, name: &str, has_json: bool) -> Result<Resolved> {
    let base = name.strip_suffix("Fast").unwrap_or(name);
    let known = NAMES.iter().find(|(other, _)| *other == base).map(|(_, class)| *class);
    let class = match known {
        Some(class) => class,
        None if has_json => Generic,
        None => bail!(
            "{:?}: tokenizer_class {name:?} can only be used with a tokenizer.json, and there is none; \
             save the tokenizer once with its fast class and copy tokenizer.json there",
            files.dir
        ),
    };
    let from_json = has_json && !class.is_slow();
    if !from_json && !class.parts_are_in(files) {
        let mut wanted = class.parts().to_vec();
        wanted.retain(|part| !files.has(part));
        let instead = if class.is_slow() { "" } else { " (or tokenizer.json)" };
        let wanted =
            if wanted.is_empty() { "tokenizer.json".to_owned() } else { wanted.join(", ") };
        bail!("no tokenizer in {:?}: {name} needs {wanted}{instead}, not there", files.dir);
    }
    Ok(Resolved { class, name: base.to_owned(), declared: true, from_json })
}

/// The class by the files alone. `spiece.model` says too little: several layouts use that name.
fn by_files(files: &TokenizerFiles) -> Result<Option<Class>> {
    Ok(if Marian.parts_are_in(files) {
        Some(Marian)
    } else if Gpt2.parts_are_in(files) {
        let vocab = files.vocab_json("vocab.json")?;
        let has = |token: &str| vocab.iter().any(|(other, _)| other == token);
        Some(if has("<s>") && has("</s>") && has("<mask>") { Roberta } else { Gpt2 })
    } else {
        [XlmRoberta, Bert].into_iter().find(|class| class.parts_are_in(files))
    })
}

#[cfg(test)]
mod tests {
    use super::super::files::VOCABULARIES;
    use super::*;

    #[test]
    fn every_class_is_built_from_a_known_set_of_files() {
        for (name, class) in NAMES {
            let parts = class.parts();
            assert!(parts.is_empty() || VOCABULARIES.contains(&parts), "{name}: {parts:?}");
        }
    }
}
