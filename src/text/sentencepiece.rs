//! A reader of sentencepiece models: the fields of `sentencepiece_model.proto` that tokenizers need.
//!
//! Every step of the reader consumes at least one byte and copies no more than the file holds, so a
//! hostile file costs no more than its own size.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Longest piece that is accepted, in bytes. Trainers write 16 characters by default; the library's
/// trie would recurse once a byte.
pub(super) const MAX_PIECE_BYTES: usize = 1024;

/// `SentencePiece.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// One entry of the vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) piece: String,
    pub(super) score: f32,
    pub(super) kind: PieceType,
}

/// The parts of `ModelProto` that are used, with the defaults of the schema.
#[derive(Clone, Debug)]
pub(super) struct ModelProto {
    pub(super) pieces: Vec<Piece>,
    /// 1 unigram, 2 BPE, 3 word, 4 char.
    pub(super) model_type: u64,
    pub(super) unk_id: u64,
    pub(super) unk_piece: String,
    pub(super) unk_surface: String,
    pub(super) precompiled_charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
}

impl ModelProto {
    /// Reads a model file.
    pub(super) fn open(path: &Path) -> Result<ModelProto> {
        let bytes = std::fs::read(path).with_context(|| format!("{path:?} cannot be read"))?;
        ModelProto::parse(&bytes).with_context(|| format!("{path:?} is not a sentencepiece model"))
    }

    /// Reads the bytes of a model.
    pub(super) fn parse(bytes: &[u8]) -> Result<ModelProto> {
        let mut model = ModelProto {
            pieces: Vec::new(),
            model_type: 1,
            unk_id: 0,
            unk_piece: "<unk>".to_owned(),
            unk_surface: " \u{2047} ".to_owned(),
            precompiled_charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => model.pieces.push(piece(field.bytes()?).context("a piece is damaged")?),
                2 => model.trainer_spec(field.bytes()?).context("the trainer spec is damaged")?,
                3 => model
                    .normalizer_spec(field.bytes()?)
                    .context("the normalizer spec is damaged")?,
                _ => {}
            }
        }
        model.check()?;
        Ok(model)
    }

    /// What sentencepiece itself refuses, and what would be too costly.
    fn check(&self) -> Result<()> {
        ensure!(!self.pieces.is_empty(), "it holds no pieces");
        let mut seen = HashSet::new();
        let mut unknown = 0;
        for (id, piece) in self.pieces.iter().enumerate() {
            ensure!(!piece.piece.is_empty(), "piece {id} is empty");
            ensure!(
                piece.piece.len() <= MAX_PIECE_BYTES,
                "piece {id} has {} bytes, more than the {MAX_PIECE_BYTES} that are accepted",
                piece.piece.len()
            );
            ensure!(seen.insert(piece.piece.as_str()), "piece {:?} is there twice", piece.piece);
            ensure!(
                piece.score.is_finite(),
                "the score of piece {:?} is {}",
                piece.piece,
                piece.score
            );
            unknown += usize::from(piece.kind == PieceType::Unknown);
        }
        ensure!(unknown == 1, "it has {unknown} unknown pieces, expected one");
        Ok(())
    }

    fn trainer_spec(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                3 => self.model_type = field.varint()?,
                // The reference builds no byte fallback for these classes either.
                40 => self.unk_id = field.varint()?,
                44 => self.unk_surface = field.string()?,
                45 => self.unk_piece = field.string()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer_spec(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                2 => self.precompiled_charsmap = field.bytes()?.to_vec(),
                3 => self.add_dummy_prefix = field.varint()? != 0,
                4 => self.remove_extra_whitespaces = field.varint()? != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn piece(bytes: &[u8]) -> Result<Piece> {
    let mut piece = Piece { piece: String::new(), score: 0.0, kind: PieceType::Normal };
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => piece.piece = field.string()?,
            2 => piece.score = field.float()?,
            3 => {
                piece.kind = match field.varint()? {
                    1 => PieceType::Normal,
                    2 => PieceType::Unknown,
                    3 => PieceType::Control,
                    4 => PieceType::UserDefined,
                    5 => PieceType::Unused,
                    6 => PieceType::Byte,
                    other => bail!("the type of a piece is {other}"),
                }
            }
            _ => {}
        }
    }
    Ok(piece)
}

/// The value of a field by its wire type.
enum Field<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn varint(&self) -> Result<u64> {
        match self {
            Field::Varint(value) => Ok(*value),
            _ => bail!("a field has the wrong wire type"),
        }
    }

    fn float(&self) -> Result<f32> {
        match self {
            Field::Fixed32(bytes) => Ok(f32::from_le_bytes(*bytes)),
            _ => bail!("a field has the wrong wire type"),
        }
    }

    fn bytes(&self) -> Result<&'a [u8]> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => bail!("a field has the wrong wire type"),
        }
    }

    fn string(&self) -> Result<String> {
        Ok(std::str::from_utf8(self.bytes()?).context("a text is not UTF-8")?.to_owned())
    }
}

/// The fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Fixed32([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            other => bail!("wire type {other} is not used by sentencepiece"),
        };
        ensure!(key >> 3 != 0, "field 0 does not exist");
        Ok(Some((key >> 3, field)))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a number is longer than ten bytes")
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        match usize::try_from(len).ok().and_then(|len| self.0.split_at_checked(len)) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => bail!("a field of {len} bytes is announced, {} are left", self.0.len()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizers/files");
        std::fs::read(format!("{dir}/{name}")).unwrap()
    }

    /// The pieces of a message as bytes: `(field number, content)`.
    fn message(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, content) in parts {
            bytes.extend([number << 3 | 2, content.len() as u8]);
            bytes.extend(*content);
        }
        bytes
    }

    #[test]
    fn models_are_read() {
        // From sentencepiece 0.2.3: get_piece_size, id_to_piece(0..4).
        for (name, first, model_type) in [
            ("fairseq.model", ["<unk>", "<s>", "</s>", "▁"], 1),
            ("fairseq-bpe.model", ["<unk>", "<s>", "</s>", "▁a"], 2),
            ("pegasus.model", ["<pad>", "</s>", "<unk>", "▁"], 1),
        ] {
            let model = ModelProto::parse(&file(name)).unwrap();
            let pieces: Vec<&str> = model.pieces.iter().take(4).map(|p| p.piece.as_str()).collect();
            assert_eq!(pieces, first, "{name}");
            assert_eq!(model.model_type, model_type, "{name}");
        }
        let model = ModelProto::parse(&file("fairseq.model")).unwrap();
        assert_eq!(model.pieces[1].kind, PieceType::Control);
        assert!(model.precompiled_charsmap.is_empty());
        assert!(model.add_dummy_prefix && model.remove_extra_whitespaces);
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_model() {
        let bytes = file("charsmap.model");
        let whole = ModelProto::parse(&bytes).unwrap().pieces.len();
        for len in 0..bytes.len() {
            if let Ok(model) = ModelProto::parse(&bytes[..len]) {
                assert!(model.pieces.len() <= whole);
            }
        }
    }

    #[test]
    fn damage_is_told() {
        let unk: &[u8] = &[0x0a, 1, b'?', 0x18, 2];
        for (bytes, expected) in [
            (vec![], "holds no pieces"),
            (
                vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1],
                "4294967295 bytes is announced, 1 are left",
            ),
            (vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "is announced"),
            ([0xff; 12].to_vec(), "longer than ten bytes"),
            (vec![0x08, 1], "wrong wire type"),
            (vec![0x0b], "wire type 3"),
            (vec![0x02, 0], "field 0"),
            (message(&[(1, unk), (1, &[0x0a, 0])]), "piece 1 is empty"),
            (message(&[(1, unk), (1, unk)]), "is there twice"),
            (message(&[(1, &[0x0a, 1, b'a'])]), "0 unknown pieces"),
            (message(&[(1, &[0x0a, 1, 0xff])]), "not UTF-8"),
            (message(&[(1, &[0x0a, 1, b'a', 0x18, 9])]), "type of a piece is 9"),
            (message(&[(1, unk), (1, &[0x0a, 1, b'a', 0x15, 0, 0, 0xc0, 0x7f])]), "is NaN"),
            (b"version https://git-lfs.github.com/spec/v1".to_vec(), "wire type 6"),
        ] {
            let error = format!("{:#}", ModelProto::parse(&bytes).unwrap_err());
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        }
    }
}
