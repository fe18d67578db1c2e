use tch::Device;

use super::*;

const OPTIONS: AdamWOptions =
    AdamWOptions { betas: (0.9, 0.99), eps: 1e-8, weight_decay: 0.1, max_grad_norm: 1.0 };

fn optimizer() -> AdamW {
    let parameter = |name: &str, values: &[f32]| Parameter {
        name: name.to_string(),
        tensor: Tensor::from_slice(values).set_requires_grad(true),
        decays: name == "a",
    };
    let parameters = vec![parameter("a", &[1.0, -2.0, 3.0, 0.5]), parameter("b", &[0.25, -0.75])];
    AdamW::new(parameters, OPTIONS)
}

fn close(found: &Tensor, expected: &[f64]) {
    let found: Vec<f64> = Vec::try_from(found.to_kind(Kind::Double)).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 1.2e-7 * expected.abs() + 1e-8,
            "{found} for {expected}"
        );
    }
}

/// Four steps of `torch.optim.AdamW(fused=True)` after `clip_grad_norm_(.., 1.0)`; the second one
/// brings no gradient for b.
fn four_steps(optimizer: &mut AdamW, pause: impl Fn(&mut AdamW, usize)) -> Vec<f64> {
    type Step = ([f32; 4], Option<[f32; 2]>, f64);
    let steps: [Step; 4] = [
        ([0.1, -0.2, 0.3, 0.4], Some([2.0, -1.0]), 1e-2),
        ([0.3, 0.2, -0.1, 0.0], None, 5e-3),
        ([-0.5, 0.5, 1.5, 0.25], Some([0.5, 0.5]), 2e-2),
        ([1e-3, 2e-3, 0.0, -1e-3], Some([1e-4, 0.0]), 1e-2),
    ];
    let mut norms = Vec::new();
    for (i, (a, b, learning_rate)) in steps.iter().enumerate() {
        let mut gradients = Gradients::new(2);
        let b = b.map_or_else(Tensor::new, |b| Tensor::from_slice(&b));
        gradients.take(vec![Tensor::from_slice(a), b]);
        norms.push(optimizer.step(&mut gradients, *learning_rate));
        pause(optimizer, i);
    }
    norms
}

fn check_four_steps(optimizer: &AdamW) {
    close(
        &optimizer.parameters[0].tensor,
        &[0.9800482988357544, -2.002840518951416, 2.9582467079162598, 0.46181878447532654],
    );
    close(&optimizer.parameters[1].tensor, &[0.21599988639354706, -0.7353249788284302]);
    let moments = &optimizer.moments;
    let exp_avg =
        [0.002841683803126216, 0.034791745245456696, 0.07557438313961029, 0.024928735569119453];
    close(&moments[0].exp_avg, &exp_avg);
    close(&moments[1].exp_avg_sq, &[0.008144143968820572, 0.00259641301818192]);
    assert_eq!((moments[0].step, moments[1].step), (4, 3));
}

#[test]
fn steps_are_those_of_the_reference() {
    let mut optimizer = optimizer();
    let norms = four_steps(&mut optimizer, |_, _| {});
    let expected =
        [2.302172899246216, 0.37416577339172363, 1.820027470588684, 0.0024515301920473576];
    close(&Tensor::from_slice(&norms), &expected);
    check_four_steps(&optimizer);
}

/// What a GPU does, on the CPU.
#[test]
fn parameters_are_updated_together_as_one_by_one() {
    let mut optimizer = optimizer();
    optimizer.together = native::has_operators();
    four_steps(&mut optimizer, |_, _| {});
    check_four_steps(&optimizer);
    let all = [Tensor::from_slice(&[3f32, 0.0]), Tensor::from_slice(&[[4f32], [12.0]].concat())];
    if let Some(norm) = native::norm_of_all(&all.each_ref()) {
        assert_eq!(norm.double_value(&[]), 13.0);
    }
}

#[test]
fn operators_compute_what_the_one_pass_does() {
    let rule = Rule {
        clip: 0.5,
        keep: 0.99,
        beta1: 0.9,
        beta2: 0.99,
        step_size: 0.1,
        root2: 0.3,
        eps: 1e-3,
    };
    let draw = || Tensor::rand([70_000], (Kind::Float, Device::Cpu));
    let values = [draw(), draw(), draw(), draw()];
    let mut other = values.each_ref().map(Tensor::copy);
    native::with_floats(values.each_ref(), |values| rule.on_slices(values)).unwrap();
    let [p, g, m, v] = &mut other;
    rule.on_tensors(p, g, m, v);
    for (a, b) in values.iter().zip(&other) {
        assert!(a.allclose(b, 2e-7, 2e-7, false));
    }
}

#[test]
fn saved_moments_go_on_bit_for_bit() {
    let mut straight = optimizer();
    four_steps(&mut straight, |_, _| {});
    let mut resumed = optimizer();
    four_steps(&mut resumed, |optimizer, i| {
        if i == 1 {
            let saved: Vec<(String, Tensor)> =
                optimizer.state().iter().map(|(name, t)| (name.clone(), t.copy())).collect();
            let parameters = std::mem::take(&mut optimizer.parameters);
            *optimizer = AdamW::new(parameters, OPTIONS);
            optimizer.restore(&saved).unwrap();
        }
    });
    for ((name, a), (_, b)) in straight.state().iter().zip(resumed.state()) {
        assert!(a.equal(&b), "{name}");
    }
    check_four_steps(&resumed);
    let error = resumed.restore(&straight.state()[1..]).unwrap_err().to_string();
    assert!(error.contains("\"exp_avg.a\""), "{error}");
}

#[test]
fn what_is_not_finite_changes_nothing() {
    let mut optimizer = optimizer();
    let mut gradients = Gradients::new(2);
    gradients.take(vec![Tensor::from_slice(&[1f32, f32::NAN, 0.0, 0.0]), Tensor::new()]);
    assert!(!optimizer.step(&mut gradients, 0.1).is_finite());
    assert_eq!(optimizer.moments[0].step, 0);
    close(&optimizer.parameters[0].tensor, &[1.0, -2.0, 3.0, 0.5]);
}

#[test]
fn biases_and_norms_do_not_decay() {
    let table = [
        ("encoder.embeddings.cls_token", true),
        ("encoder.encoder.layer.0.attention.attention.query.weight", true),
        ("encoder.encoder.layer.0.attention.attention.query.bias", false),
        ("encoder.encoder.layers.0.blocks.0.relative_position_bias_table", false),
        ("decoder.bert.embeddings.LayerNorm.weight", false),
        ("encoder.encoder.layers.0.downsample.norm.weight", false),
        ("decoder.model.decoder.layers.0.self_attn_layer_norm.weight", false),
        ("encoder.normal.weight", true),
        ("encoder.rms_norm1.weight", true),
    ];
    for (name, expected) in table {
        assert_eq!(decays(name), expected, "{name}");
    }
}
