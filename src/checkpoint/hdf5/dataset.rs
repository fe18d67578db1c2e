//! Datasets: shape, number type, and where the elements lie.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use tch::Kind;

use super::super::bytes::{u8_at, u16_at, u32_at, u64_at};
use super::super::entry::{Layout, TensorInfo, checked_bytes};
use super::object::{DATASPACE, DATATYPE, FILTERS, LAYOUT, Message, only};
use super::{File, after, chunks, place};

/// Shape, number type and place of a dataset with these messages.
pub(super) fn read(file: &mut File, messages: &[Message]) -> Result<(TensorInfo, Layout)> {
    let content = |message: &Message| &file.bytes[message.range.clone()];
    let shape = dataspace(content(only(messages, DATASPACE, "shape")?))?;
    let kind = datatype(content(only(messages, DATATYPE, "number type")?))?;
    if let Some(filters) = messages.iter().find(|message| message.kind == FILTERS) {
        refuse_filters(content(filters))?;
    }
    let bytes = checked_bytes(&shape, kind)?;
    let info = TensorInfo { shape, kind };
    let layout = layout(file, only(messages, LAYOUT, "layout")?, &info, bytes)?;
    Ok((info, layout))
}

fn dataspace(bytes: &[u8]) -> Result<Vec<i64>> {
    let version = u8_at(bytes, 0)?;
    let rank = usize::from(u8_at(bytes, 1)?);
    let start = match version {
        1 => 8,
        2 => {
            ensure!(u8_at(bytes, 3)? != 2, "it is empty (a null dataspace)");
            4
        }
        _ => bail!("version {version} of dataspaces is not supported"),
    };
    let size =
        |at| i64::try_from(u64_at(bytes, start + 8 * at)?).context("its shape is impossible");
    (0..rank).map(size).collect()
}

fn datatype(bytes: &[u8]) -> Result<Kind> {
    const CLASSES: [&str; 11] = [
        "integer",
        "float",
        "time",
        "string",
        "bit field",
        "opaque",
        "compound",
        "reference",
        "enumeration",
        "variable-length",
        "array",
    ];
    let class = u8_at(bytes, 0)? & 0x0f;
    let flags = u8_at(bytes, 1)?;
    let size = u32_at(bytes, 4)?;
    let name = CLASSES.get(usize::from(class)).copied().unwrap_or("unknown");
    ensure!(class <= 1, "its type ({name}) is not supported");
    ensure!(size == 1 || flags & 1 == 0, "its big-endian numbers are not supported");
    let whole = u16_at(bytes, 8)? == 0 && u32::from(u16_at(bytes, 10)?) == size.saturating_mul(8);
    let kind = if class == 1 {
        let (exponent, mantissa) = (u8_at(bytes, 13)?, u8_at(bytes, 15)?);
        match (size, exponent, mantissa) {
            (2, 5, 10) => Some(Kind::Half),
            (2, 8, 7) => Some(Kind::BFloat16),
            (4, 8, 23) => Some(Kind::Float),
            (8, 11, 52) => Some(Kind::Double),
            _ => None,
        }
    } else {
        match (size, flags & 0x08 != 0) {
            (1, false) => Some(Kind::Uint8),
            (1, true) => Some(Kind::Int8),
            (2, true) => Some(Kind::Int16),
            (4, true) => Some(Kind::Int),
            (8, true) => Some(Kind::Int64),
            _ => None,
        }
    };
    let kind = kind.filter(|_| whole);
    kind.with_context(|| format!("its type ({name} of {size} bytes) is not supported"))
}

/// An error that names the first filter, where there is any.
fn refuse_filters(bytes: &[u8]) -> Result<()> {
    let version = u8_at(bytes, 0)?;
    if u8_at(bytes, 1)? == 0 {
        return Ok(());
    }
    let first = u16_at(bytes, if version == 1 { 8 } else { 2 })?;
    let name = match first {
        1 => "gzip",
        2 => "shuffle",
        3 => "fletcher32",
        4 => "szip",
        5 => "nbit",
        6 => "scale-offset",
        32000 => "lzf",
        _ => bail!("its data went through the filter {first}: only unfiltered data are read"),
    };
    bail!("its data went through the filter {name}: only unfiltered data are read")
}

fn layout(file: &mut File, message: &Message, info: &TensorInfo, bytes: usize) -> Result<Layout> {
    let data = &file.bytes[message.range.clone()];
    let version = u8_at(data, 0)?;
    ensure!((3..=4).contains(&version), "version {version} of its layout is not supported");
    match u8_at(data, 1)? {
        0 => {
            let size = usize::from(u16_at(data, 2)?);
            dense(file, message.range.start + 4, size, message.range.end, bytes)
        }
        1 => {
            let size = usize::try_from(u64_at(data, 10)?)?;
            let place = if bytes == 0 { 0 } else { place(u64_at(data, 2)?)? };
            dense(file, place, size, file.bytes.len(), bytes)
        }
        2 if version == 3 => {
            let rank = usize::from(u8_at(data, 2)?);
            let tree = u64_at(data, 3)?;
            let sizes: Result<Vec<usize>> =
                (0..rank).map(|at| Ok(u32_at(data, 11 + 4 * at)? as usize)).collect();
            chunks::layout(file, tree, &sizes?, info)
        }
        2 => bail!("it lies in chunks of a newer kind: write the file with h5py's default libver"),
        class => bail!("its layout of class {class} is not supported"),
    }
}

/// `size` bytes at `start`, which must be as many as the shape asks for and end before `limit`.
fn dense(file: &File, start: usize, size: usize, limit: usize, bytes: usize) -> Result<Layout> {
    ensure!(size >= bytes, "its shape needs {bytes} bytes, it has {size}");
    let range: Range<usize> = start..after(start, bytes)?;
    let limit = limit.min(file.bytes.len());
    ensure!(
        range.end <= limit,
        "the file is truncated: {} bytes of its data are missing",
        range.end - limit
    );
    Ok(Layout::Dense(vec![range]))
}
