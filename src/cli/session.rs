//! What happens to each record of `caption` and `ocr`, from the model to the files.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::mem;

use anyhow::{Context, Result, bail};
use tch::{Kind, Tensor};
use unicode_normalization::UnicodeNormalization;

use super::args::{Form, OutputArgs};
use super::explain::Explain;
use super::ledger::Ledger;
use super::output::Writer;
use super::progress::Progress;
use super::sidecar::Sidecars;
use crate::pipeline::{Reader, Record};
use crate::signals;
use crate::stderr::visible;
use crate::text::{DecodeStream, Tokenizer};
use crate::ved::generation::{Finish, GenerationMode};

/// The places a record goes to.
pub(super) struct Session<'a> {
    pub(super) args: &'a OutputArgs,
    pub(super) normalize: Form,
    /// `--allowed-chars`
    pub(super) allowed: Option<&'a str>,
    /// None where sidecars are all that is asked for, or the tokens were shown as they came.
    pub(super) writer: Option<Writer>,
    pub(super) sidecars: Option<Sidecars>,
    pub(super) explain: Option<Explain>,
    pub(super) ledger: Option<Ledger>,
    pub(super) progress: Progress,
    /// A page given to a model of single lines was told.
    pub(super) page_told: bool,
    /// A failure has ended the run, as the user wished.
    pub(super) stopped: bool,
}

impl Session<'_> {
    /// A failed input is told and counted, and is no reason to stop unless the user says so.
    pub(super) fn take(&mut self, mut record: Record) -> Result<()> {
        let rejected = self.settle(&mut record);
        let mut page = record.page;
        // A sidecar holds all pages or none: another try has to read all of them.
        let whole = self.sidecars.as_ref().is_some_and(|sidecars| !sidecars.names.of_pages());
        if let Some(sidecars) = &mut self.sidecars
            && let Err(error) = sidecars.take(&record, signals::asked())
        {
            page = page.filter(|_| record.outcome.is_err() || !whole);
            record.outcome = record.outcome.and(Err(error));
        }
        if let Some(explain) = &mut self.explain
            && let Err(error) = explain.take(&record, rejected.as_deref())
        {
            record.outcome = record.outcome.and(Err(error));
        }
        if let Some(rows) = record.outcome.as_ref().ok().and_then(|reading| reading.rows) {
            self.tell_page(&record.image, rows);
        }
        if let Err(error) = &record.outcome {
            let part = page.map_or(String::new(), |page| format!(" page {page}"));
            self.progress.failure(&format!("{}{part}", record.image), &format!("{error:#}"));
            if let Some(ledger) = &mut self.ledger {
                ledger.write(&record, page.filter(|_| !whole), error)?;
            }
        }
        if let Some(writer) = &mut self.writer {
            writer.write(&record, rejected.as_deref())?;
        }
        self.progress.count(record.outcome.is_ok());
        if record.outcome.is_err() && self.args.fail_fast {
            self.stopped = true;
            bail!("--fail-fast");
        }
        Ok(())
    }

    /// What was read is written down, whatever ended the run.
    pub(super) fn finish(&mut self) -> Result<()> {
        let written = self.writer.as_mut().map_or(Ok(()), Writer::finish);
        self.progress.finish();
        written
    }

    /// The first page is told, and what to do; records tell of the others.
    fn tell_page(&mut self, image: &str, rows: usize) {
        if !std::mem::replace(&mut self.page_told, true) {
            self.progress.say(&format!(
                "warning: {image} has about {rows} lines of text, and this model reads one; \
                 --lines cuts pages into their lines"
            ));
        }
    }

    /// Normal forms and the placeholder. Gives the text that was replaced.
    fn settle(&self, record: &mut Record) -> Option<String> {
        let reading = record.outcome.as_mut().ok()?;
        for sequence in &mut reading.sequences {
            match self.normalize {
                Form::None => {}
                Form::Nfc => sequence.text = sequence.text.nfc().collect(),
                Form::Nfkc => sequence.text = sequence.text.nfkc().collect(),
            }
            // What a tokenizer adds of its own, such as the ## before a word that has no beginning.
            if let Some(allowed) = self.allowed {
                sequence.text.retain(|c| c == ' ' || allowed.contains(c));
            }
        }
        let least = self.args.min_confidence?;
        let mut replaced = reading.sequences.iter_mut().map(|sequence| {
            let doubtful = sequence.confidence < least && sequence.finish != Finish::Blank;
            doubtful.then(|| mem::replace(&mut sequence.text, self.args.placeholder.clone()))
        });
        let best = replaced.next().flatten();
        replaced.for_each(drop);
        best
    }
}

/// Shows tokens as they come: what `Watch::on_token` calls.
pub(super) struct Stream<'a> {
    reader: &'a Reader,
    /// None before the first token.
    decoder: RefCell<Option<DecodeStream<'a>>>,
    /// Texts must not act on a terminal.
    terminal: bool,
    /// Why standard output took no more. The run goes on to its end, which is near.
    fault: RefCell<Option<std::io::Error>>,
}

impl<'a> Stream<'a> {
    /// Refuses what can't be shown token by token.
    pub(super) fn new(reader: &'a Reader, single: bool) -> Result<Stream<'a>> {
        let mode = reader.generation.mode();
        if !matches!(mode, GenerationMode::Greedy | GenerationMode::Sample) {
            bail!(
                "--stream shows one token after the other, which beams and contrastive search do not give; pass --num-beams 1"
            );
        }
        if !single || reader.generation.num_return_sequences > 1 {
            bail!("--stream shows one text of one image; name one file, or - for standard input");
        }
        let terminal = std::io::stdout().is_terminal();
        let (decoder, fault) = (RefCell::default(), RefCell::default());
        Ok(Stream { reader, decoder, terminal, fault })
    }

    pub(super) fn token(&self, id: i64) {
        let mut decoder = self.decoder.borrow_mut();
        let decoder = decoder.get_or_insert_with(|| self.begin());
        self.show(&decoder.push(id).unwrap_or_default());
    }

    /// The prompt is part of the text.
    fn begin(&self) -> DecodeStream<'a> {
        let mut decoder = self.reader.processor.tokenizer.decode_stream(true);
        for id in &self.reader.prompt {
            self.show(&decoder.push(*id).unwrap_or_default());
        }
        decoder
    }

    /// What was held back, and the end of the line; an image without tokens that was `read` is an empty line.
    pub(super) fn finish(&self, read: bool) -> Result<()> {
        let decoder = self.decoder.borrow_mut().take();
        if decoder.is_some() || read {
            let held = decoder.map_or(Ok(String::new()), DecodeStream::finish)?;
            self.show(&format!("{held}\n"));
        }
        match self.fault.take() {
            Some(fault) => Err(fault).context("can't write standard output"),
            None => Ok(()),
        }
    }

    fn show(&self, text: &str) {
        let mut out = std::io::stdout();
        let text = if self.terminal { visible(text, true) } else { text.into() };
        if let Err(fault) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            self.fault.borrow_mut().get_or_insert(fault);
        }
    }
}

/// Of each token, whether it is made of these characters and blanks alone. -> [V] bool
pub(super) fn allowed_tokens(
    tokenizer: &Tokenizer,
    chars: &str,
    vocabulary: i64,
) -> Result<Tensor> {
    let mut allowed = vec![false; vocabulary.max(0) as usize];
    // Blanks alone are no text.
    let mut some = false;
    for (id, place) in allowed.iter_mut().enumerate() {
        let id = id as i64;
        if tokenizer.is_special(id) {
            continue;
        }
        let text = tokenizer.decode(&[id], false).unwrap_or_default();
        // WordPiece marks what continues a word.
        let text = text.strip_prefix("##").filter(|rest| !rest.is_empty()).unwrap_or(&text);
        // A piece of a character, or no text at all, says nothing that can be allowed.
        *place = !text.is_empty() && text.chars().all(|c| c == ' ' || chars.contains(c));
        some |= *place && !text.trim().is_empty();
    }
    if !some {
        bail!(
            "--allowed-chars {chars:?}: no token of this model is made of these characters alone"
        );
    }
    Ok(Tensor::from_slice(&allowed).to_kind(Kind::Bool))
}
