//! A Hub that misbehaves.

use std::time::Duration;

use vedm::hub::Settings;
use vedm::models::Need;

use super::server::State;
use super::{Bench, MODEL_FILES, NAME, contents, state};

const WEIGHTS: &str = "model.safetensors";

#[test]
fn cut_connections_are_gone_on_from() {
    let bench = Bench::new(State { cuts: (3, 20_000), ..state() });
    bench.get_right();
    let asked = bench.hub.asked();
    let ranges: Vec<_> =
        asked.iter().filter(|asked| asked.at_storage).map(|asked| asked.range.clone()).collect();
    let range = |from: u32| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, range(20_000), range(40_000), range(60_000)]);
    assert_eq!(bench.happened("Waits"), 3);
    assert!(!bench.partial(WEIGHTS).exists());
}

#[test]
fn a_server_without_ranges_is_asked_for_everything_again() {
    let bench = Bench::new(State { cuts: (2, 20_000), no_ranges: true, ..state() });
    bench.get_right();
    // Once for the first request, and once for each that began again.
    assert_eq!(bench.happened("Starts { name: \"model.safetensors\""), 3);
}

#[test]
fn a_download_that_is_given_up_stays_for_the_next_run() {
    let bench = Bench::new(State { cuts: (usize::MAX, 20_000), no_ranges: true, ..state() });
    let told = bench.get().unwrap_err();
    assert!(
        told.starts_with("\"model.safetensors\" of \"tiny/vit-gpt2\" did not come whole: the conn"),
        "{told}"
    );
    assert!(told.contains("the next run goes on from there"), "{told}");
    assert_eq!(std::fs::metadata(bench.partial(WEIGHTS)).unwrap().len(), 20_000);
    {
        let mut state = bench.hub.state();
        state.cuts = (0, 0);
        state.no_ranges = false;
    }
    bench.hub.asked();
    bench.get_right();
    let asked = bench.hub.asked();
    assert_eq!(contents(&asked), [WEIGHTS]);
    assert_eq!(asked.last().unwrap().range.as_deref(), Some("bytes=20000-"));
}

#[test]
fn busy_servers_are_waited_for() {
    let bench = Bench::new(State { errors: (2, 429, Some(1)), ..state() });
    bench.get_right();
    let wait = "Waits { reason: \"the server answers 429 (too many requests)\", wait: 1s }";
    assert_eq!(bench.happened(wait), 2);

    let bench = Bench::new(State { errors: (2, 500, None), ..state() });
    bench.get_right();
    assert_eq!(bench.happened("Waits { reason: \"the server answers 500 (int"), 2);

    let bench = Bench::new(State { errors: (1, 503, Some(3600)), ..state() });
    let told = bench.get().unwrap_err();
    assert!(told.contains("503 (service unavailable); it asks to wait 3600 s"), "{told}");
}

#[test]
fn a_wrong_size_is_told() {
    let bench = Bench::new(State { short: true, ..state() });
    let told = bench.get().unwrap_err();
    let size = bench.hub.state().files[WEIGHTS].len();
    assert_eq!(
        told,
        format!(
            "\"model.safetensors\" of \"tiny/vit-gpt2\" came damaged 3 times: {} bytes, the repository says {size}",
            size - 1
        )
    );
    assert!(!bench.partial(WEIGHTS).exists() && !bench.blob(WEIGHTS).exists());
}

#[test]
fn wrong_content_is_thrown_away_and_fetched_anew() {
    let bench = Bench::new(State { damaged: 1, ..state() });
    bench.get_right();
    assert_eq!(bench.happened("Damaged { name: \"model.safetensors\""), 1);

    let bench = Bench::new(State { damaged: usize::MAX, ..state() });
    let told = bench.get().unwrap_err();
    assert!(told.contains("came damaged 3 times: its SHA-256 is "), "{told}");
    assert!(!bench.partial(WEIGHTS).exists() && !bench.blob(WEIGHTS).exists());
}

#[test]
fn a_spoilt_partial_file_is_thrown_away() {
    for spoilt in [b"something else".to_vec(), vec![0; 1_000_000]] {
        let bench = Bench::new(state());
        let partial = bench.partial(WEIGHTS);
        std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
        std::fs::write(&partial, spoilt).unwrap();
        bench.get_right();
    }
}

#[test]
fn a_server_that_stands_still_is_asked_again() {
    let bench = Bench::new(State { stalls: 1, ..state() });
    bench.get_right();
    assert_eq!(bench.happened("Waits { reason: \"the server took too long\""), 1);
}

#[test]
fn the_token_stays_at_the_hub() {
    let bench = Bench::new(state());
    bench.get_right();
    let asked = bench.hub.asked();
    assert!(asked.iter().any(|asked| asked.at_storage), "{asked:#?}");
    for asked in asked {
        let expected = (!asked.at_storage).then_some("Bearer secret");
        assert_eq!(asked.token.as_deref(), expected, "{asked:?}");
    }
}

#[test]
fn refusals_are_sentences() {
    let table: [(u16, Option<&str>, &[&str]); 4] = [
        (401, Some("GatedRepo"), &["is gated: accept its licence at http://", NAME, "HF_TOKEN"]),
        (403, Some("GatedRepo"), &["is gated", "the token from HF_TOKEN was sent"]),
        (401, Some("RepoNotFound"), &["has no repository \"tiny/vit-gpt2\", or it is private"]),
        (403, None, &["refuses access to \"tiny/vit-gpt2\" (403)", "set HF_TOKEN"]),
    ];
    for no_api in [false, true] {
        for (status, code, words) in table {
            let bench = Bench::new(State { gate: Some((status, code)), no_api, ..state() });
            let told = bench.get().unwrap_err();
            for word in words {
                assert!(told.contains(word), "{word}: {told}");
            }
            assert_eq!(bench.happened("Waits"), 0, "a refusal is not asked for again");
        }
    }
    let bench = Bench::new(State::new("another/name", super::files()));
    assert!(bench.get().unwrap_err().contains("has no repository \"tiny/vit-gpt2\""));
}

#[test]
fn a_storage_that_refuses_is_told_from_the_hub() {
    for (status, name) in [(403, "403 (forbidden)"), (404, "404 (not found)")] {
        let bench = Bench::new(State { storage_gate: Some(status), ..state() });
        let told = bench.get().unwrap_err();
        let start =
            "\"model.safetensors\" of \"tiny/vit-gpt2\" can't be had from 127.0.0.1, where http";
        assert!(told.starts_with(start) && told.contains(name), "{told}");
        assert!(!told.contains("licence") && !told.contains("HF_TOKEN"), "{told}");
        assert_eq!(bench.happened("Waits"), 0);
    }
}

#[test]
fn a_token_that_can_be_none_is_refused_before_it_is_sent() {
    for token in ["gööd", "two words", "bell\u{7}"] {
        let bench = Bench::new(state());
        let token = Some((token.to_string(), "HF_TOKEN".to_string()));
        let settings = Settings { token: token.clone(), ..bench.settings() };
        let told = bench.get_with(&settings, "main", Need::Model).unwrap_err();
        assert!(told.starts_with("the token from HF_TOKEN holds a blank, a letter with"), "{told}");
        assert!(!told.contains("öö") && !told.contains("words"), "{told}");
        assert_eq!((bench.hub.asked(), bench.happened("Waits")), (vec![], 0));
        // It is no matter of a copy's.
        bench.get_right();
        let offline = Settings { token, offline: true, ..bench.settings() };
        bench.get_with(&offline, "main", Need::Model).unwrap();
    }
}

#[test]
fn a_commit_that_cant_be_noted_stops_nothing() {
    let bench = Bench::new(state());
    let folder = bench.get_right();
    let refs = bench.cache().join("models--tiny--vit-gpt2/refs");
    std::fs::remove_dir_all(&refs).unwrap();
    std::fs::write(&refs, "no folder").unwrap();
    assert_eq!(bench.get_right(), folder);
    assert_eq!(contents(&bench.hub.asked()).len(), MODEL_FILES.len());
}

#[test]
fn a_renamed_repository_is_followed() {
    for no_api in [false, true] {
        let old_name = Some(NAME.to_string());
        let bench =
            Bench::new(State { repository: "big/name".into(), old_name, no_api, ..state() });
        let folder = bench.get_right();
        assert!(folder.to_str().unwrap().contains("models--tiny--vit-gpt2/snapshots/"));
        let asked = bench.hub.asked();
        assert!(asked.iter().all(|asked| asked.at_storage || asked.token.is_some()), "{asked:#?}");
    }
}

#[test]
fn without_an_api_the_files_are_asked_for_one_by_one() {
    for (no_api, bare_api) in [(true, false), (false, true)] {
        let bench = Bench::new(State { no_api, bare_api, ..state() });
        bench.get_right();
        assert_eq!(contents(&bench.hub.asked()), MODEL_FILES);
        bench.get_right();
        assert_eq!(contents(&bench.hub.asked()), [""; 0]);
    }
}

#[test]
fn a_copy_does_where_the_hub_is_away() {
    let bench = Bench::new(state());
    bench.get_right();
    let away = Settings { endpoint: "http://127.0.0.1:1".to_string(), ..bench.settings() };
    bench.get_with(&away, "main", Need::Model).unwrap();
    assert_eq!(bench.happened("Unreachable { repository: \"tiny/vit-gpt2\", reason: \"the con"), 1);
    assert_eq!(bench.happened("Waits"), 0);

    bench.hub.state().gate = Some((401, Some("GatedRepo")));
    bench.hub.state().commit = "beef0000".repeat(5);
    bench.hub.state().files.insert("config.json".to_string(), b"{ }".to_vec());
    let told = bench.get().unwrap_err();
    assert!(told.ends_with("; a copy is in the cache, and --offline uses it"), "{told}");

    let empty = Bench::new(state());
    let away = Settings { endpoint: "http://127.0.0.1:1".to_string(), ..empty.settings() };
    let told = empty.get_with(&away, "main", Need::Model).unwrap_err();
    assert!(told.contains("http://127.0.0.1:1 can't be reached: the connection was refused"));
}

#[test]
fn offline_names_what_is_missing() {
    let bench = Bench::new(state());
    let offline = Settings { offline: true, ..bench.settings() };
    let told = bench.get_with(&offline, "main", Need::Model).unwrap_err();
    assert!(told.starts_with("\"config.json\" of \"tiny/vit-gpt2\" (revision \"main\") is not in"));
    let folder = bench.get_right();
    bench.hub.asked();
    assert_eq!(bench.get_with(&offline, "main", Need::Model).unwrap(), folder);
    std::fs::remove_file(bench.blob(WEIGHTS)).unwrap();
    let told = bench.get_with(&offline, "main", Need::Model).unwrap_err();
    assert!(told.starts_with("\"model.safetensors\" of \"tiny/vit-gpt2\""), "{told}");
    assert_eq!(bench.hub.asked(), []);
    // A link whose blob is gone is made anew.
    bench.get_right();
}

#[test]
fn whoever_comes_second_waits_and_downloads_nothing() {
    let bench = Bench::new(State { pause: Duration::from_millis(30), ..state() });
    let settings = bench.settings();
    let need = Need::Model.files();
    std::thread::scope(|scope| {
        let get = || vedm::hub::snapshot(&settings, NAME, "main", &need, &|_| {}).unwrap();
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(get)).collect();
        for thread in threads {
            let folder = thread.join().unwrap();
            assert!(need.weights.iter().any(|name| folder.join(name).is_file()));
        }
    });
    let asked = bench.hub.asked();
    assert_eq!(asked.iter().filter(|asked| asked.at_storage).count(), 1, "{asked:#?}");
    bench.get_right();
}
