//! Everything that chance does to a forward pass in training, and to none in evaluation: dropout of
//! single elements, of whole branches, of whole layers.

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

/// What is dropped at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    Elements,
    /// A branch of a whole sample (stochastic depth).
    Branch,
    Layer,
}

/// A place of a model where something is dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub dropped: Dropped,
    /// The probability.
    pub rate: f64,
    /// Of the tensor that is thinned out, and its L2 norm; nothing for layers.
    pub shape: Vec<i64>,
    pub norm: f64,
}

thread_local! {
    static PLACES: RefCell<Option<Vec<Place>>> = const { RefCell::new(None) };
}

/// Runs `forward` with nothing dropped, and tells all places where something would have been, in their
/// order: how a model is compared with the reference's, which draws other numbers.
pub fn places<R>(forward: impl FnOnce() -> R) -> (R, Vec<Place>) {
    PLACES.with_borrow_mut(|places| *places = Some(Vec::new()));
    let done = forward();
    (done, PLACES.with_borrow_mut(Option::take).unwrap_or_default())
}

/// True (and the place is noted) while `places` looks on.
fn watched(dropped: Dropped, rate: f64, xs: Option<&Tensor>) -> bool {
    PLACES.with_borrow_mut(|places| {
        if let Some(places) = places {
            let norm = |xs: &Tensor| xs.detach().to_kind(Kind::Double).norm().double_value(&[]);
            let (shape, norm) = xs.map_or((Vec::new(), 0.0), |xs| (xs.size(), norm(xs)));
            places.push(Place { dropped, rate, shape, norm });
        }
        places.is_some()
    })
}

/// Zeroes elements with probability `p` while training and scales the others by 1/(1-p).
pub fn dropout(xs: &Tensor, p: f64, train: bool) -> Tensor {
    if !train || p <= 0.0 || watched(Dropped::Elements, p, Some(xs)) {
        return xs.shallow_clone();
    }
    xs.dropout(p, true)
}

/// Stochastic depth (Huang et al. 2016): drops a whole branch per sample while training.
/// [B, ..] -> [B, ..], the survivors scaled by 1/(1-p).
pub fn drop_path(xs: &Tensor, p: f64, train: bool) -> Tensor {
    if !train || p <= 0.0 || watched(Dropped::Branch, p, Some(xs)) {
        return xs.shallow_clone();
    }
    let keep = 1.0 - p;
    let mut size = vec![1; xs.dim()];
    size[0] = xs.size()[0];
    let mask = (Tensor::rand(size, (Kind::Float, xs.device())) + keep).floor().to_kind(xs.kind());
    xs / keep * mask
}

/// LayerDrop (Fan et al. 2019): true with probability `p` while training, when a layer is to be left out.
pub fn drop_layer(p: f64, train: bool) -> bool {
    if !train || p <= 0.0 || watched(Dropped::Layer, p, None) {
        return false;
    }
    f64::try_from(Tensor::rand([1], (Kind::Float, Device::Cpu))).unwrap_or(1.0) < p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_drops_nothing_and_training_the_share_it_is_told() {
        let xs = Tensor::ones([100, 1000], (Kind::Float, Device::Cpu));
        tch::manual_seed(1);
        let share = |xs: &Tensor| xs.eq(0.0).to_kind(Kind::Double).mean(None).double_value(&[]);
        for drop in [dropout, drop_path] {
            assert!(drop(&xs, 0.3, false).equal(&xs) && drop(&xs, 0.0, true).equal(&xs));
        }
        let elements = dropout(&xs, 0.3, true);
        assert!((share(&elements) - 0.3).abs() < 0.01, "{}", share(&elements));
        let rows = drop_path(&xs.transpose(0, 1), 0.3, true); // [1000, 100]
        assert!((share(&rows) - 0.3).abs() < 0.06, "{}", share(&rows));
        assert_eq!(share(&rows.narrow(1, 0, 1)), share(&rows), "rows stay or go as a whole");
        for thinned in [&elements, &rows] {
            assert!((thinned.max().double_value(&[]) - 1.0 / 0.7).abs() < 1e-6);
        }
        let layers = (0..2000).filter(|_| drop_layer(0.3, true)).count();
        assert!((500..700).contains(&layers) && !drop_layer(0.3, false), "{layers}");
    }

    #[test]
    fn places_are_told_and_spared() {
        let xs = Tensor::from_slice(&[3f32, 4.0]);
        let (same, found) = places(|| {
            let same = drop_path(&dropout(&xs, 0.5, true), 0.25, true);
            assert!(!drop_layer(1.0, true));
            dropout(&same, 0.5, false)
        });
        assert!(same.equal(&xs));
        let place = |dropped, rate, shape, norm| Place { dropped, rate, shape, norm };
        let expected = [
            place(Dropped::Elements, 0.5, vec![2], 5.0),
            place(Dropped::Branch, 0.25, vec![2], 5.0),
            place(Dropped::Layer, 1.0, vec![], 0.0),
        ];
        assert_eq!(found, expected);
        assert!(drop_layer(1.0, true), "nobody looks on any more");
    }
}
