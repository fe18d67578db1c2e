//! `--explain`: the pages, and what they rest on: cross-attention and the likeliest tokens of each step.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use tch::{Kind, Tensor};
use vedm::ved::generation::{GenerationConfig, Hooks, Step, replay};
use vedm::ved::{self, LoadOptions, VisionEncoderDecoder};

use crate::support::{Vedm, golden, pictures, tests_folder};

/// Largest absolute errors of a share of attention and of a log-probability: those of states and logits.
const SHARES: f64 = 1e-4;
const LOGPROBS: f64 = 1e-4;
/// As in `parity.rs`: how many times the reference's rounding error is allowed.
const NOISE: f64 = 4.0;

/// Cases with an attention.safetensors, by `make_attention.py`.
const CASES: [&str; 7] = [
    "beit-bert",
    "donut-swin-mbart",
    "swin-gpt2",
    "vit-bart",
    "vit-gpt2",
    "vit-trocr-sinusoidal",
    "yolos-gpt2",
];

struct Case {
    model: VisionEncoderDecoder,
    /// [B, S, Dd]
    states: Tensor,
    expected: HashMap<String, Tensor>,
    prompt: Vec<i64>,
    generation: GenerationConfig,
    /// Largest absolute error of a log-probability; more where the reference's own rounding is larger.
    logprobs: f64,
}

impl Case {
    fn open(name: &str) -> Case {
        let dir = golden(name);
        let (model, _) = ved::load(&dir, LoadOptions::default()).unwrap();
        let read = |file: &str| -> HashMap<String, Tensor> {
            Tensor::read_safetensors(dir.join(file)).unwrap().into_iter().collect()
        };
        let pixel_values = &read("expected.safetensors")["pixel_values"];
        let states = tch::no_grad(|| model.project(&model.encode(pixel_values, false)));
        let file = std::fs::read_to_string(dir.join("generation_config.json")).ok();
        let file: Option<Value> = file.map(|text| serde_json::from_str(&text).unwrap());
        let none = serde_json::Map::new();
        let (generation, _) = model.generation_config(&none, file.as_ref(), true).unwrap();
        let prompt = vec![generation.start_token().unwrap()];
        let expected = read("attention.safetensors");
        let logprobs = (NOISE * expected["logprobs_noise"].double_value(&[])).max(LOGPROBS);
        Case { model, states, expected, prompt, generation, logprobs }
    }

    fn images(&self) -> i64 {
        self.states.size()[0]
    }

    fn ids(&self, image: i64) -> Vec<i64> {
        Vec::try_from(&self.expected[&format!("ids_{image}")]).unwrap()
    }
}

#[track_caller]
fn near(found: &Tensor, expected: &Tensor, bound: f64, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let error = (found - expected).abs().max().double_value(&[]);
    assert!(error <= bound, "{what}: {error:e}");
}

#[test]
fn every_case_with_attention_is_tested() {
    let folders = std::fs::read_dir(tests_folder("golden")).unwrap();
    let mut found: Vec<String> = folders
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("attention.safetensors").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, CASES);
}

/// Each head of each layer, teacher-forced.
#[test]
fn cross_attention_is_the_references() {
    let _guard = tch::no_grad_guard();
    for name in CASES {
        let case = Case::open(name);
        for image in 0..case.images() {
            let ids = case.ids(image);
            let input = [&case.prompt[..], &ids[..ids.len() - 1]].concat();
            let input = Tensor::from_slice(&input).unsqueeze(0);
            let mut cache = case.model.decoder.limits().cache();
            cache.watch();
            let states = case.states.narrow(0, image, 1);
            let _ = case.model.decoder.forward(&input, &states, &mut cache, false);
            let found = Tensor::cat(&cache.attentions(), 0); // [L, A, T, S]
            let expected = &case.expected[&format!("cross_attentions_{image}")];
            near(&found, expected, SHARES, &format!("{name}, image {image}"));
        }
    }
}

/// All images at once, token by token: means over heads, last layer and all layers, likeliest tokens.
#[test]
fn a_replay_tells_what_the_reference_saw() {
    for name in CASES {
        let case = Case::open(name);
        let paths: Vec<Vec<i64>> = (0..case.images()).map(|image| case.ids(image)).collect();
        let paths: Vec<&[i64]> = paths.iter().map(Vec::as_slice).collect();
        let prompt = Tensor::from_slice(&case.prompt).unsqueeze(0).repeat([case.images(), 1]);
        // No rules: the reference's log-probabilities are those of the plain logits.
        let plain = GenerationConfig {
            max_new_tokens: Some(paths.iter().map(|path| path.len() as i64).max().unwrap()),
            eos_token_id: case.generation.eos_token_id.clone(),
            ..GenerationConfig::default()
        };
        let decoder = case.model.decoder.as_ref();
        let steps =
            replay(decoder, &case.states, &prompt, &paths, &plain, &Hooks::default(), 5).unwrap();
        for (image, (steps, path)) in steps.iter().zip(&paths).enumerate() {
            assert_eq!(steps.len(), path.len(), "{name}");
            let what = format!("{name}, image {image}");
            let heads = &case.expected[&format!("cross_attentions_{image}")];
            let layers = heads.mean_dim(1, false, Kind::Float); // [L, T, S]
            let rows = |of: fn(&Step) -> &Vec<f32>| {
                let rows = steps.iter().map(|step| Tensor::from_slice(of(step)));
                Tensor::stack(&rows.collect::<Vec<_>>(), 0) // [T, S]
            };
            near(&rows(|step| &step.last), &layers.select(0, -1), SHARES, &what);
            let mean = layers.mean_dim(0, false, Kind::Float);
            near(&rows(|step| &step.mean), &mean, SHARES, &what);

            let logprobs = &case.expected[&format!("logprobs_{image}")]; // [T, V]
            let (values, ids) = logprobs.topk(5, -1, true, true);
            for (place, (step, id)) in steps.iter().zip(*path).enumerate() {
                let place = place as i64;
                let at = |id: i64| logprobs.double_value(&[place, id]);
                assert!((step.logprob - at(*id)).abs() < case.logprobs, "{what}, {place}");
                for (rank, (best, logprob)) in step.best.iter().enumerate() {
                    let expected = values.double_value(&[place, rank as i64]);
                    assert!((logprob - expected).abs() < case.logprobs, "{what}, {place}, {rank}");
                    // Equal ones may stand in any order.
                    let same = *best == ids.int64_value(&[place, rank as i64]);
                    assert!(
                        same || (at(*best) - expected).abs() < case.logprobs,
                        "{what}, {place}"
                    );
                }
            }
        }
    }
}

/// The values of an attribute in all tags that begin so.
fn attributes<'a>(page: &'a str, tag: &str, name: &str) -> Vec<&'a str> {
    let begin = format!("{name}=\"");
    let tags = page.split(tag).skip(1).map(|rest| rest.split('>').next().unwrap());
    tags.map(|tag| tag.split_once(&begin).unwrap().1.split('"').next().unwrap()).collect()
}

fn content<'a>(page: &'a str, id: &str) -> &'a str {
    let rest = page.split_once(&format!("id=\"{id}\">")).unwrap_or_else(|| panic!("no {id}")).1;
    rest.split("</").next().unwrap()
}

/// The page says what the record says, with all its pictures in it.
#[track_caller]
fn agrees(page: &Path, record: &Value) {
    let page = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{page:?}: {error}"));
    let text = record["text"].as_str().unwrap();
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let escaped = escaped.replace('"', "&quot;").replace('\'', "&#39;");
    assert_eq!(content(&page, "text"), escaped);
    assert_eq!(content(&page, "finish_reason"), record["finish_reason"].as_str().unwrap());
    let confidence: f64 = content(&page, "confidence").parse().unwrap();
    assert!((confidence - record["confidence"].as_f64().unwrap()).abs() < 2e-6);
    let ids: Vec<i64> = serde_json::from_value(record["token_ids"].clone()).unwrap();
    let token = "<li class=\"token\"";
    let told = |name: &str| attributes(&page, token, name);
    assert_eq!(told("data-id"), ids.iter().map(i64::to_string).collect::<Vec<_>>());
    let expected: Vec<f64> = serde_json::from_value(record["token_logprobs"].clone()).unwrap();
    for (found, expected) in told("data-logprob").iter().zip(&expected) {
        assert!((found.parse::<f64>().unwrap() - expected).abs() < 2e-6, "{found}, {expected}");
    }
    // The likeliest tokens of a step: in order, and the step's own among them with its own probability.
    for (step, (id, logprob)) in page.split(token).skip(1).zip(ids.iter().zip(&expected)) {
        let all: Vec<f64> = attributes(step, "<tr", "data-logprob")
            .iter()
            .map(|logprob| logprob.parse().unwrap())
            .collect();
        assert_eq!(all.len(), 5);
        assert!(all.is_sorted_by(|a, b| a >= b), "{all:?}");
        let ids = attributes(step, "<tr", "data-id");
        if let Some(place) = ids.iter().position(|found| *found == id.to_string()) {
            assert!((all[place] - logprob).abs() < 1e-4, "{} for {logprob}", all[place]);
        }
    }
    // What was given, what was seen, that once more as the ground of the maps, two maps a token.
    assert_eq!(page.matches("data:image/png;base64,").count(), 3 + 2 * ids.len());
    for fetched in ["http://", "https://", "src=\"/", "<link", "<script"] {
        assert!(!page.contains(fetched), "{fetched}");
    }
}

fn records(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn pages_agree_with_records_in_batches_and_beams() {
    let folder = tempfile::tempdir().unwrap();
    for (model, beams, batch) in
        [("vit-gpt2", "1", "8"), ("vit-gpt2", "3", "2"), ("swin-gpt2", "2", "8")]
    {
        let dir = golden(model);
        let out = folder.path().join(format!("{model}-{beams}"));
        let mut args = vec!["caption", "--details", "--format", "jsonl", "--device", "cpu"];
        args.extend([
            "--num-beams",
            beams,
            "--batch-size",
            batch,
            "--model",
            dir.to_str().unwrap(),
        ]);
        args.extend(["--explain", out.to_str().unwrap(), "--max-new-tokens", "9"]);
        let pictures = pictures(model);
        args.extend(pictures.iter().map(|picture| picture.to_str().unwrap()));
        let records = records(&Vedm::new(&args).run().status(0).stdout);
        assert_eq!(records.len(), pictures.len());
        for (picture, record) in pictures.iter().zip(&records) {
            let page = format!("{}.html", picture.display());
            agrees(&out.join(page.trim_start_matches('/')), record);
        }
    }
}

#[test]
fn pages_of_files_and_members_of_archives_have_pages_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("vit-bert");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image/testdata/images/pages.tif");
    std::fs::copy(source, folder.path().join("pages.tif")).unwrap();
    let picture = &pictures("vit-bert")[0];
    let mut tar =
        tar::Builder::new(std::fs::File::create(folder.path().join("shard.tar")).unwrap());
    tar.append_path_with_name(picture, "x/000.png").unwrap();
    tar.finish().unwrap();
    std::fs::write(folder.path().join("bad.png"), "no picture").unwrap();
    let args = ["caption", "pages.tif", "shard.tar", "bad.png", "--explain", "out", "--details"];
    let args = [&args[..], &["--model", model.to_str().unwrap(), "--format", "jsonl"]].concat();
    let ran = Vedm::new(&args).dir(folder.path()).run().status(2);
    let records = records(&ran.stdout);
    let out = folder.path().join("out");
    let mut expected = Vec::new();
    for record in records.iter().filter(|record| record.get("error").is_none()) {
        let page = record.get("page").map_or(String::new(), |page| format!(".page{page}"));
        let path = out.join(format!("{}{page}.html", record["image"].as_str().unwrap()));
        if record["finish_reason"] == "blank" {
            let page = std::fs::read_to_string(&path).unwrap();
            assert!(page.contains("No token was generated."), "{page}");
        } else {
            agrees(&path, record);
        }
        expected.push(path);
    }
    assert_eq!(expected.len(), 4, "{}", ran.stdout);
    // And nothing else: no page for what failed, nothing half-written.
    let mut found = 0;
    for folder in [&out, &out.join("shard.tar/x")] {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        found += files.filter(|path| path.is_file()).count();
    }
    assert_eq!(found, expected.len());
}

#[test]
fn lines_of_a_page_have_pages_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/samples");
    let names = std::fs::read_dir(samples).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|e| e == "png")).collect();
    names.sort();
    std::fs::copy(&names[0], folder.path().join("line.png")).unwrap();
    let args = ["ocr", "line.png", "--lines", "--explain", "out", "--details", "--format", "jsonl"];
    let ran = Vedm::new(&args).dir(folder.path()).run().status(0);
    let records = records(&ran.stdout);
    assert!(!records.is_empty());
    for record in &records {
        let page = format!("out/line.png.line{}.html", record["line"]);
        agrees(&folder.path().join(page), record);
    }
}

#[test]
fn texts_that_stop_at_a_string_have_pages_too() {
    let folder = tempfile::tempdir().unwrap();
    let (model, picture) = (golden("vit-bert"), &pictures("vit-bert")[0]);
    let args = ["caption", "--model", model.to_str().unwrap(), "--format", "jsonl", "--details"];
    let picture = picture.to_str().unwrap();
    let run = |more: &[&str]| {
        let ran = Vedm::new(&[&args[..], &[picture], more].concat()).dir(folder.path()).run();
        records(&ran.status(0).stdout).remove(0)
    };
    let whole = run(&[]);
    let tokens = whole["tokens"].as_array().unwrap();
    let stop = tokens[tokens.len() / 2].as_str().unwrap().trim_start_matches("##");
    let record = run(&["--stop-strings", stop, "--explain", "out"]);
    assert_eq!(record["finish_reason"], "stop", "{stop:?} in {whole}");
    let page = folder.path().join("out").join(format!("{}.html", picture.trim_start_matches('/')));
    agrees(&page, &record);
}
