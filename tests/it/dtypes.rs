//! `--dtype` on a CPU: narrower weights say what f32 says, nearly.

use std::path::Path;

use tch::{Kind, Tensor};
use vedm::nn::Packing;
use vedm::ved::{self, LoadOptions, VisionEncoderDecoder};

use crate::support::{Vedm, golden};

fn load(dir: &Path, packing: Option<Packing>) -> VisionEncoderDecoder {
    ved::load(dir, LoadOptions { packing, ..LoadOptions::default() }).unwrap().0
}

/// How far the logits are from those of plain f32: ‖found - expected‖ / ‖expected - mean‖. Two models that
/// have nothing to do with each other are about √2 apart.
fn difference(dir: &Path, packing: Packing) -> f64 {
    let _guard = tch::no_grad_guard();
    let tensors = Tensor::read_safetensors(dir.join("expected.safetensors")).unwrap();
    let (_, pixel_values) = tensors.iter().find(|(name, _)| name == "pixel_values").unwrap();
    let logits = |model: &VisionEncoderDecoder| {
        let states = model.project(&model.encode(pixel_values, false));
        let ids = Tensor::from_slice(&[2i64, 5, 7, 3, 4, 6]).unsqueeze(0);
        model.logits(&states, &ids.expand([pixel_values.size()[0], -1], false), false)
    };
    let expected = logits(&load(dir, None));
    let found = logits(&load(dir, Some(packing)));
    assert_eq!((found.kind(), found.size()), (Kind::Float, expected.size()));
    let spread = (&expected - expected.mean(Kind::Float)).norm();
    f64::try_from((found - expected).norm() / spread).unwrap()
}

#[test]
fn narrower_weights_change_logits_a_little() {
    // Families with every kind of attention and head. The small golden models are drawn with large
    // weights, which makes them several times more sensitive than real ones.
    for case in ["vit-gpt2", "vit-bert", "deit-trocr", "swin-gpt2"] {
        let dir = golden(case);
        for (packing, bound) in
            [(Packing::F32, 1e-5), (Packing::Bf16, 0.3), (Packing::F16, 0.03), (Packing::Int8, 0.5)]
        {
            if packing.check().is_err() {
                continue; // a CPU that is refused with a sentence
            }
            let found = difference(&dir, packing);
            assert!(found < bound, "{case} {packing:?}: {found}");
            println!("{case} {packing:?}: {found:.2e}");
        }
    }
}

#[test]
fn a_packed_model_is_not_saved() {
    let model = load(&golden("vit-gpt2"), Some(Packing::F32));
    let dir = tempfile::tempdir().unwrap();
    let error = ved::save::save_model(dir.path(), &model, Default::default()).unwrap_err();
    assert!(error.to_string().contains("packed"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn every_type_captions() {
    let dir = golden("vit-gpt2");
    let picture = dir.join("blobs_37x23.png");
    for dtype in ["auto", "f32", "bf16", "f16", "int8"] {
        let (dir, picture) = (dir.to_str().unwrap(), picture.to_str().unwrap());
        let args = ["caption", "-m", dir, "--device", "cpu", "--dtype", dtype, "-v", picture];
        let ran = Vedm::new(&args).run();
        // A CPU may be refused, in one sentence that says why.
        let refused = ran.status == 1 && ran.stderr.contains("this CPU") && ran.stdout.is_empty();
        assert!((ran.status == 0 && !ran.stdout.is_empty()) || refused, "{dtype}: {}", ran.stderr);
        let told = format!("on Cpu as {}", if dtype == "auto" { "f" } else { dtype });
        assert!(refused || ran.stderr.contains(&told), "{told}: {}", ran.stderr);
        assert!(!refused || !["auto", "f32"].contains(&dtype), "{dtype}: {}", ran.stderr);
    }
}

/// `auto` is one of the types that leave texts alone, and without a flag it is what runs.
#[test]
fn the_default_is_a_type_that_keeps_texts() {
    let scores = |dtype: Option<&str>| {
        let dir = golden("vit-gpt2");
        let (model, picture) = (dir.to_str().unwrap(), dir.join("blobs_37x23.png"));
        let args = ["caption", "-m", model, "--format", "jsonl", picture.to_str().unwrap()];
        let run = Vedm::new(&args);
        let ran = match dtype {
            Some(dtype) => run.env("VEDM_DTYPE", dtype),
            None => run.without("VEDM_DTYPE"),
        }
        .run();
        let line = ran.status(0).stdout;
        // Up to the time it took.
        line.split_once(",\"ms\"").map(|(all, _)| all.to_string()).unwrap()
    };
    let found = scores(None);
    assert_eq!(found, scores(Some("auto")));
    let named = match Packing::auto() {
        Packing::F16 => "f16",
        Packing::F32 => "f32",
        other => panic!("{other:?} does not keep texts"),
    };
    assert_eq!(found, scores(Some(named)));
}

/// Threads that wait do not look for work as long as the library would have them, unless the user says so.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn waiting_threads_go_to_sleep() {
    let told = |run: Vedm| {
        let ran = run.without("GOMP_SPINCOUNT").env("OMP_DISPLAY_ENV", "verbose").run();
        let line = ran.stderr.lines().find(|line| line.contains("GOMP_SPINCOUNT"));
        (ran.status, ran.stdout, line.map(|line| line.contains("'10000'")))
    };
    // Help and the version are told before the libraries look.
    let model = golden("vit-gpt2").display().to_string();
    let absent = || Vedm::new(&["caption", "--model", &model, "absent.png"]);
    let expected = (2, String::new());
    // As a shell starts it, and as other programs do.
    for run in [absent().env("_", "/usr/bin/vedm"), absent().without("_")] {
        let (status, stdout, ours) = told(run.without("OMP_WAIT_POLICY"));
        assert_eq!((status, stdout), expected);
        // Another OpenMP than GCC's says nothing of the kind.
        assert_ne!(ours, Some(false));
    }
    let (status, stdout, ours) = told(absent().env("OMP_WAIT_POLICY", "active"));
    assert_eq!((status, stdout), expected);
    assert_ne!(ours, Some(true));
}
