//! Medians and ratios, as a table and as JSON.

use std::process::Command;

use anyhow::Error;
use serde_json::{Value, json};
use vedm::device::DeviceChoice;

use crate::spread::Spread;

/// One side.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Why it was not measured to the end.
    failure: Option<String>,
}

/// One quantity of all sides.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// More is better.
    rate: bool,
    /// Of each column, a value a round.
    pub(crate) samples: Vec<Vec<f64>>,
}

/// The measurements of one model.
pub(crate) struct Table {
    name: String,
    parameters: u64,
    tokens: i64,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

fn told(spread: Spread) -> Value {
    json!({ "median": spread.median, "min": spread.least, "max": spread.greatest })
}

impl Column {
    pub(crate) fn new(name: &str) -> Self {
        Column { name: name.to_string(), version: String::new(), failure: None }
    }

    pub(crate) fn failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The first reason is kept.
    pub(crate) fn fails(&mut self, error: &Error) {
        self.failure.get_or_insert_with(|| format!("{error:#}"));
    }
}

impl Row {
    /// A quantity of which less is better.
    pub(crate) fn new(name: String, unit: &'static str, columns: usize) -> Self {
        Row { name, unit, rate: false, samples: vec![Vec::new(); columns] }
    }

    /// Images a second.
    pub(crate) fn rate(name: String, columns: usize) -> Self {
        Row { rate: true, ..Row::new(name, "1/s", columns) }
    }

    /// How many times better a column is than the first, round by round; None for the first, and where
    /// there is nothing to compare.
    pub(crate) fn ratio(&self, column: usize) -> Option<Spread> {
        if column == 0 || self.unit == "%" {
            return None;
        }
        let pairs = self.samples[0].iter().zip(&self.samples[column]);
        let ratios: Vec<f64> =
            pairs.map(|(first, own)| if self.rate { own / first } else { first / own }).collect();
        Spread::of(&ratios)
    }
}

/// Three digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Table {
    pub(crate) fn new(name: &str, parameters: u64, tokens: i64) -> Self {
        let (columns, rows) = (Vec::new(), Vec::new());
        Table { name: name.to_string(), parameters, tokens, columns, rows }
    }

    /// Medians, and behind each how many times better than the first column, with the spread.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{}: {:.0} million parameters ({:.0} MiB as f32), {} new tokens",
            self.name,
            self.parameters as f64 / 1e6,
            self.parameters as f64 * 4.0 / 1048576.0,
            self.tokens
        )];
        for column in &self.columns {
            if !column.version.is_empty() {
                lines.push(format!("  {}: {}", column.name, column.version));
            }
            if let Some(failure) = &column.failure {
                lines.push(format!("  {} failed: {failure}", column.name));
            }
        }
        let mut head = format!("{:<40}", "");
        for (at, column) in self.columns.iter().enumerate() {
            head.push_str(&format!("{:>10}", column.name));
            head.push_str(&format!("{:>20}", if at == 0 { "" } else { "times better" }));
        }
        lines.push(head.trim_end().to_string());
        for row in self.rows.iter().filter(|row| row.samples.iter().any(|s| !s.is_empty())) {
            let mut line = format!("{:<35}{:>5}", row.name, row.unit);
            for (at, samples) in row.samples.iter().enumerate() {
                let median = Spread::of(samples).map_or("-".to_string(), |s| short(s.median));
                line.push_str(&format!("{median:>10}"));
                let ratio = row.ratio(at).map_or(String::new(), |ratio| {
                    let Spread { median, least, greatest } = ratio;
                    format!("{} ({}-{})", short(median), short(least), short(greatest))
                });
                line.push_str(&format!("{ratio:>20}"));
            }
            lines.push(line.trim_end().to_string());
        }
        lines.join("\n")
    }

    /// The same as a table of Markdown.
    pub(crate) fn markdown(&self) -> String {
        let head: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let mut lines = vec![
            format!("| {}, {} new tokens | {} |", self.name, self.tokens, head.join(" | ")),
            format!("|---|{}", "---|".repeat(head.len())),
        ];
        for row in self.rows.iter().filter(|row| row.samples.iter().any(|s| !s.is_empty())) {
            let cell = |at: usize| {
                let Some(own) = Spread::of(&row.samples[at]) else { return "-".to_string() };
                let own = format!("{} {}", short(own.median), row.unit);
                match row.ratio(at) {
                    Some(Spread { median, least, greatest }) => {
                        format!("{own}, {}x ({}-{})", short(median), short(least), short(greatest))
                    }
                    None => own,
                }
            };
            let cells: Vec<String> = (0..self.columns.len()).map(cell).collect();
            lines.push(format!("| {} | {} |", row.name, cells.join(" | ")));
        }
        lines.join("\n")
    }

    pub(crate) fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let sides: Vec<Value> = (0..self.columns.len())
                    .map(|at| {
                        json!({
                            "side": self.columns[at].name,
                            "samples": row.samples[at],
                            "median": Spread::of(&row.samples[at]).map(|spread| spread.median),
                            "times_better": row.ratio(at).map(told),
                        })
                    })
                    .collect();
                json!({ "name": row.name, "unit": row.unit, "sides": sides })
            })
            .collect();
        let sides: Vec<Value> = self
            .columns
            .iter()
            .map(|column| {
                json!({
                    "name": column.name, "version": column.version, "failure": column.failure,
                })
            })
            .collect();
        json!({
            "model": self.name, "parameters": self.parameters, "new_tokens": self.tokens,
            "sides": sides, "rows": rows,
        })
    }
}

/// What the figures depend on.
pub(crate) fn machine(threads: usize, device: DeviceChoice) -> Value {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let flags = field("flags").unwrap_or_default();
    let units: Vec<&str> = flags
        .split(' ')
        .filter(|flag| ["avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile"].contains(flag))
        .collect();
    json!({
        "cpu": field("model name"),
        "vectors": units,
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "threads": threads,
        "gpu": gpu(device),
    })
}

/// What the driver calls the GPU; none where the CPU computes.
fn gpu(device: DeviceChoice) -> Option<String> {
    let DeviceChoice::Cuda(index) = device else { return None };
    let mut command = Command::new("nvidia-smi");
    command.args(["--query-gpu=name", "--format=csv,noheader", &format!("--id={index}")]);
    let told = command.output().ok().filter(|told| told.status.success());
    let name = told.map(|told| String::from_utf8_lossy(&told.stdout).trim().to_string());
    Some(name.unwrap_or_else(|| "unknown GPU".to_string()))
}

/// The machine in a line.
pub(crate) fn headline(machine: &Value) -> String {
    let vectors = machine["vectors"].as_array().cloned().unwrap_or_default();
    let vectors: Vec<&str> = vectors.iter().filter_map(Value::as_str).collect();
    let gpu = machine["gpu"].as_str().map_or(String::new(), |name| format!("{name}; "));
    format!(
        "{gpu}{}, {} cores, {} threads, {}",
        machine["cpu"].as_str().unwrap_or("unknown CPU"),
        machine["cores"],
        machine["threads"],
        vectors.join(" ")
    )
}
