//! Panels as what products of many rows read: where they lie, or widened.

use super::cut;
use super::many;
use super::number::Number;
use super::pieces::share;
use super::tiled::{Group, Outputs};
use crate::native::{Fetch, Lanes, PanelTile, Parts, TILE_OUTPUTS};

/// Panels as what products of many rows read.
#[derive(Clone, Copy)]
pub(super) struct Paneled<'a, T> {
    pub weights: &'a [T],
    pub inputs: usize,
    pub outputs: usize,
}

impl<T: Number> Outputs for Paneled<'_, T> {
    fn outputs(&self) -> usize {
        self.outputs
    }

    #[inline(always)]
    fn lying(&self, parts: Parts, group: &Group) -> Option<Vec<&[PanelTile]>> {
        self.lines(group).map(|lines| T::as_tiles::<TILE_OUTPUTS>(parts, lines)).collect()
    }

    #[inline(always)]
    fn cut<L: Lanes>(&self, parts: Parts, group: &Group, tiles: &mut [PanelTile]) {
        let tiles = tiles.chunks_exact_mut(cut::steps(group.inner.len()) * parts.of_panel());
        for (lines, tiles) in self.lines(group).zip(tiles) {
            many::widen::<T, L, TILE_OUTPUTS>(parts, lines, tiles);
        }
    }

    #[inline(always)]
    fn fetch(&self, Group { columns, inner }: &Group, part: usize, parts: usize) -> Fetch {
        let panels = columns.start / TILE_OUTPUTS..columns.end.div_ceil(TILE_OUTPUTS);
        let lines = self.weights.as_chunks::<TILE_OUTPUTS>().0;
        Fetch::rows(lines, share(&panels, part, parts), inner, self.inputs)
    }
}

impl<'a, T> Paneled<'a, T> {
    /// The lines of each panel of a group.
    fn lines(
        &self,
        Group { columns, inner }: &Group,
    ) -> impl Iterator<Item = &'a [[T; TILE_OUTPUTS]]> {
        let panels = self.weights.as_chunks::<TILE_OUTPUTS>().0.chunks_exact(self.inputs);
        let own = panels.skip(columns.start / TILE_OUTPUTS);
        own.take(columns.len().div_ceil(TILE_OUTPUTS)).map(|lines| &lines[inner.clone()])
    }
}
