//! Lines on standard error that leave a progress bar whole, and texts that leave a terminal alone.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;

use indicatif::ProgressBar;

/// Writes a line above the bar, where there is one.
pub fn line(bar: Option<&ProgressBar>, line: &str) {
    match bar {
        Some(bar) => bar.suspend(|| say(line)),
        None => say(line),
    }
}

/// Writes a line. A standard error that is closed or full is no reason to stop, as it would be to
/// `eprintln!`.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes what the user should know of a run that goes on.
pub fn warn(sentence: impl Display) {
    say(format_args!("vedm: warning: {sentence}"));
}

/// Control characters as their pictures (U+2400 ..), but for line ends and, if `tabs`, tabs.
pub fn visible(text: &str, tabs: bool) -> Cow<'_, str> {
    let acts = |c: char| c.is_control() && c != '\n' && !(tabs && c == '\t');
    if !text.contains(acts) {
        return text.into();
    }
    let picture = |c: char| match u32::from(c) {
        _ if !acts(c) => c,
        code @ 0x00..0x20 => char::from_u32(0x2400 + code).unwrap_or(c),
        0x7F => '\u{2421}',
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_get_pictures() {
        let text = "a\u{1b}[31m\tb\u{7f}\nü\u{9b}";
        assert_eq!(visible(text, false), "a\u{241b}[31m\u{2409}b\u{2421}\nü\u{fffd}");
        assert_eq!(visible(text, true), "a\u{241b}[31m\tb\u{2421}\nü\u{fffd}");
    }
}
