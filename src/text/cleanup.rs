//! The white space rule that the reference applies to decoded text.

/// The replacements of `clean_up_tokenization`, in its order: each runs over the whole text.
const REPLACEMENTS: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// Removes blanks before punctuation and English contractions
/// (`PreTrainedTokenizerBase.clean_up_tokenization`).
pub fn clean_up_tokenization(text: &str) -> String {
    REPLACEMENTS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Words that can be part of a replacement, alone or with the word after them.
const UNSETTLED: [&str; 19] = [
    "", "'", "'m", "'r", "'re", "'s", "'t", "'v", "'ve", "m", "n", "n'", "n't", "r", "re", "s",
    "t", "v", "ve",
];

/// The length of the text before the blank from which a replacement may still begin when more text
/// follows. The cleaned text up to there is final: every replacement begins at a blank, and only
/// `" ' "` reaches beyond the word that follows.
pub(super) fn settled_len(text: &str) -> usize {
    let mut settled = text.len();
    while let Some(at) = text[..settled].rfind(' ') {
        if !UNSETTLED.contains(&&text[at + 1..settled]) {
            break;
        }
        settled = at;
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_in_the_order_of_the_reference() {
        // From PreTrainedTokenizerBase.clean_up_tokenization of transformers 4.57.6.
        for (text, expected) in [
            ("i do n ' t know , it ' s ok . really ? yes !", "i don't know, it's ok. really? yes!"),
            ("I 'm , we 've , you 're , he 's", "I'm, we've, you're, he's"),
            ("a  . b  ' m", "a . b'm"),
            ("say ' no '", "say'no '"),
            (" . , ' ' ", ".,'' "),
            ("it ' .", "it '."),
            ("", ""),
        ] {
            assert_eq!(clean_up_tokenization(text), expected, "{text:?}");
        }
    }

    #[test]
    fn settled_text_never_changes() {
        let pieces = [
            "a", " ", "  ", " '", " ' ", "n", "'", "t", "t ", " n", "s", " .", ".", "ve", "'re",
            "x",
        ];
        let mut state = 7u64;
        for _ in 0..20000 {
            let mut text = String::new();
            let mut settled = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
                let clean = clean_up_tokenization(&text);
                assert!(clean.starts_with(&settled), "{text:?}: {settled:?} became {clean:?}");
                settled = clean_up_tokenization(&text[..settled_len(&text)]);
            }
        }
    }
}
