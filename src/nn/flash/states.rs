//! Attention to states of images that are cut into tiles once and for all: their own keys and values.

use std::ops::Range;
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::forward::{Queries, Seen};
use super::panels;
use crate::native::{
    self, Heads, Lanes, Matrix, PanelTile, Parts, TILE_OUTPUTS, TILE_ROWS, Vectorized,
};
use crate::nn::linear::cut::cut_panels;
use crate::nn::linear::pieces::edges;

/// The states of an image, [S, D], in pieces that are attended to apart (Dao et al. 2023, Flash-Decoding), where
/// there are fewer queries than threads could have.
pub struct States {
    parts: Parts,
    pieces: Vec<Piece>,
    /// Queries that a task has at most.
    share: usize,
}

/// Some of the states.
pub(super) struct Piece {
    /// As keys: panels of tokens.
    keys: Vec<PanelTile>,
    /// As values: panels of channels.
    values: Vec<PanelTile>,
    tokens: usize,
    width: usize,
}

/// Tokens of a piece at least.
const PIECE: usize = 2 * TILE_OUTPUTS;

/// How `threads` share some images with so many queries each: the queries of a task, which are as many as most
/// models have heads, and the pieces of an image.
pub(super) fn division(images: usize, queries: usize, threads: usize) -> (usize, usize) {
    // By vectors half of a block takes half of the time.
    let halves = images < threads && !native::has_matrix_unit();
    let share = if halves { TILE_ROWS / 2 } else { TILE_ROWS };
    let tasks = images * queries.div_ceil(share);
    (share, threads.div_ceil(tasks.max(1)))
}

impl States {
    /// The states of each image, in so many parts, for so many queries of each at a time; None unless they are f32
    /// on a CPU that makes products of tiles, and no gradient is wanted. states [B, S, D]
    pub fn cut(states: &Tensor, parts: Parts, queries: usize) -> Option<Vec<Rc<States>>> {
        if !native::has_tiles() || states.requires_grad() {
            return None;
        }
        let threads = native::thread_count();
        States::divided(states, parts, division(states.size()[0] as usize, queries, threads))
    }

    /// By what `division` says, but in no smaller pieces than are worth it.
    pub(super) fn divided(
        states: &Tensor,
        parts: Parts,
        (share, pieces): (usize, usize),
    ) -> Option<Vec<Rc<States>>> {
        let by_head = states.unsqueeze(1); // [B, 1, S, D]
        let by_head = if by_head.stride()[3] == 1 { by_head } else { by_head.contiguous() };
        let all = Heads::of(&by_head)?;
        let [images, _, tokens, width] = all.size();
        let count = parts.of_panel();
        let edges = edges(tokens, TILE_OUTPUTS, pieces.min(tokens / PIECE).max(1));
        let piece = |tokens: usize| Piece {
            keys: vec![PanelTile::ZERO; panels(tokens, width, count)],
            values: vec![PanelTile::ZERO; panels(width, tokens, count)],
            tokens,
            width,
        };
        let pieces = || edges.windows(2).map(|edges| piece(edges[1] - edges[0])).collect();
        let mut found: Vec<States> =
            (0..images).map(|_| States { parts, pieces: pieces(), share }).collect();
        let mut tasks = Vec::new();
        for (image, states) in found.iter_mut().enumerate() {
            let matrix = all.head(image, 0);
            for (piece, edges) in states.pieces.iter_mut().zip(edges.windows(2)) {
                let (own, all) = (edges[0]..edges[1], 0..width);
                let (rows, inner) = (own.clone(), all.clone());
                tasks.push(Cut { parts, matrix, rows, inner, tiles: &mut piece.keys });
                let (matrix, rows, inner) = (matrix.turned(), all, own);
                tasks.push(Cut { parts, matrix, rows, inner, tiles: &mut piece.values });
            }
        }
        native::parallel(tasks, native::vectorize);
        Some(found.into_iter().map(Rc::new).collect())
    }

    /// softmax(q sᵀ · scale) s for the states s of each image. q [B, R, D], f32 -> [B, R, D]
    pub fn attend(images: &[Rc<States>], q: &Tensor, scale: f64) -> Tensor {
        let (q, rows) = (q.contiguous(), q.size()[1] as usize);
        let Some(first) = images.first().filter(|_| q.numel() > 0) else { return q };
        let (share, pieces) = (first.share, first.pieces.len());
        let mut size = q.size();
        size.insert(0, pieces as i64);
        let out = Tensor::empty(&size, (Kind::Float, Device::Cpu)); // [pieces, B, R, D]
        let mut logs = vec![0f32; pieces * images.len() * rows];
        let done = native::with_floats([&q, &out], |[q, out]| {
            let width = first.pieces[0].width;
            let places = out.chunks_exact_mut(rows * width).zip(logs.chunks_exact_mut(rows));
            let mut tasks = Vec::new();
            for (number, (out, logs)) in places.enumerate() {
                let (piece, image) = (number / images.len(), number % images.len());
                let q = &q[image * rows * width..][..rows * width];
                let parts = out.chunks_mut(share * width).zip(logs.chunks_mut(share));
                for (part, (out, logs)) in parts.enumerate() {
                    tasks.push(Queries {
                        parts: first.parts,
                        q: Matrix::dense(q, rows, width, false),
                        seen: Seen::Cut(&images[image].pieces[piece]),
                        scale: scale as f32,
                        first: part * share,
                        out: out.chunks_exact_mut(width).collect(),
                        logs,
                    });
                }
            }
            native::parallel(tasks, native::vectorize);
        });
        done.expect("f32 on the CPU");
        if pieces == 1 {
            return out.squeeze_dim(0);
        }
        // What a piece has of all exponentials.
        size[3] = 1;
        let of_piece = Tensor::from_slice(&logs).reshape(size).softmax(0, None);
        (out * of_piece).sum_dim_intlist([0i64].as_slice(), false, Kind::Float)
    }
}

impl Piece {
    /// Tokens and channels.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.tokens, self.width)
    }

    /// Tiles of keys and of values.
    pub(super) fn tiles(&self) -> [&[PanelTile]; 2] {
        [&self.keys, &self.values]
    }
}

/// Cuts some rows and columns of a matrix as the outputs and inputs of panels.
struct Cut<'a> {
    parts: Parts,
    matrix: Matrix<'a, f32>,
    rows: Range<usize>,
    inner: Range<usize>,
    tiles: &'a mut [PanelTile],
}

impl Vectorized for Cut<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let Cut { parts, matrix, rows, inner, tiles } = self;
        cut_panels::<f32, L>(parts, &matrix, &rows, &inner, tiles);
    }
}
