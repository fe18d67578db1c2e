//! `--files-from`: names from a file or standard input, as they come.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Named, is_dash};

/// The longest name. What is longer is no list of names.
const MAX_NAME: u64 = 1 << 20;

/// A list that is read as it is needed. Names end with a newline or, with `null`, a zero byte; empty
/// ones are left out. Where a name is a JSON object with `"image"`, as `--errors` and `--format jsonl`
/// write them, this is the name, and `"page"` the page; `"image_bytes"` is the name where it is no Unicode.
pub(super) struct List {
    reader: Box<dyn BufRead + Send>,
    end: u8,
    at_start: bool,
}

impl List {
    pub(super) fn open(path: &Path, null: bool) -> Result<Self> {
        let reader: Box<dyn BufRead + Send> = if is_dash(path) {
            Box::new(BufReader::new(std::io::stdin()))
        } else if path.is_dir() {
            bail!(
                "--files-from {path:?} is a directory; name it as an image to read what is in it"
            );
        } else {
            let file = File::open(path).with_context(|| format!("can't read the list {path:?}"))?;
            Box::new(BufReader::new(file))
        };
        Ok(List { reader, end: if null { 0 } else { b'\n' }, at_start: true })
    }

    /// The next name's bytes, or what is wrong with it; none at the end.
    fn next_name(&mut self) -> Option<Result<Vec<u8>, Fault>> {
        let mut name = Vec::new();
        let mut limited = self.reader.by_ref().take(MAX_NAME);
        match limited.read_until(self.end, &mut name) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return self.broken(name, error),
        }
        if name.last() == Some(&self.end) {
            name.pop();
            if self.end == b'\n' && name.last() == Some(&b'\r') {
                name.pop();
            }
        } else if name.len() as u64 == MAX_NAME
            && let Err(error) = self.reader.skip_until(self.end)
        {
            return self.broken(name, error);
        } else if name.len() as u64 == MAX_NAME {
            let reason = "is longer than 1 MiB, which no name is; is this a list of names?";
            return Some(Err(Fault { name, reason: reason.to_string() }));
        }
        // Editors on Windows mark UTF-8 so.
        if std::mem::take(&mut self.at_start) && name.starts_with(b"\xEF\xBB\xBF") {
            name.drain(..3);
        }
        Some(Ok(name))
    }

    /// A list that can't be read on ends here, and is told as a name that failed.
    fn broken(&mut self, name: Vec<u8>, error: io::Error) -> Option<Result<Vec<u8>, Fault>> {
        self.reader = Box::new(io::empty());
        let reason = format!("the list of --files-from can't be read on behind this: {error}");
        Some(Err(Fault { name, reason }))
    }
}

/// A name that can't be one.
struct Fault {
    name: Vec<u8>,
    reason: String,
}

impl Iterator for List {
    type Item = Named;

    fn next(&mut self) -> Option<Named> {
        loop {
            match self.next_name()? {
                Ok(name) if name.is_empty() => {}
                Ok(name) => {
                    return Some(from_json(&name).unwrap_or_else(|| Named {
                        path: PathBuf::from(os_string(name)),
                        page: None,
                        fault: None,
                    }));
                }
                Err(Fault { name, reason }) => {
                    // The beginning says which one it is.
                    let start = String::from_utf8_lossy(&name[..name.len().min(80)]).into_owned();
                    let path = PathBuf::from(start);
                    return Some(Named { path, page: None, fault: Some(reason) });
                }
            }
        }
    }
}

fn from_json(name: &[u8]) -> Option<Named> {
    if !name.starts_with(b"{") {
        return None;
    }
    let json: Value = serde_json::from_slice(name).ok()?;
    let path = match json.get("image_bytes").and_then(Value::as_str).and_then(bytes) {
        // A name that is no Unicode: "image" only resembles it.
        Some(bytes) => PathBuf::from(os_string(bytes)),
        None => PathBuf::from(json.get("image")?.as_str()?),
    };
    let page = json.get("page").and_then(Value::as_u64).and_then(|page| usize::try_from(page).ok());
    Some(Named { path, page, fault: None })
}

/// The way back from `hex`.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    digits.map(|pair| u8::from_str_radix(pair.filter(|pair| pair.len() == 2)?, 16).ok()).collect()
}

/// How a name that is no Unicode stands in a record or ledger as `"image_bytes"`; none for others,
/// which `"image"` tells whole.
pub(in crate::cli) fn name_bytes(path: &Path) -> Option<String> {
    if path.to_str().is_some() {
        return None;
    }
    Some(hex(path.as_os_str().as_encoded_bytes()))
}

/// Bytes as pairs of hexadecimal digits.
pub(in crate::cli) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(unix)]
fn os_string(bytes: Vec<u8>) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

#[cfg(not(unix))]
fn os_string(bytes: Vec<u8>) -> OsString {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &[u8], end: u8) -> Vec<(String, Option<usize>)> {
        let reader = Box::new(std::io::Cursor::new(text.to_vec()));
        List { reader, end, at_start: true }
            .map(|named| (named.path.display().to_string(), named.page))
            .collect()
    }

    #[test]
    fn names_are_lines_or_end_with_zero() {
        let plain = |name: &str| (name.to_string(), None);
        let lines = b"\xEF\xBB\xBFa.png\r\n\n b c.png \nhttp://x/y\nlast";
        assert_eq!(read(lines, b'\n'), ["a.png", " b c.png ", "http://x/y", "last"].map(plain));
        let zeros = b"a\nb.png\0c.png\r\0\0last";
        assert_eq!(read(zeros, 0), ["a\nb.png", "c.png\r", "last"].map(plain));
    }

    #[test]
    fn a_ledger_is_a_list() {
        let ledger = br#"{"image": "a.tif", "page": 3, "error": "damaged"}
{"image": "x/\u00e4.png", "error": "no such file"}
{not json}
{"text": "no image"}
"#;
        let expected = [
            ("a.tif", Some(3)),
            ("x/\u{e4}.png", None),
            ("{not json}", None),
            ("{\"text\": \"no image\"}", None),
        ];
        assert_eq!(read(ledger, b'\n'), expected.map(|(name, page)| (name.to_string(), page)));
    }

    /// Fails after its first bytes.
    struct Breaks(&'static [u8]);

    impl Read for Breaks {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            match self.0.read(to)? {
                0 => Err(io::Error::other("the disk is gone")),
                read => Ok(read),
            }
        }
    }

    #[test]
    fn a_list_that_breaks_is_told_and_ends() {
        let reader = Box::new(BufReader::new(Breaks(b"a.png\nb.p")));
        let names: Vec<Named> = List { reader, end: b'\n', at_start: true }.collect();
        let faults: Vec<bool> = names.iter().map(|named| named.fault.is_some()).collect();
        assert_eq!(faults, [false, true]);
        let reason = names[1].fault.as_deref().unwrap();
        assert!(reason.contains("can't be read on behind this: the disk is gone"), "{reason}");
        assert_eq!(names[1].path, Path::new("b.p"));
    }
}
