//! The models that are trained: made on the spot, at the sizes of well-known checkpoints.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{GrayImage, Luma};

use crate::vedm;

/// A model and how it is trained.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Images of a step.
    pub(crate) batch: usize,
    /// Encoder, decoder and their sizes for `vedm init`; none is the model shipped with vedm.
    fresh: Option<(&'static str, &'static str, &'static [&'static str])>,
    /// Rates of dropout that `--no-dropout` sets to 0.
    rates: &'static [&'static str],
    /// Width and height of its images, characters of its texts.
    image: (u32, u32),
    characters: usize,
}

pub(crate) const CASES: &[Case] = &[
    // Half of vit-gpt2-image-captioning in width and depth, its whole vocabulary.
    Case {
        name: "vit-gpt2",
        batch: 4,
        fresh: Some((
            "vit",
            "gpt2",
            &[
                "encoder.hidden_size=384",
                "encoder.num_hidden_layers=6",
                "encoder.num_attention_heads=6",
                "encoder.intermediate_size=1536",
                "decoder.n_embd=384",
                "decoder.n_layer=6",
                "decoder.n_head=6",
                "decoder.vocab_size=50257",
            ],
        )),
        rates: &["decoder.embd_pdrop=0.0", "decoder.attn_pdrop=0.0", "decoder.resid_pdrop=0.0"],
        image: (224, 224),
        characters: 20,
    },
    // trocr-small: the sizes of microsoft/trocr-small-printed.
    Case {
        name: "trocr-small",
        batch: 2,
        fresh: Some((
            "deit",
            "trocr",
            &[
                "encoder.hidden_size=384",
                "encoder.num_hidden_layers=12",
                "encoder.num_attention_heads=6",
                "encoder.intermediate_size=1536",
                "encoder.image_size=384",
                "decoder.d_model=256",
                "decoder.decoder_layers=6",
                "decoder.decoder_attention_heads=8",
                "decoder.decoder_ffn_dim=1024",
                "decoder.activation_function=\"relu\"",
                "decoder.scale_embedding=true",
                "decoder.vocab_size=64044",
            ],
        )),
        rates: &["decoder.dropout=0.0"],
        image: (384, 64),
        characters: 16,
    },
    Case {
        name: "vedm-ocr-printed",
        batch: 16,
        fresh: None,
        rates: &[],
        image: (512, 28),
        characters: 30,
    },
];

impl Case {
    /// Writes the model to `folder`.
    pub(crate) fn make(&self, folder: &Path, no_dropout: bool) -> Result<()> {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/vedm-ocr-printed");
        let Some((encoder, decoder, sizes)) = self.fresh else {
            std::fs::create_dir(folder)?;
            for entry in std::fs::read_dir(shipped)? {
                let entry = entry?;
                std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
            return Ok(());
        };
        let mut args = vec!["init".as_ref(), folder, "--encoder".as_ref(), encoder.as_ref()];
        args.extend([
            "--decoder".as_ref(),
            decoder.as_ref(),
            "--tokenizer".as_ref(),
            shipped.as_path(),
        ]);
        let rates = if no_dropout { self.rates } else { &[] };
        for set in sizes.iter().chain(rates) {
            args.extend::<[&Path; 2]>(["--set".as_ref(), set.as_ref()]);
        }
        vedm(&args)
    }

    /// Draws as many images as a run takes, and writes their table; its path.
    pub(crate) fn draw(&self, folder: &Path, steps: usize) -> Result<PathBuf> {
        let mut rows = String::from("image,text\n");
        let (width, height) = self.image;
        let mut random = fastrand::Rng::with_seed(1);
        for number in 0..steps * self.batch {
            let strokes: Vec<(u32, u32)> =
                (0..60).map(|_| (random.u32(0..width), random.u32(0..height))).collect();
            let ink =
                |x: u32, y: u32| strokes.iter().any(|s| s.0.abs_diff(x) < 3 && s.1.abs_diff(y) < 9);
            let image =
                GrayImage::from_fn(width, height, |x, y| Luma([if ink(x, y) { 20 } else { 235 }]));
            image
                .save(folder.join(format!("{number}.png")))
                .context("an image can't be written")?;
            let text: String = (0..self.characters).map(|_| random.lowercase()).collect();
            rows += &format!("{number}.png,{text}\n");
        }
        let path = folder.join("data.csv");
        std::fs::write(&path, rows)?;
        Ok(path)
    }
}
