//! Attention to states of images that are cut into tiles once and for all: their own keys and values.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::forward::{Queries, Seen};
use super::panels;
use crate::native::{self, Heads, Lanes, Matrix, PanelTile, Parts, TILE_ROWS, Vectorized};
use crate::nn::linear::cut::cut_panels;

/// The states of an image, [S, D].
pub struct States {
    parts: Parts,
    /// As keys: panels of tokens.
    keys: Vec<PanelTile>,
    /// As values: panels of channels.
    values: Vec<PanelTile>,
    tokens: usize,
    width: usize,
}

/// Queries of an image that a task has at most: as many as most models have heads.
const QUERIES: usize = TILE_ROWS;

impl States {
    /// The states of each image, in so many parts; None unless they are f32 on a CPU that makes products of tiles,
    /// and no gradient is wanted. states [B, S, D]
    pub fn cut(states: &Tensor, parts: Parts) -> Option<Vec<Rc<States>>> {
        if !native::has_tiles() || states.requires_grad() {
            return None;
        }
        let by_head = states.unsqueeze(1); // [B, 1, S, D]
        let by_head = if by_head.stride()[3] == 1 { by_head } else { by_head.contiguous() };
        let all = Heads::of(&by_head)?;
        let [images, _, tokens, width] = all.size();
        let count = parts.of_panel();
        let mut found: Vec<States> = (0..images)
            .map(|_| States {
                parts,
                keys: vec![PanelTile::ZERO; panels(tokens, width, count)],
                values: vec![PanelTile::ZERO; panels(width, tokens, count)],
                tokens,
                width,
            })
            .collect();
        let mut tasks = Vec::with_capacity(2 * images);
        for (image, states) in found.iter_mut().enumerate() {
            let matrix = all.head(image, 0);
            tasks.push(Cut { parts, matrix, tiles: &mut states.keys });
            tasks.push(Cut { parts, matrix: matrix.turned(), tiles: &mut states.values });
        }
        native::parallel(tasks, native::vectorize);
        Some(found.into_iter().map(Rc::new).collect())
    }

    /// softmax(q sᵀ · scale) s for the states s of each image. q [B, R, D], f32 -> [B, R, D]
    pub fn attend(images: &[Rc<States>], q: &Tensor, scale: f64) -> Tensor {
        let q = q.contiguous();
        let out = Tensor::empty(q.size(), (Kind::Float, Device::Cpu));
        let rows = q.size()[1] as usize;
        if out.numel() == 0 {
            return out;
        }
        let mut logs = vec![0f32; images.len() * rows];
        let done = native::with_floats([&q, &out], |[q, out]| {
            let width = images[0].width;
            let numbers = q.chunks_exact(rows * width).zip(out.chunks_exact_mut(rows * width));
            let mut tasks = Vec::new();
            for ((states, (q, out)), logs) in
                images.iter().zip(numbers).zip(logs.chunks_exact_mut(rows))
            {
                let parts = out.chunks_mut(QUERIES * width).zip(logs.chunks_mut(QUERIES));
                for (part, (out, logs)) in parts.enumerate() {
                    tasks.push(Queries {
                        parts: states.parts,
                        q: Matrix::dense(q, rows, width, false),
                        seen: Seen::Cut(states),
                        scale: scale as f32,
                        first: part * QUERIES,
                        out: out.chunks_exact_mut(width).collect(),
                        logs,
                    });
                }
            }
            native::parallel(tasks, native::vectorize);
        });
        done.expect("f32 on the CPU");
        out
    }

    /// Tokens and channels.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.tokens, self.width)
    }

    /// Tiles of keys and of values.
    pub(super) fn tiles(&self) -> [&[PanelTile]; 2] {
        [&self.keys, &self.values]
    }
}

/// Cuts all rows of a matrix as the outputs of panels.
struct Cut<'a> {
    parts: Parts,
    matrix: Matrix<'a, f32>,
    tiles: &'a mut [PanelTile],
}

impl Vectorized for Cut<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let Cut { parts, matrix, tiles } = self;
        cut_panels::<f32, L>(parts, &matrix, &(0..matrix.rows), &(0..matrix.inner), tiles);
    }
}
