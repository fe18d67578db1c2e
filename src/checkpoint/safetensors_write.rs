//! Writing safetensors, byte for byte as the official writer does.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::atomic::{Atomic, Finished};
use super::safetensors::{MAX_HEADER, dtype_name, dtype_rank};
use super::weights::{Item, Weights};

/// Writes `tensors` to the file `path`, which appears whole or not at all. The metadata get
/// `format: pt`, without which older versions of transformers refuse a file.
pub fn write_safetensors(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &[(&str, &str)],
) -> Result<()> {
    Weights::of(tensors).write_safetensors(path, metadata)
}

impl Weights<'_> {
    /// Writes the tensors to the file `path`, as [`write_safetensors`] does.
    pub fn write_safetensors(&self, path: &Path, metadata: &[(&str, &str)]) -> Result<()> {
        finish(self, path, self.items().iter().collect(), metadata)?.publish()
    }
}

/// Writes some of the weights to a file that still waits for its name.
pub(super) fn finish(
    weights: &Weights,
    path: &Path,
    mut items: Vec<&Item>,
    metadata: &[(&str, &str)],
) -> Result<Finished> {
    weights.check_names()?;
    // The most aligned types first, so that every tensor lies aligned.
    items.sort_by(|a, b| {
        let by_type = dtype_rank(b.info.kind).cmp(&dtype_rank(a.info.kind));
        by_type.then_with(|| a.key.cmp(&b.key))
    });
    let header = header(&items, metadata)?;
    let mut file = Atomic::create(path)?;
    let written = (|| -> Result<()> {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        items.iter().try_for_each(|item| weights.copy(item, &mut file))
    })();
    written.with_context(|| format!("cannot write {path:?}"))?;
    file.finish()
}

/// The JSON header, padded with spaces to a multiple of 8 bytes.
fn header(items: &[&Item], metadata: &[(&str, &str)]) -> Result<String> {
    let mut pairs: Vec<(&str, &str)> = metadata.to_vec();
    if !pairs.iter().any(|(key, _)| *key == "format") {
        pairs.push(("format", "pt"));
    }
    pairs.sort_unstable();
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
    let mut members = vec![format!("\"__metadata__\":{{{}}}", pairs.join(","))];
    let mut start = 0;
    for item in items {
        let dtype = dtype_name(item.info.kind).with_context(|| {
            format!("tensor {:?} is {:?}: no type of safetensors", item.key, item.info.kind)
        })?;
        let shape: Vec<String> = item.info.shape.iter().map(i64::to_string).collect();
        let end = start + item.info.bytes();
        members.push(format!(
            "{}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}",
            quoted(&item.key),
            shape.join(",")
        ));
        start = end;
    }
    let mut header = format!("{{{}}}", members.join(","));
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    ensure!(header.len() as u64 <= MAX_HEADER, "the names of the tensors are too long to be read");
    Ok(header)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::Kind;

    use super::super::tests::{fixture, read_all};
    use super::super::{Checkpoint, Weights, write_safetensors};

    #[test]
    fn the_file_is_that_of_the_official_writer() {
        let tensors = read_all(&fixture("safetensors"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        write_safetensors(&path, &tensors, &[]).unwrap();
        let ours = std::fs::read(&path).unwrap();
        let official = std::fs::read(fixture("safetensors").join("model.safetensors")).unwrap();
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&official));
        assert_eq!(ours, official);
    }

    #[test]
    fn a_view_is_written_as_it_is_seen() {
        let whole = tch::Tensor::arange(12, (Kind::Float, tch::Device::Cpu)).view([3, 4]);
        let view = whole.transpose(0, 1).narrow(0, 1, 2);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write_safetensors(&path, &[("view".to_owned(), view.shallow_clone())], &[]).unwrap();
        assert_eq!(Checkpoint::open_file(&path).unwrap().tensor("view").unwrap(), view);
    }

    #[test]
    fn a_tensor_of_many_chunks_is_whole() {
        let long = tch::Tensor::arange((3 << 20) + 5, (Kind::Int64, tch::Device::Cpu));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write_safetensors(&path, &[("long".to_owned(), long.shallow_clone())], &[]).unwrap();
        assert_eq!(Checkpoint::open_file(&path).unwrap().tensor("long").unwrap(), long);
    }

    #[test]
    fn a_checkpoint_passes_through_cast_and_renamed() {
        let checkpoint = Checkpoint::open(&fixture("safetensors")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let weights = Weights::of_checkpoint(&checkpoint).filter(|key| key != "f64");
        let weights = weights.cast(Kind::BFloat16).rename(|key| format!("encoder.{key}"));
        weights.write_safetensors(&path, &[("step", "7")]).unwrap();
        let written = Checkpoint::open_file(&path).unwrap();
        assert_eq!(written.metadata()["step"], "7");
        assert_eq!(written.metadata()["format"], "pt");
        assert_eq!(written.len(), checkpoint.len() - 1);
        for key in checkpoint.keys().filter(|&key| key != "f64") {
            let before = checkpoint.tensor(key).unwrap();
            let after = written.tensor(&format!("encoder.{key}")).unwrap();
            let float = matches!(before.kind(), Kind::Float | Kind::Half | Kind::BFloat16);
            let expected = if float { before.to_kind(Kind::BFloat16) } else { before };
            assert_eq!((after.kind(), &after), (expected.kind(), &expected), "{key}");
        }
    }

    #[test]
    fn two_checkpoints_become_one() {
        let [encoder, decoder] =
            ["sharded", "bin-dict"].map(|name| Checkpoint::open(&fixture(name)).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let weights = Weights::of_checkpoint(&encoder)
            .filter(|key| key != "b")
            .rename(|key| format!("encoder.{key}"))
            .chain(Weights::of_checkpoint(&decoder).rename(|key| format!("decoder.{key}")));
        assert_eq!(weights.keys().count(), encoder.len() - 1 + decoder.len());
        weights.without_aliases().write_safetensors(&path, &[]).unwrap();
        let written = Checkpoint::open_file(&path).unwrap();
        assert!(written.info("encoder.b").is_none() && written.info("decoder.tied").is_none());
        for (key, from) in [("encoder.c", &encoder), ("decoder.base", &decoder)] {
            let original = from.tensor(&key[8..]).unwrap();
            assert_eq!(written.tensor(key).unwrap(), original, "{key}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let check = |names: &[&str], kind: Kind, expected: &str| {
            let tensors: Vec<_> = names
                .iter()
                .map(|name| ((*name).to_owned(), tch::Tensor::zeros([1], (kind, tch::Device::Cpu))))
                .collect();
            let error = write_safetensors(&path, &tensors, &[]).unwrap_err();
            assert_eq!(format!("{error:#}"), expected);
            assert!(!path.exists());
        };
        check(&["a", "a"], Kind::Float, "tensor \"a\" is to be written twice");
        check(&["__metadata__"], Kind::Float, "a tensor cannot be named \"__metadata__\"");
        let expected = "tensor \"a\" is ComplexFloat: no type of safetensors";
        check(&["a"], Kind::ComplexFloat, expected);
    }
}
