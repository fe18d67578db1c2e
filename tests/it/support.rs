//! Runs the binary in a folder of its own and looks at what it did.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A run of `vedm`, built step by step.
pub struct Vedm {
    command: Command,
    input: Option<Vec<u8>>,
}

/// A folder with `count` pictures, `000.png` and so on.
pub fn folder_of_pictures(count: usize) -> TempDir {
    let pictures = pictures("vit-bert");
    let folder = tempfile::tempdir().unwrap();
    for number in 0..count {
        let picture = &pictures[number % pictures.len()];
        std::fs::copy(picture, folder.path().join(format!("{number:03}.png"))).unwrap();
    }
    folder
}

/// One more member of a tar archive.
pub fn append(tar: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// What a run left behind.
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Vedm {
    pub fn new<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vedm"));
        command.args(args);
        // The tests' own environment must not steer the program.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            let steers = ["VEDM_", "HF_", "HUGGING", "TRANSFORMERS_"];
            let proxy = name_text.to_ascii_lowercase().ends_with("_proxy");
            if proxy || steers.iter().any(|start| name_text.starts_with(start)) {
                command.env_remove(&name);
            }
        }
        // Threads that wait for each other leave the cores to the other tests.
        command.env("OMP_WAIT_POLICY", "passive");
        // Unlike the other variables: where the tests are to be run (see the README).
        if let Some(device) = std::env::var_os("VEDM_TEST_DEVICE") {
            command.env("VEDM_DEVICE", device);
        }
        // What the reference computes in, on every CPU.
        command.env("VEDM_DTYPE", "f32");
        // No test asks the real Hub: nobody listens here.
        command.env("HF_ENDPOINT", "http://127.0.0.1:1");
        Vedm { command, input: None }
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.input = Some(bytes.to_vec());
        self
    }

    /// Starts the program and lets it run; nothing is read from it.
    pub fn spawn(mut self) -> std::process::Child {
        let command = self.command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs with a standard error that takes nothing: a disk that is full, or a pipe that nobody reads.
    /// Gives the exit status and standard output.
    #[cfg(target_os = "linux")]
    pub fn run_unheard(mut self, pipe: bool) -> (i32, String) {
        let stderr = if pipe {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            Stdio::from(writer)
        } else {
            std::fs::File::create("/dev/full").unwrap().into()
        };
        let output = self.command.stdin(Stdio::null()).stderr(stderr).output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8(output.stdout).unwrap())
    }

    pub fn run(mut self) -> Ran {
        use std::io::Write;
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let input = self.input.unwrap_or_default();
        // A program that refuses its arguments closes the pipe without reading.
        let feeder = std::thread::spawn(move || drop(pipe.write_all(&input)));
        let output: Output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Ran {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The run ended with this status; if not, everything it said is shown.
    #[track_caller]
    pub fn status(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// Where tests compute that use the library: VEDM_TEST_DEVICE, or the CPU.
pub fn device() -> tch::Device {
    let named = std::env::var("VEDM_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_string());
    named.parse::<vedm::device::DeviceChoice>().unwrap().resolve().unwrap()
}

/// How many times as much as their bounds errors may be: 1 on CPUs of the kind that the reference's results were
/// computed on. Elsewhere libtorch adds in another order, and the reference's own results move: on a CPU without
/// AVX-512 logits of tiny models by 3.4 times their distance from f64, a gradient under f16 by 7 times its own.
pub fn elsewhere() -> f64 {
    const ELSEWHERE: f64 = 8.0;
    #[cfg(target_arch = "x86_64")]
    {
        let told = std::env::var("ATEN_CPU_CAPABILITY").is_ok_and(|name| name != "avx512");
        if device().is_cuda() || told || !std::arch::is_x86_feature_detected!("avx512f") {
            return ELSEWHERE;
        }
        1.0
    }
    #[cfg(not(target_arch = "x86_64"))]
    ELSEWHERE
}

/// A folder under tests/.
pub fn tests_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// A golden checkpoint.
pub fn golden(name: &str) -> PathBuf {
    tests_folder("golden").join(name)
}

/// A copy of a golden checkpoint that a test may damage.
pub fn copy_of(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// The pictures of a golden case, in the order of its expected.json.
pub fn pictures(name: &str) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(golden(name).join("expected.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let images = json["images"].as_array().unwrap();
    images.iter().map(|image| golden(name).join(image.as_str().unwrap())).collect()
}

/// Compares a text with its snapshot under tests/snapshots; UPDATE_EXPECT=1 rewrites it.
#[track_caller]
pub fn snapshot(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == text,
        "{path:?} differs; if the new text is right, run the tests with UPDATE_EXPECT=1\n{text}"
    );
}
