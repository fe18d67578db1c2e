//! Writing a checkpoint directory that the reference opens: whole, or not at all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::VisionEncoderDecoder;
use crate::checkpoint;
use crate::nn::store::Variable;

/// Refuses an output that is an input, lies inside one, or holds one: inputs are never changed, and
/// replacing a directory would remove what lies in it.
pub fn keep_apart(out: &Path, input: &Path) -> Result<()> {
    let input = input.canonicalize().with_context(|| format!("can't find {input:?}"))?;
    let place = resolved(out);
    ensure!(place != input, "{out:?} is the input itself; write into another directory");
    ensure!(
        !place.starts_with(&input),
        "{out:?} lies inside the input {input:?}, which is never changed; write elsewhere"
    );
    ensure!(
        !input.starts_with(&place),
        "the input {input:?} lies inside {out:?}, which would be replaced; write elsewhere"
    );
    Ok(())
}

/// The real path of something that need not be there yet.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    for above in absolute.ancestors() {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), absolute.strip_prefix(above)) {
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    absolute
}

/// A directory under construction beside its final place.
pub struct Staging {
    folder: tempfile::TempDir,
    target: PathBuf,
    replace: bool,
}

impl Staging {
    /// Refuses a target that exists, unless `force` says to replace it.
    pub fn new(target: &Path, force: bool) -> Result<Self> {
        if target.exists() && !force {
            bail!("{target:?} exists already; choose another name or pass --force");
        }
        ensure!(!target.is_file(), "{target:?} is a file, the output is a directory");
        // Of a link, what it leads to.
        let target = &*if target.is_symlink() { resolved(target) } else { target.to_path_buf() };
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).with_context(|| format!("can't make {parent:?}"))?;
        checkpoint::sweep(parent);
        let folder = checkpoint::unfinished(parent)
            .with_context(|| format!("can't write into {parent:?}"))?;
        Ok(Staging { folder, target: target.to_path_buf(), replace: force })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Moves the finished directory into its place; what stood there before goes away last.
    pub fn finish(self) -> Result<()> {
        let Staging { folder, target, replace } = self;
        open_to_all(folder.path())?;
        let old = checkpoint::aside(&target);
        let had = replace && target.exists();
        if had {
            std::fs::rename(&target, &old).with_context(|| format!("can't replace {target:?}"))?;
        }
        if let Err(error) = std::fs::rename(folder.path(), &target) {
            if had {
                std::fs::rename(&old, &target).context("the old directory is back in its place")?;
            }
            return Err(error).with_context(|| format!("can't make {target:?}"));
        }
        // The directory is no temporary one any more: nothing is left to clean up.
        let _ = folder.keep();
        if had {
            std::fs::remove_dir_all(&old).with_context(|| format!("can't remove {old:?}"))?;
        }
        Ok(())
    }
}

/// Temporary directories are private; a finished checkpoint is as readable as any new directory.
fn open_to_all(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let probe = folder.join(".probe");
        std::fs::create_dir(&probe).with_context(|| format!("can't write into {folder:?}"))?;
        let mode = std::fs::metadata(&probe)?.permissions().mode() & 0o777;
        std::fs::remove_dir(&probe)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// How the weights are written.
#[derive(Clone, Copy, Debug)]
pub struct WeightOptions {
    /// None keeps the model's number type.
    pub kind: Option<Kind>,
    /// Bytes a file may have before the weights are split into shards.
    pub max_shard_size: u64,
    pub format: WeightFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    Safetensors,
    /// `pytorch_model.bin`
    Pytorch,
}

/// The reference's own limit, "5GB".
pub const MAX_SHARD_SIZE: u64 = 5_000_000_000;

impl Default for WeightOptions {
    fn default() -> Self {
        WeightOptions {
            kind: None,
            max_shard_size: MAX_SHARD_SIZE,
            format: WeightFormat::Safetensors,
        }
    }
}

/// Writes config.json and the weights into `dir`.
pub fn save_model(dir: &Path, model: &VisionEncoderDecoder, options: WeightOptions) -> Result<()> {
    ensure!(model.store().packs().is_none(), "a model that is packed for inference can't be saved");
    let kind = options.kind.unwrap_or(model.kind());
    let mut config = model.config.to_json();
    if let Value::Object(top) = &mut config {
        name_dtype(top, kind);
        for half in ["encoder", "decoder"] {
            let part = top.get_mut(half).and_then(Value::as_object_mut);
            if let Some(part) = part.filter(|part| DTYPES.iter().any(|key| part.contains_key(*key)))
            {
                name_dtype(part, kind);
            }
        }
    }
    write_json(&dir.join("config.json"), &config)?;
    let tensors: Vec<(String, Tensor)> = model
        .store()
        .variables()
        .into_iter()
        .map(|variable| Ok((variable.name.clone(), in_kind(&variable, kind)?)))
        .collect::<Result<_>>()?;
    match options.format {
        WeightFormat::Safetensors => {
            checkpoint::save_safetensors(dir, &tensors, Some(options.max_shard_size))
        }
        WeightFormat::Pytorch => {
            let tensors = with_aliases(tensors, model.store().aliases());
            checkpoint::save_pytorch(dir, &tensors, Some(options.max_shard_size))
        }
    }
}

/// The variable's numbers as `kind`, whole numbers as they are; refused where some are too large for it.
pub(super) fn in_kind(variable: &Variable, kind: Kind) -> Result<Tensor> {
    let tensor = variable.tensor.detach();
    if !tensor.is_floating_point() || tensor.kind() == kind {
        return Ok(tensor);
    }
    let found = tensor.to_kind(kind);
    let lost = found.isinf().logical_and(&tensor.isinf().logical_not());
    ensure!(
        !bool::try_from(lost.any())?,
        "tensor {:?} has values that {} does not hold; use --dtype bf16 or f32",
        variable.name,
        dtype_name(kind)
    );
    Ok(found)
}

/// The tensors under all of their names: `pytorch_model.bin` holds both names of a tied tensor, which
/// share one storage there.
pub(super) fn with_aliases(
    mut tensors: Vec<(String, Tensor)>,
    aliases: Vec<(String, String)>,
) -> Vec<(String, Tensor)> {
    for (alias, name) in aliases {
        let shared = tensors.iter().find(|(key, _)| *key == name);
        if let Some(tensor) = shared.map(|(_, tensor)| tensor.shallow_clone()) {
            tensors.push((alias, tensor));
        }
    }
    tensors
}

/// The two spellings of the number type in a config: today's and the one that every version reads.
const DTYPES: [&str; 2] = ["dtype", "torch_dtype"];

/// Names the number type under the spellings that the config has, else under the older one.
pub(super) fn name_dtype(config: &mut Map<String, Value>, kind: Kind) {
    let mut named = false;
    for key in DTYPES {
        if let Some(value) = config.get_mut(key) {
            *value = json!(dtype_name(kind));
            named = true;
        }
    }
    if !named {
        config.insert("torch_dtype".into(), json!(dtype_name(kind)));
    }
}

/// The reference's name of a number type.
pub fn dtype_name(kind: Kind) -> &'static str {
    match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        Kind::Double => "float64",
        _ => "float32",
    }
}

/// JSON as the reference writes it: two blanks, a newline at the end; by temporary file and rename.
pub fn write_json(path: &Path, json: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(json)?;
    text.push('\n');
    checkpoint::write_file(path, text.as_bytes())
}
