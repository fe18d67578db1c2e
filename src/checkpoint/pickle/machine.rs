//! The stack machine: opcodes of protocols 2 to 4 that a state dict needs, and no others.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::value::{Global, Object, Pickle, Value, get};

/// Longest pickle that is read.
const MAX_LENGTH: usize = 64 << 20;
/// Steps and values a pickle may take; a tensor takes about thirty.
pub(super) const MAX_STEPS: usize = 4_000_000;

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    steps: usize,
    pub(super) objects: Vec<Object<'a>>,
    stack: Vec<Value>,
    /// Heights of the stack at the open MARKs.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

/// Reads the pickle at the start of `bytes`.
pub(in crate::checkpoint) fn load(bytes: &[u8]) -> Result<Pickle<'_>> {
    let mut machine = Machine {
        bytes: &bytes[..bytes.len().min(MAX_LENGTH)],
        at: 0,
        steps: 0,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let root = loop {
        let at = machine.at;
        if let Some(root) = machine.step().with_context(|| format!("byte {at} of the pickle"))? {
            break root;
        }
    };
    Ok(Pickle { objects: machine.objects, root, length: machine.at })
}

impl<'a> Machine<'a> {
    /// Executes one opcode; the value of the pickle at STOP.
    fn step(&mut self) -> Result<Option<Value>> {
        self.spend(1)?;
        let opcode = self.byte()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            0x80 => {
                let protocol = self.byte()?;
                ensure!(protocol <= 5, "the pickle has protocol {protocol}, 5 is the highest");
            }
            // FRAME says how many bytes follow, which nothing here needs.
            0x95 => _ = self.take(8)?,
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | b'G' | 0x8a => self.scalar(opcode)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' | 0x8e => self.string(opcode)?,
            b'}' | b')' | b']' | b'(' | b't' | 0x85..=0x87 | b's' | b'u' | b'a' | b'e' => {
                self.container(opcode)?;
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(opcode)?,
            b'c' | 0x93 => self.global(opcode)?,
            b'R' => {
                let args = self.pop()?;
                let callee = self.pop()?;
                let value = self.call(callee, args)?;
                self.stack.push(value);
            }
            b'Q' => {
                let id = self.pop()?;
                let value = self.persistent(id)?;
                self.stack.push(value);
            }
            b'b' => self.build()?,
            b'0' => _ = self.pop()?,
            b'2' => self.stack.push(self.top()?),
            _ => bail!(
                "the opcode {:?} ({opcode:#04x}) has no place in a state dict and is refused",
                char::from(opcode)
            ),
        }
        Ok(None)
    }

    fn scalar(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'G' => {
                self.take(8)?;
                Value::Float
            }
            _ => {
                let length = usize::from(self.byte()?);
                self.long(length)?
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// LONG1: a signed little-endian integer of so many bytes.
    fn long(&mut self, length: usize) -> Result<Value> {
        let bytes = self.take(length)?;
        if length > 8 {
            return self.new_object(Object::Long(bytes));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..length].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn string(&mut self, opcode: u8) -> Result<()> {
        let length = match opcode {
            0x8c | b'U' | b'C' => u64::from(self.byte()?),
            0x8d | 0x8e => u64::from_le_bytes(self.array()?),
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        let bytes = self.take(usize::try_from(length)?)?;
        // The strings of Python 2 are text where they can be.
        let object = match (opcode, std::str::from_utf8(bytes)) {
            (b'B' | b'C' | 0x8e, _) => Object::Bytes,
            (_, Ok(text)) => Object::Str(text),
            (b'U' | b'T', Err(_)) => Object::Bytes,
            (_, Err(_)) => bail!("a string of the pickle is not UTF-8"),
        };
        self.push_object(object)
    }

    fn container(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'}' => self.push_object(Object::Dict(Vec::new())),
            b')' => self.push_object(Object::Tuple(Vec::new())),
            b']' => self.push_object(Object::List(Vec::new())),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b't' => {
                let members = self.since_mark()?;
                self.push_object(Object::Tuple(members))
            }
            0x85..=0x87 => {
                let mut members = Vec::new();
                for _ in 0..=opcode - 0x85 {
                    members.push(self.pop()?);
                }
                members.reverse();
                self.push_object(Object::Tuple(members))
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(items)
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])
            }
            _ => {
                let values = self.since_mark()?;
                self.append(values)
            }
        }
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<()> {
        ensure!(items.len().is_multiple_of(2), "a key of the pickle lacks its value");
        match self.top_object()? {
            Object::Dict(dict) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => bail!("the pickle sets items of something that is no dict"),
        }
    }

    fn append(&mut self, values: Vec<Value>) -> Result<()> {
        match self.top_object()? {
            Object::List(list) => {
                list.extend(values);
                Ok(())
            }
            _ => bail!("the pickle appends to something that is no list"),
        }
    }

    fn memo(&mut self, opcode: u8) -> Result<()> {
        let slot = match opcode {
            b'q' | b'h' => u32::from(self.byte()?),
            0x94 => u32::try_from(self.memo.len())?,
            _ => u32::from_le_bytes(self.array()?),
        };
        if matches!(opcode, b'h' | b'j') {
            let value = self.memo.get(&slot).copied();
            self.stack.push(value.with_context(|| format!("the memo has no slot {slot}"))?);
        } else {
            self.memo.insert(slot, self.top()?);
        }
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Result<()> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let [name, module] =
                [self.pop()?, self.pop()?].map(|value| match get(&self.objects, value) {
                    Some(&Object::Str(text)) => Ok(text),
                    _ => bail!("the name of a global is no string"),
                });
            (module?, name?)
        };
        let global = Global::find(module, name)?;
        self.push_object(Object::Global(global))
    }

    /// BUILD sets attributes: of a state dict its `_metadata`, which nothing here needs.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        match self.top_object()? {
            Object::Dict(_) => Ok(()),
            _ => bail!("the pickle sets the state of something that is no dict"),
        }
    }

    /// Counts work and memory; an error where it is more than any state dict takes.
    pub(super) fn spend(&mut self, steps: usize) -> Result<()> {
        self.steps += steps;
        ensure!(self.steps <= MAX_STEPS, "the pickle takes more than {MAX_STEPS} steps");
        Ok(())
    }

    pub(super) fn new_object(&mut self, object: Object<'a>) -> Result<Value> {
        let at = u32::try_from(self.objects.len())?;
        self.objects.push(object);
        Ok(Value::Object(at))
    }

    fn push_object(&mut self, object: Object<'a>) -> Result<()> {
        let value = self.new_object(object)?;
        self.stack.push(value);
        Ok(())
    }

    /// The values above the innermost MARK.
    fn since_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().context("the pickle lacks a MARK")?;
        ensure!(mark <= self.stack.len(), "a MARK of the pickle lies above the stack");
        Ok(self.stack.split_off(mark))
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack.pop().context("the pickle takes a value from an empty stack")
    }

    fn top(&self) -> Result<Value> {
        self.stack.last().copied().context("the pickle takes a value from an empty stack")
    }

    fn top_object(&mut self) -> Result<&mut Object<'a>> {
        match self.top()? {
            Value::Object(at) => Ok(&mut self.objects[at as usize]),
            _ => bail!("the pickle changes a value that cannot change"),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).with_context(|| {
            format!("the pickle ends too soon: {length} bytes are needed, {} are left", rest.len())
        })?;
        self.at += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(1000).position(|&byte| byte == b'\n');
        let line = self.take(length.context("the name of a global has no end")?)?;
        self.at += 1;
        std::str::from_utf8(line).context("the name of a global is not UTF-8")
    }
}
