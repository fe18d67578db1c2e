//! Additive attention masks.

use tch::{Device, Kind, Tensor};

/// Causal mask for `t` new tokens after `past` cached ones: 0 where a key may be seen, -inf elsewhere.
/// -> [t, past + t]; None when every key may be seen (a single new token).
pub fn causal(t: i64, past: i64, kind: Kind, device: Device) -> Option<Tensor> {
    if t == 1 {
        return None;
    }
    let mask = Tensor::full([t, past + t], f64::NEG_INFINITY, (kind, device));
    Some(mask.triu(past + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_tokens_are_hidden() {
        let inf = f64::NEG_INFINITY;
        let mask = causal(2, 1, Kind::Float, Device::Cpu).expect("two tokens need a mask");
        let rows: Vec<Vec<f64>> = Vec::try_from(mask).expect("numbers");
        assert_eq!(rows, [[0.0, 0.0, inf], [0.0, 0.0, 0.0]]);
        assert!(causal(1, 5, Kind::Float, Device::Cpu).is_none());
    }
}
