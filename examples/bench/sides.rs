//! The processes that are measured.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use vedm::device::DeviceChoice;

use crate::material::Model;
use crate::protocol::PEAK;
use crate::side::Side;

/// How they are started.
pub(crate) struct Program {
    /// This program.
    pub(crate) bench: PathBuf,
    pub(crate) python: Option<PathBuf>,
    /// The Python that has optimum and ONNX Runtime.
    pub(crate) onnx: Option<PathBuf>,
    /// What `candle/` builds.
    pub(crate) candle: Option<PathBuf>,
    pub(crate) reference_dtype: String,
    pub(crate) device: DeviceChoice,
    pub(crate) threads: usize,
}

/// What is measured beside vedm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Other {
    Transformers,
    OnnxRuntime,
    Candle,
}

impl Other {
    /// Of its column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Other::Transformers => "reference",
            Other::OnnxRuntime => "ONNX Runtime",
            Other::Candle => "candle",
        }
    }

    /// It searches with one beam alone.
    pub(crate) fn greedy_only(self) -> bool {
        self == Other::Candle
    }

    fn serves(self, model: &Model) -> bool {
        self != Other::Candle || model.is_candles()
    }
}

/// One text from process start.
pub(crate) struct Once {
    /// Seconds until the text was there.
    pub(crate) seconds: f64,
    /// MiB at the peak.
    pub(crate) peak: f64,
}

impl Program {
    /// The command line of vedm.
    pub(crate) fn vedm(&self, words: Vec<OsString>) -> Command {
        let mut command = Command::new(&self.bench);
        command.arg("vedm").args(words);
        quiet(&mut command);
        command
    }

    /// `vedm init` with these words; its talk is shown if it fails.
    pub(crate) fn init(&self, words: Vec<OsString>) -> Result<i32> {
        let made = self.vedm(words).output().context("can't start vedm init")?;
        if !made.status.success() {
            eprint!("{}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(made.status.code().unwrap_or(-1))
    }

    /// The words of `vedm caption` for this measurement.
    fn words(
        &self,
        model: &Path,
        dtype: &str,
        image: &Path,
        beams: i64,
        tokens: i64,
    ) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["caption".into(), "--model".into(), model.into()];
        let tokens = tokens.to_string();
        let pairs = [
            ("--dtype", dtype),
            ("--threads", &self.threads.to_string()),
            ("--num-beams", &beams.to_string()),
            ("--min-new-tokens", &tokens),
            ("--max-new-tokens", &tokens),
        ];
        words.extend(pairs.iter().flat_map(|(flag, value)| [flag.into(), value.into()]));
        let device = self.device.to_string();
        words.extend(["--device".into(), device.into(), "--quiet".into(), image.into()]);
        words
    }

    pub(crate) fn vedm_once(
        &self,
        model: &Path,
        dtype: &str,
        image: &Path,
        beams: i64,
        tokens: i64,
    ) -> Result<Once> {
        once(self.vedm(self.words(model, dtype, image, beams, tokens)))
    }

    /// Those that are there and serve the model, the reference first.
    pub(crate) fn others(&self, model: &Model) -> Vec<Other> {
        let all = [Other::Transformers, Other::OnnxRuntime, Other::Candle].into_iter();
        let there = all.filter(|other| self.program_of(*other).is_ok());
        there.filter(|other| other.serves(model)).collect()
    }

    pub(crate) fn other_once(
        &self,
        other: Other,
        model: &Path,
        image: &Path,
        beams: i64,
        tokens: i64,
    ) -> Result<Once> {
        let mut command = self.other("once", other, model)?;
        command.arg(image);
        command.args(["--beams", &beams.to_string(), "--tokens", &tokens.to_string()]);
        once(command)
    }

    pub(crate) fn worker(&self, model: &Path, dtype: &str, image: &Path) -> Result<Side> {
        let mut command = Command::new(&self.bench);
        command.arg("worker").arg("vedm").args(self.words(model, dtype, image, 1, 1));
        quiet(&mut command);
        Side::start(command).with_context(|| format!("vedm as {dtype}"))
    }

    pub(crate) fn other_worker(&self, other: Other, model: &Path) -> Result<Side> {
        let mut side = Side::start(self.other("serve", other, model)?).context(other.name())?;
        side.greedy_only = other.greedy_only();
        Ok(side)
    }

    /// The checkpoint as ONNX Runtime reads it, made if it is not there.
    pub(crate) fn exported(&self, model: &Path) -> Result<PathBuf> {
        let folder = model.with_extension("onnx");
        if !folder.join("decoder_model_merged.onnx").is_file() {
            let mut command = self.script("export", Other::OnnxRuntime)?;
            let made =
                command.arg(model).arg(&folder).output().context("can't start the export")?;
            let said = String::from_utf8_lossy(&made.stderr);
            let last = said.lines().last().unwrap_or("it said nothing");
            ensure!(made.status.success(), "the export failed: {last}");
        }
        Ok(folder)
    }

    fn other(&self, what: &str, other: Other, model: &Path) -> Result<Command> {
        let threads = self.threads.to_string();
        if other == Other::Candle {
            let mut command = Command::new(self.program_of(other)?);
            command.arg(what).arg(model);
            // As it would count its threads, with the products of MKL, too.
            command.env("RAYON_NUM_THREADS", &threads).env("OMP_NUM_THREADS", &threads);
            command.env_remove("CANDLE_NUM_THREADS");
            return Ok(command);
        }
        let mut command = self.script(what, other)?;
        let dtype = match other {
            Other::OnnxRuntime => {
                command.arg(self.exported(model)?).arg("--onnx");
                "f32"
            }
            _ => {
                command.arg(model);
                &self.reference_dtype
            }
        };
        command.args(["--threads", &threads, "--dtype", dtype]);
        command.args(["--device", &self.device.to_string()]);
        command.env("OMP_NUM_THREADS", &threads);
        Ok(command)
    }

    fn script(&self, what: &str, other: Other) -> Result<Command> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bench/reference.py");
        let mut command = Command::new(self.program_of(other)?);
        command.arg(script).arg(what);
        Ok(command)
    }

    /// The Python of the script, or what takes its place.
    fn program_of(&self, other: Other) -> Result<&PathBuf> {
        match other {
            Other::Transformers => self.python.as_ref().context("there is no --python"),
            Other::OnnxRuntime => self.onnx.as_ref().context("there is no --onnx"),
            Other::Candle => self.candle.as_ref().context("there is no --candle"),
        }
    }
}

/// Variables of the caller's don't steer what is measured.
fn quiet(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VEDM_") {
            command.env_remove(&name);
        }
    }
}

/// Runs a command that writes a line and then its peak.
fn once(mut command: Command) -> Result<Once> {
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().with_context(|| format!("can't start {:?}", command.get_program()))?;
    let (stdout, stderr) = child.stdout.take().zip(child.stderr.take()).context("no pipes")?;
    let talk = std::thread::spawn(move || {
        let mut text = String::new();
        let mut stderr = stderr;
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    let read = stdout.read_line(&mut line)?;
    let seconds = start.elapsed().as_secs_f64();
    let status = child.wait()?;
    let talk = talk.join().unwrap_or_default();
    let mut said = talk.lines().filter(|line| !line.starts_with(PEAK) && !line.is_empty());
    ensure!(status.success() && read > 0, "{}", said.next().unwrap_or("it said nothing"));
    let peak = talk.lines().find_map(|line| line.strip_prefix(PEAK)?.trim().parse::<f64>().ok());
    Ok(Once { seconds, peak: peak.unwrap_or(0.0) / 1024.0 })
}
