//! What the allowed functions of a pickle do: describe tensors.

use anyhow::{Context, Result, bail, ensure};
use tch::Kind;

use super::machine::Machine;
use super::value::{Global, Object, Storage, TensorRef, Value, count, get, int, members};

impl<'a> Machine<'a> {
    /// REDUCE: `callee(*args)`.
    pub(super) fn call(&mut self, callee: Value, args: Value) -> Result<Value> {
        let callee = match get(&self.objects, callee) {
            Some(Object::Global(global)) => *global,
            _ => bail!("the pickle calls something that is no function"),
        };
        let args = members(&self.objects, args)?;
        ensure!(args.len() <= 16, "the pickle calls {callee:?} with {} arguments", args.len());
        let args = args.to_vec();
        match callee {
            Global::OrderedDict => self.ordered_dict(&args),
            Global::RebuildTensor | Global::RebuildTensorV2 => self.tensor(&args, None),
            Global::RebuildTensorV3 => {
                let dtype = args.get(6).and_then(|&dtype| get(&self.objects, dtype));
                match dtype {
                    Some(&Object::Global(Global::Dtype(kind))) => self.tensor(&args, Some(kind)),
                    _ => bail!("a tensor of the pickle lacks its dtype"),
                }
            }
            Global::RebuildParameter => {
                let data = *args.first().context("a parameter of the pickle has no tensor")?;
                let is_tensor = matches!(get(&self.objects, data), Some(Object::Tensor(_)));
                ensure!(is_tensor, "a parameter of the pickle has no tensor");
                Ok(data)
            }
            Global::Size => Ok(*args.first().context("a size of the pickle has no dimensions")?),
            Global::Device => self.new_object(Object::Ignored),
            Global::StorageType(_) | Global::Dtype(_) => {
                bail!("the pickle calls {callee:?}, which is no function")
            }
        }
    }

    /// `OrderedDict()` or `OrderedDict([[key, value], …])`.
    fn ordered_dict(&mut self, args: &[Value]) -> Result<Value> {
        let mut items = Vec::new();
        if let Some(&list) = args.first() {
            for &pair in members(&self.objects, list)? {
                match members(&self.objects, pair)? {
                    &[key, value] => items.push((key, value)),
                    _ => bail!("an OrderedDict of the pickle is made of something else than pairs"),
                }
            }
        }
        self.spend(items.len())?;
        self.new_object(Object::Dict(items))
    }

    /// `_rebuild_tensor_v2(storage, storage_offset, size, stride, …)`.
    fn tensor(&mut self, args: &[Value], dtype: Option<Kind>) -> Result<Value> {
        let &[storage, offset, size, stride, ..] = args else {
            bail!("a tensor of the pickle has {} arguments, at least 4 are needed", args.len());
        };
        let storage = match get(&self.objects, storage) {
            Some(Object::Storage(storage)) => *storage,
            _ => bail!("a tensor of the pickle has no storage"),
        };
        let kind = dtype.or(storage.kind).context("a tensor of the pickle has no number type")?;
        let ints = |value| -> Result<Vec<i64>> {
            members(&self.objects, value)?.iter().map(|&size| int(size)).collect()
        };
        let (size, stride) = (ints(size)?, ints(stride)?);
        self.spend(size.len() + stride.len())?;
        self.new_object(Object::Tensor(TensorRef {
            storage,
            kind,
            offset: count(offset)?,
            size,
            stride,
        }))
    }

    /// BINPERSID: `("storage", class, key, location, numel[, view])`.
    pub(super) fn persistent(&mut self, id: Value) -> Result<Value> {
        let id = members(&self.objects, id)?;
        let &[tag, class, key, _, numel, ref rest @ ..] = id else {
            bail!("a persistent id of the pickle is no storage");
        };
        let is_storage = matches!(get(&self.objects, tag), Some(Object::Str("storage")));
        let Some(&Object::Global(Global::StorageType(kind))) = get(&self.objects, class) else {
            bail!("a persistent id of the pickle has no class of storage");
        };
        let Some(&Object::Str(key)) = get(&self.objects, key) else {
            bail!("a persistent id of the pickle has no key");
        };
        ensure!(is_storage, "a persistent id of the pickle is no storage");
        let view = match rest.first() {
            None | Some(Value::None) => None,
            Some(&view) => match members(&self.objects, view)? {
                &[_, offset, size] => Some((count(offset)?, count(size)?)),
                _ => bail!("a view of a storage is damaged in the pickle"),
            },
        };
        let storage = Storage { key, kind, numel: count(numel)?, view };
        self.new_object(Object::Storage(storage))
    }
}
