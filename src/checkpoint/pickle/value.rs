//! What a pickle of a state dict is made of.

use anyhow::{Context, Result, bail, ensure};
use tch::Kind;

/// A small value, or a reference to an object. Objects live in one list and refer to each other
/// by number: neither cycles nor depth can harm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::checkpoint) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Object(u32),
}

/// An object of the pickle; text and bytes are those of the file.
#[derive(Debug)]
pub(in crate::checkpoint) enum Object<'a> {
    Str(&'a str),
    Bytes,
    /// An integer of more than 64 bits, little endian.
    Long(&'a [u8]),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(TensorRef<'a>),
    /// Something harmless whose content does not matter.
    Ignored,
}

/// The names a pickle may refer to. None of them is executed: each stands for a few lines here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::checkpoint) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildTensorV3,
    RebuildParameter,
    /// The class of a storage; `None` where it is mere bytes.
    StorageType(Option<Kind>),
    Dtype(Kind),
    Size,
    Device,
}

/// A storage named by a persistent id.
#[derive(Clone, Copy, Debug)]
pub(in crate::checkpoint) struct Storage<'a> {
    pub(in crate::checkpoint) key: &'a str,
    pub(in crate::checkpoint) kind: Option<Kind>,
    /// Elements (bytes where it has no type).
    pub(in crate::checkpoint) numel: u64,
    /// Part of the storage that is meant, in the legacy format: first element and length.
    pub(in crate::checkpoint) view: Option<(u64, u64)>,
}

/// A tensor as the pickle describes it; offset and strides count elements.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct TensorRef<'a> {
    pub(in crate::checkpoint) storage: Storage<'a>,
    pub(in crate::checkpoint) kind: Kind,
    pub(in crate::checkpoint) offset: u64,
    pub(in crate::checkpoint) size: Vec<i64>,
    pub(in crate::checkpoint) stride: Vec<i64>,
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Result<Global> {
        let known = match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor") => Some(Global::RebuildTensor),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensorV2),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensorV3),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Some(Global::RebuildParameter)
            }
            ("torch.storage", "UntypedStorage" | "TypedStorage") => Some(Global::StorageType(None)),
            ("torch", "Size") => Some(Global::Size),
            ("torch", "device") => Some(Global::Device),
            ("torch", name) => match name.strip_suffix("Storage") {
                Some(name) => storage_kind(name).map(|kind| Global::StorageType(Some(kind))),
                None => dtype_kind(name).map(Global::Dtype),
            },
            _ => None,
        };
        known.with_context(|| {
            format!(
                "the pickle asks for {:?}, which no plain state dict needs: it is refused, and \
                 nothing was executed",
                format!("{module}.{name}")
            )
        })
    }
}

fn storage_kind(name: &str) -> Option<Kind> {
    Some(match name {
        "Float" => Kind::Float,
        "Half" => Kind::Half,
        "BFloat16" => Kind::BFloat16,
        "Double" => Kind::Double,
        "Long" => Kind::Int64,
        "Int" => Kind::Int,
        "Short" => Kind::Int16,
        "Char" => Kind::Int8,
        "Byte" => Kind::Uint8,
        "Bool" => Kind::Bool,
        _ => return None,
    })
}

/// The class of a storage of this type.
pub(in crate::checkpoint) fn storage_name(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Float => "FloatStorage",
        Kind::Half => "HalfStorage",
        Kind::BFloat16 => "BFloat16Storage",
        Kind::Double => "DoubleStorage",
        Kind::Int64 => "LongStorage",
        Kind::Int => "IntStorage",
        Kind::Int16 => "ShortStorage",
        Kind::Int8 => "CharStorage",
        Kind::Uint8 => "ByteStorage",
        Kind::Bool => "BoolStorage",
        _ => return None,
    })
}

fn dtype_kind(name: &str) -> Option<Kind> {
    Some(match name {
        "float32" => Kind::Float,
        "float16" => Kind::Half,
        "bfloat16" => Kind::BFloat16,
        "float64" => Kind::Double,
        "int64" => Kind::Int64,
        "int32" => Kind::Int,
        "int16" => Kind::Int16,
        "int8" => Kind::Int8,
        "uint8" => Kind::Uint8,
        "bool" => Kind::Bool,
        _ => return None,
    })
}

/// All objects of one pickle, and the value it stands for.
pub(in crate::checkpoint) struct Pickle<'a> {
    pub(super) objects: Vec<Object<'a>>,
    pub(super) root: Value,
    /// Bytes up to and including the STOP opcode.
    pub(in crate::checkpoint) length: usize,
}

impl<'a> Pickle<'a> {
    pub(in crate::checkpoint) fn root(&self) -> Option<&Object<'a>> {
        self.get(self.root)
    }

    /// The storages that the pickle names, as often as it names them.
    pub(in crate::checkpoint) fn storages(&self) -> impl Iterator<Item = Storage<'a>> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(*storage),
            _ => None,
        })
    }

    /// The value itself, where it is an integer that fits.
    pub(in crate::checkpoint) fn root_int(&self) -> Option<i64> {
        match self.root {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    pub(in crate::checkpoint) fn get(&self, value: Value) -> Option<&Object<'a>> {
        get(&self.objects, value)
    }

    pub(in crate::checkpoint) fn text(&self, value: Value) -> Option<&'a str> {
        match self.get(value)? {
            Object::Str(text) => Some(text),
            _ => None,
        }
    }
}

pub(super) fn get<'o, 'a>(objects: &'o [Object<'a>], value: Value) -> Option<&'o Object<'a>> {
    match value {
        Value::Object(at) => objects.get(at as usize),
        _ => None,
    }
}

/// The members of a tuple or a list.
pub(super) fn members<'o>(objects: &'o [Object], value: Value) -> Result<&'o [Value]> {
    match get(objects, value) {
        Some(Object::Tuple(members) | Object::List(members)) => Ok(members),
        _ => bail!("the pickle has something else where a tuple belongs"),
    }
}

pub(super) fn int(value: Value) -> Result<i64> {
    match value {
        Value::Int(value) => Ok(value),
        _ => bail!("the pickle has something else where an integer belongs"),
    }
}

/// An integer that counts something.
pub(super) fn count(value: Value) -> Result<u64> {
    let value = int(value)?;
    ensure!(value >= 0, "the pickle has {value} where a count belongs");
    Ok(value as u64)
}
