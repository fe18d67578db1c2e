//! The program with names of the Hub.

use std::time::{Duration, Instant};

use super::server::State;
use super::{Bench, CASE, NAME, state};
use crate::support::{Ran, Vedm, golden, pictures};

impl Bench {
    /// `vedm` with this bench's Hub and cache.
    fn vedm(&self, args: &[&str]) -> Vedm {
        Vedm::new(args).env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.hub.address)
    }

    fn caption(&self, extra: &[&str]) -> Vedm {
        let picture = pictures(CASE)[0].display().to_string();
        self.vedm(&[&["caption", "--max-new-tokens", "4", &picture], extra].concat())
    }
}

/// What the model says when it lies in a directory.
fn expected() -> String {
    let folder = golden(CASE).display().to_string();
    let picture = pictures(CASE)[0].display().to_string();
    let args = ["caption", "--max-new-tokens", "4", &picture, "--model", &folder];
    Vedm::new(&args).run().status(0).stdout
}

#[track_caller]
fn told(ran: Ran, words: &[&str]) {
    let ran = ran.status(1);
    assert_eq!(ran.stderr.lines().count(), 1, "one sentence, not\n{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing in {}", ran.stderr);
    }
}

#[test]
fn a_model_of_the_hub_captions() {
    let bench = Bench::new(state());
    let expected = expected();
    let ran = bench.caption(&["--model", NAME]).run().status(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (expected.as_str(), ""));
    bench.hub.asked();
    let pinned = format!("{NAME}@{}", bench.hub.state().commit);
    for (extra, variable) in [
        (&["--model", NAME, "--offline"][..], "X"),
        (&["--model", NAME], "HF_HUB_OFFLINE"),
        (&["--model", NAME], "VEDM_OFFLINE"),
        (&["--model", &pinned], "X"),
    ] {
        let ran = bench.caption(extra).env(variable, "1").run().status(0);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (expected.as_str(), ""));
    }
    assert_eq!(bench.hub.asked(), []);
    let away = bench.caption(&["--model", NAME]).env("HF_ENDPOINT", "http://127.0.0.1:1");
    let ran = away.run().status(0);
    assert_eq!(ran.stdout, expected);
    assert!(ran.stderr.starts_with("vedm: warning: the Hub can't be reached"), "{}", ran.stderr);
}

#[test]
fn what_is_not_there_is_told() {
    let bench = Bench::new(state());
    let words = ["\"config.json\" of \"tiny/vit-gpt2\"", "offline", "HF_HUB_OFFLINE"];
    told(bench.caption(&["--model", NAME, "--offline"]).run(), &words);
    let words = ["nlpconnect/vit-gpt2-image-captioning", "has no repository", &bench.hub.address];
    told(bench.caption(&[]).run(), &words);
    let away = bench.caption(&[]).env("HF_ENDPOINT", "http://127.0.0.1:1");
    let words = ["nlpconnect/vit-gpt2-image-captioning", "can't be reached", "refused"];
    told(away.run(), &words);
    bench.hub.state().gate = Some((403, Some("GatedRepo")));
    told(bench.caption(&["--model", NAME]).run(), &["is gated", "set HF_TOKEN"]);
}

#[test]
fn proxies_are_those_of_the_address() {
    let hub = |bench: &Bench| bench.hub.address.trim_start_matches("http://").to_string();
    let nowhere = "http://me:secret@127.0.0.1:1";
    let way = "the connection was refused (through the proxy http://127.0.0.1:1 of";
    let bench = Bench::new(state());
    let caption = |bench: &Bench| bench.caption(&["--model", NAME]).env("HTTP_PROXY", nowhere);
    told(caption(&bench).run(), &["can't be reached", way, "of HTTP_PROXY)"]);
    // The Hub is spared, its storage is not: each redirect chooses anew.
    let spared = caption(&bench).env("no_proxy", format!("example.org, {}", hub(&bench)));
    told(spared.run(), &["\"model.safetensors\" of", way]);
    // So it is with pictures.
    let large = format!("{}/{NAME}/resolve/main/model.safetensors", bench.hub.address);
    let model = golden(CASE).display().to_string();
    let picture = || bench.vedm(&["caption", &large, "--model", &model]).env("all_proxy", nowhere);
    let spared = picture().env("NO_PROXY", hub(&bench)).run().status(2);
    assert!(spared.stderr.contains(way), "{}", spared.stderr);
    let straight = picture().env("NO_PROXY", "127.0.0.0/8").run().status(2);
    assert!(straight.stderr.contains("not an image"), "{}", straight.stderr);
    for (name, value, other) in
        [("https_proxy", nowhere, ""), ("http_proxy", "", nowhere), ("NO_PROXY", "*", nowhere)]
    {
        let bench = Bench::new(state());
        caption(&bench).env("HTTP_PROXY", other).env(name, value).run().status(0);
    }
    let told = caption(&bench).env("HTTP_PROXY", "ftp://me:secret@h").run().status(1).stderr;
    assert!(told.contains("HTTP_PROXY does not hold the address of a proxy"), "{told}");
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn two_runs_at_once_share_one_download() {
    let bench = Bench::new(State { pause: Duration::from_millis(40), ..state() });
    let mut first = bench.caption(&["--model", NAME]).spawn();
    let second = bench.caption(&["--model", NAME]).run().status(0);
    assert_eq!(second.stdout, expected());
    assert!(first.wait().unwrap().success());
    let asked = bench.hub.asked();
    assert_eq!(asked.iter().filter(|asked| asked.at_storage).count(), 1, "{asked:#?}");
}

#[test]
fn a_killed_run_is_gone_on_from() {
    let bench = Bench::new(State { pause: Duration::from_millis(200), ..state() });
    let mut child = bench.caption(&["--model", NAME]).spawn();
    let partial = bench.partial("model.safetensors");
    let start = Instant::now();
    while !std::fs::metadata(&partial).is_ok_and(|meta| meta.len() > 0) {
        assert!(start.elapsed() < Duration::from_secs(60), "the download did not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let length = std::fs::metadata(&partial).unwrap().len();
    bench.hub.state().pause = Duration::ZERO;
    bench.hub.asked();
    let ran = bench.caption(&["--model", NAME]).run().status(0);
    assert_eq!(ran.stdout, expected());
    let asked = bench.hub.asked();
    assert_eq!(asked.last().unwrap().range, Some(format!("bytes={length}-")));
    assert!(!partial.exists());
}

#[test]
fn init_convert_and_doctor_take_names_too() {
    let bench = Bench::new(state());
    let out = tempfile::tempdir().unwrap();
    let path = |name: &str| out.path().join(name).display().to_string();
    let (made, converted) = (path("made"), path("converted"));
    let args = ["init", &made, "--encoder", NAME, "--decoder", NAME, "--tokenizer", NAME];
    bench.vedm(&args).run().status(0);
    bench.vedm(&["convert", NAME, &converted, "--offline"]).run().status(0);
    let report = bench.vedm(&["doctor", "--model", NAME, "--offline"]).run().status(0).stdout;
    for words in ["(not asked: offline; no token)", "hub: 1 model(s), 0.1 MB", "sound: "] {
        assert!(report.contains(words), "{words:?} is missing in {report}");
    }
    let told = bench.vedm(&["init", &path("no"), "--encoder", "a/b", "--decoder", "gpt2"]).run();
    assert!(told.status(1).stderr.contains("--encoder \"a/b\": "));
}
