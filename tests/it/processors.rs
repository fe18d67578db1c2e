//! Image processors that encoders bring with them, through the program.

use std::path::Path;

use serde_json::{Value, json};
use vedm::encoders::ENCODERS;
use vedm::image::ImageProcessor;

use crate::support::{Vedm, golden, pictures};

/// Encoders with processors of their own: the golden case, what its file says of class and size, and
/// what is written without a file.
fn own() -> [(&'static str, &'static str, Value, Value); 3] {
    let square = |side: usize| json!({ "height": side, "width": side });
    [
        (
            "dinov3-vit-bert",
            "DINOv3ViTImageProcessorFast",
            json!({ "height": 24, "width": 32 }),
            square(24),
        ),
        (
            "yolos-bert-edges",
            "YolosImageProcessor",
            json!({ "shortest_edge": 24, "longest_edge": 40 }),
            json!({ "shortest_edge": 24, "longest_edge": 32 }),
        ),
        (
            "chinese-clip-gpt2",
            "ChineseCLIPImageProcessor",
            json!({ "height": 30, "width": 28 }),
            json!({ "shortest_edge": 24 }),
        ),
    ]
}

fn copy(from: &Path, to: &Path, but: &str) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name != but {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

#[test]
fn every_encoder_has_a_processor() {
    for encoder in ENCODERS {
        let found = ImageProcessor::default_for(encoder.model_type);
        found.unwrap_or_else(|error| panic!("{}: {error}", encoder.model_type));
    }
}

#[test]
fn init_takes_the_encoder_s_own_processor() {
    for (case, class, size, default_size) in own() {
        let folder = tempfile::tempdir().unwrap();
        let bare = folder.path().join("bare");
        copy(&golden(case), &bare, "preprocessor_config.json");
        for (encoder, size) in [(golden(case), size), (bare, default_size)] {
            let out = folder.path().join("out").display().to_string();
            let encoder = encoder.display().to_string();
            let decoder = golden("vit-bert").display().to_string();
            let args = ["init", &out, "--encoder", &encoder, "--decoder", &decoder, "--force"];
            Vedm::new(&args).run().status(0);
            let text = std::fs::read(Path::new(&out).join("preprocessor_config.json")).unwrap();
            let made: Value = serde_json::from_slice(&text).unwrap();
            // transformers' slow class of Chinese-CLIP can't take a shortest edge.
            let fast = made["size"].get("shortest_edge").is_some() && case.starts_with("chinese");
            let class = format!("{class}{}", if fast { "Fast" } else { "" });
            assert_eq!((&made["image_processor_type"], &made["size"]), (&json!(class), &size));
            let picture = pictures(case)[0].display().to_string();
            Vedm::new(&["caption", "--model", &out, &picture]).run().status(0);
        }
    }
}

/// Pictures of YOLOS keep their shape, and none is padded for the sake of another.
#[test]
fn pictures_of_unlike_sizes_are_read_as_if_alone() {
    let model = golden("yolos-bert-edges").display().to_string();
    let mut all = Vec::new();
    for case in ["yolos-bert-edges", "vit-roberta-oblong", "donut-swin-bert", "chinese-clip-gpt2"] {
        all.extend(pictures(case).iter().map(|path| path.display().to_string()));
    }
    let read = |batch: &str, files: &[String]| {
        let flags = ["--dtype", "f32", "--max-new-tokens", "8", "--batch-size", batch];
        let mut args = vec!["caption", "--model", &model];
        args.extend(flags);
        args.extend(files.iter().map(String::as_str));
        Vedm::new(&args).run().status(0).stdout
    };
    let together = read("8", &all);
    let alone: String = all.iter().map(|file| read("1", std::slice::from_ref(file))).collect();
    let texts = |output: &str| -> Vec<String> {
        let text = |line: &str| line.rsplit('\t').next().unwrap_or_default().to_owned();
        output.lines().map(text).collect()
    };
    assert!(all.len() > 6 && texts(&together).len() == all.len());
    assert_eq!(texts(&together), texts(&alone));
}
