//! What the constructors of the reference's classes put where no file says anything.

use tokenizers::AddedToken;

use super::class::Class;

/// The default of an attribute (index in [`ATTRIBUTES`]) in the class's constructor.
pub(super) fn default_token(class: Class, index: usize) -> Option<&'static str> {
    use Class::*;
    let defaults: [&str; 7] = match class {
        Gpt2 => ["<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "", "", "", ""],
        Roberta | Bart | Blenderbot | XlmRoberta | MBart | Camembert | Barthez => {
            ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"]
        }
        MBart50 => ["", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"],
        Xglm => ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", ""],
        Bert | BertJapanese => ["", "", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"],
        Pegasus => ["", "</s>", "<unk>", "", "<pad>", "", "<mask_2>"],
        Marian => ["", "</s>", "<unk>", "", "<pad>", "", ""],
        BlenderbotSmall => ["__start__", "__end__", "__unk__", "", "__null__", "", ""],
        Nougat => ["<s>", "</s>", "<unk>", "", "<pad>", "", ""],
        Generic => [""; 7],
    };
    Some(defaults[index]).filter(|token| !token.is_empty())
}

/// The token that a constructor makes of a string; None where it stays a string. The slow
/// constructor decides when there is no tokenizer.json (`from_json` false).
pub(super) fn class_token(
    class: Class,
    index: usize,
    content: &str,
    from_json: bool,
) -> Option<AddedToken> {
    use Class::*;
    let mask = index == 6;
    let token =
        |normalized: bool| AddedToken::from(content, false).lstrip(mask).normalized(normalized);
    match (class, from_json) {
        (Roberta | Blenderbot | XlmRoberta | MBart | MBart50 | Barthez | Camembert, true)
            if mask =>
        {
            Some(token(false))
        }
        (Bart, true) if mask => Some(token(true)),
        (Gpt2 | Bart, false) => Some(token(true)),
        (Roberta | Blenderbot, false) => Some(token(!mask)),
        (XlmRoberta | MBart | Camembert | Barthez, false) if mask => Some(token(false)),
        (MBart50, false) if mask => Some(token(true)),
        _ => None,
    }
}

/// FAIRSEQ_LANGUAGE_CODES of mBART, in the order of their ids.
pub(super) const MBART_CODES: [&str; 25] = [
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN",
    "it_IT", "ja_XX", "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO",
    "ru_RU", "si_LK", "tr_TR", "vi_VN", "zh_CN",
];

/// The codes that mBART-50 has after those of mBART.
pub(super) const MBART50_CODES: [&str; 27] = [
    "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK",
    "ml_IN", "mn_MN", "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN",
    "th_TH", "tl_XX", "uk_UA", "ur_PK", "xh_ZA", "gl_ES", "sl_SI",
];
