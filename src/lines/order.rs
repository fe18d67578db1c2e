//! The order in which lines are read.

use super::Rect;

/// A column of prose is at least this many glyphs' heights wide; what is narrower is a table's.
const NARROWEST_COLUMN: f32 = 14.0;

/// Indices of the lines in reading order.
pub(super) fn reading(lines: &[Rect], usual: f32) -> Vec<usize> {
    let mut order = Vec::with_capacity(lines.len());
    region(lines, (0..lines.len()).collect(), usual, &mut order);
    order
}

/// Lines across a gutter (headings) part a region into bands; a band is read column by column.
fn region(lines: &[Rect], members: Vec<usize>, usual: f32, order: &mut Vec<usize>) {
    let Some(gutter) = gutter(lines, &members, usual) else {
        rows(lines, members, order);
        return;
    };
    let is_left = |index: &usize| lines[*index].right <= gutter;
    let is_right = |index: &usize| lines[*index].left >= gutter;
    let (across, mut beside): (Vec<usize>, Vec<usize>) =
        members.into_iter().partition(|index| !is_left(index) && !is_right(index));
    let mut headings = across;
    headings.sort_by(|a, b| lines[*a].top.total_cmp(&lines[*b].top));
    let ends = headings.iter().map(|index| Some(*index)).chain([None]);
    for heading in ends {
        let end = heading.map_or(f32::MAX, |index| (lines[index].top + lines[index].bottom) / 2.0);
        let (band, rest): (Vec<usize>, Vec<usize>) = beside
            .into_iter()
            .partition(|index| (lines[*index].top + lines[*index].bottom) / 2.0 < end);
        beside = rest;
        let (left, right) = band.into_iter().partition(is_left);
        region(lines, left, usual, order);
        region(lines, right, usual, order);
        order.extend(heading);
    }
}

/// The place where most lines stand on two sides as columns of prose, and few go across.
fn gutter(lines: &[Rect], members: &[usize], usual: f32) -> Option<f32> {
    let mut best: Option<(usize, f32)> = None;
    for end in members.iter().map(|index| lines[*index].right) {
        let left: Vec<&Rect> =
            members.iter().map(|index| &lines[*index]).filter(|line| line.right <= end).collect();
        let right: Vec<&Rect> =
            members.iter().map(|index| &lines[*index]).filter(|line| line.left >= end).collect();
        let across = members.len() - left.len() - right.len();
        let few = 4 * across <= members.len() && across < left.len().min(right.len());
        if few && is_prose(&left, usual) && is_prose(&right, usual) && side_by_side(&left, &right) {
            let better = best.is_none_or(|(least, _)| across < least);
            best = if better { Some((across, end)) } else { best };
        }
    }
    best.map(|(_, end)| end)
}

fn is_prose(column: &[&Rect], usual: f32) -> bool {
    let mut widths: Vec<f32> = column.iter().map(|line| line.width()).collect();
    widths.sort_by(f32::total_cmp);
    widths.len() >= 2 && widths[widths.len() / 2] >= NARROWEST_COLUMN * usual
}

/// The columns share rows of the page.
fn side_by_side(left: &[&Rect], right: &[&Rect]) -> bool {
    let around = |column: &[&Rect]| column.iter().map(|line| **line).reduce(|a, b| a.join(&b));
    around(left).zip(around(right)).is_some_and(|(left, right)| left.shares_rows(&right) > 0.3)
}

/// From top to bottom; lines beside each other from left to right.
fn rows(lines: &[Rect], mut members: Vec<usize>, order: &mut Vec<usize>) {
    members.sort_by(|a, b| lines[*a].top.total_cmp(&lines[*b].top));
    let mut found: Vec<(Rect, Vec<usize>)> = Vec::new();
    for index in members {
        let line = &lines[index];
        let row = found.iter_mut().rev().take(8).find(|(first, _)| first.shares_rows(line) >= 0.5);
        match row {
            Some((_, row)) => row.push(index),
            None => found.push((*line, vec![index])),
        }
    }
    for (_, mut row) in found {
        row.sort_by(|a, b| lines[*a].left.total_cmp(&lines[*b].left));
        order.extend(row);
    }
}
