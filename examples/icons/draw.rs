//! A drawing becomes pixels, by resvg.

use anyhow::{Context, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

use crate::sets::Drawing;

/// How a drawing is laid on its square.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Colour of drawings that leave it open.
    pub(crate) ink: [u8; 3],
    /// A dark line around every shape, as a share of the drawing's width.
    pub(crate) outline: Option<f32>,
    /// Shapes lose their colours: with an outline, a line drawing.
    pub(crate) blank: bool,
    pub(crate) place: Place,
}

/// Where on the square.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The whole view box fills the square, as a web page would show it.
    View,
    /// What is drawn, without the margins of the view box.
    Drawn {
        /// Width and height as shares of the square, along the longer side of the drawing.
        scale: (f32, f32),
        /// Degrees.
        angle: f32,
        flip: bool,
        /// 0 to 1 within the free room, across and down.
        at: (f32, f32),
    },
}

/// Renders on a transparent square; none if the drawing is empty or broken.
pub(crate) fn render(drawing: &Drawing, look: &Look, side: u32) -> Result<Option<Pixmap>> {
    let text = match drawing {
        Drawing::Body { body, view } => wrapped(body, *view, look),
        Drawing::File(path) => std::fs::read_to_string(path)
            .with_context(|| format!("{}: can't be read", path.display()))?,
    };
    let Ok(tree) = Tree::from_str(&text, &Options::default()) else { return Ok(None) };
    let Some(transform) = transform(&tree, look, side as f32) else { return Ok(None) };
    let mut pixmap = Pixmap::new(side, side).context("a square of no size")?;
    resvg::render(&tree, transform, &mut pixmap.as_mut());
    let drawn = pixmap.pixels().iter().any(|pixel| pixel.alpha() > 40);
    Ok(drawn.then_some(pixmap))
}

fn wrapped(body: &str, [left, top, width, height]: [f32; 4], look: &Look) -> String {
    let [r, g, b] = look.ink;
    let mut style = String::new();
    if look.blank {
        style.push_str("path,circle,ellipse,rect,polygon{fill:#fff;fill-opacity:1}");
    }
    if let Some(share) = look.outline {
        let line = share * width;
        style.push_str(&format!(
            "path,circle,ellipse,rect,polygon{{stroke:#111;stroke-width:{line};stroke-linejoin:round}}"
        ));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
         viewBox=\"{left} {top} {width} {height}\" width=\"{width}\" height=\"{height}\" \
         color=\"#{r:02x}{g:02x}{b:02x}\"><style>{style}</style>{body}</svg>"
    )
}

/// From the tree's own units to the square.
fn transform(tree: &Tree, look: &Look, side: f32) -> Option<Transform> {
    match &look.place {
        Place::View => {
            let (width, height) = (tree.size().width(), tree.size().height());
            let scale = side / width.max(height);
            let (x, y) = ((side - width * scale) / 2.0, (side - height * scale) / 2.0);
            Some(Transform::from_row(scale, 0.0, 0.0, scale, x, y))
        }
        Place::Drawn { scale, angle, flip, at } => {
            let view = tree.root().abs_stroke_bounding_box();
            // What reaches over the view box is cut away by those who show it.
            let (left, top) = (view.left().max(0.0), view.top().max(0.0));
            let right = view.right().min(tree.size().width());
            let bottom = view.bottom().min(tree.size().height());
            let (width, height) = (right - left, bottom - top);
            if width <= 0.0 || height <= 0.0 {
                return None;
            }
            let unit = side / width.max(height);
            let (across, down) = (unit * scale.0, unit * scale.1);
            let (sin, cos) = angle.to_radians().sin_cos();
            let (w, h) = (width * across, height * down);
            // The free room is what the turned rectangle leaves.
            let (wide, high) = (w * cos.abs() + h * sin.abs(), w * sin.abs() + h * cos.abs());
            let shrink = (side / wide).min(side / high).min(1.0);
            let middle = |share: f32, used: f32| used / 2.0 + (side - used) * share;
            let (x, y) = (middle(at.0, wide * shrink), middle(at.1, high * shrink));
            let mirror = if *flip { -1.0 } else { 1.0 };
            Some(
                Transform::from_translate(-(left + right) / 2.0, -(top + bottom) / 2.0)
                    .post_scale(across * shrink * mirror, down * shrink)
                    .post_rotate(*angle)
                    .post_translate(x, y),
            )
        }
    }
}
