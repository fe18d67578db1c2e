//! What the reference can't be asked: sampling, hooks, refusals.

use std::rc::Rc;

use super::*;
use crate::decoders;
use crate::nn::{Params, Store};

/// `finish` of some row, so that each reason is seen.
fn finishes(found: &[Vec<Generated>]) -> Vec<Finish> {
    found.iter().flatten().map(|generated| generated.finish).collect()
}

fn search_case(which: impl Fn(&Case) -> bool) -> Case {
    let cases = cases(include_str!("../../../../tests/fixtures/generation/search.jsonl"));
    cases.into_iter().find(which).unwrap()
}

/// Greedy, more than one image, nothing special.
fn plain_case() -> Case {
    let mut case = search_case(|case| case.images.len() > 1 && case.decoder.size == 16);
    case.config = GenerationConfig {
        eos_token_id: vec![2],
        max_new_tokens: Some(40),
        ..GenerationConfig::default()
    };
    case.decoder.boost.clear();
    case
}

#[test]
fn sampled_tokens_follow_the_probabilities() {
    let mut case = plain_case();
    case.config.do_sample = true;
    case.config.top_k = 6;
    case.config.temperature = 0.8;
    case.config.max_new_tokens = Some(1);
    case.config.num_return_sequences = 20_000;
    let found = case.run(&[0], &Hooks { seed: 11, ..Hooks::default() });
    let state = case.prompt[0].iter().fold(mix(case.images[0] as u32), |s, id| read(s, *id));
    let logits = logits_of(state, &[], 16);
    let mut order: Vec<usize> = (0..16).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let weight = |token: usize| f64::from(logits[token] / 0.8).exp();
    let total: f64 = order[..6].iter().map(|token| weight(*token)).sum();
    let (mut chi_square, mut seen) = (0.0, 0);
    for token in &order[..6] {
        let count = found[0].iter().filter(|found| found.ids == [*token as i64]).count();
        let expected = 20_000.0 * weight(*token) / total;
        chi_square += (count as f64 - expected).powi(2) / expected;
        seen += count;
    }
    // 5 degrees of freedom, probability 0.9999.
    assert!(seen == 20_000 && chi_square < 25.8, "{seen} {chi_square}");
}

#[test]
fn a_sampled_text_depends_on_seed_and_image_alone() {
    let cases = cases(include_str!("../../../../tests/fixtures/generation/search.jsonl"));
    let mut differing = 0;
    for mut case in cases.into_iter().take(120) {
        case.config.do_sample = true;
        case.config.num_return_sequences = 2;
        let which: Vec<usize> = (0..case.images.len()).collect();
        let hooks = Hooks { seed: 5, first_image: 40, ..Hooks::default() };
        let together = case.run(&which, &hooks);
        for image in which.clone() {
            let hooks = Hooks { first_image: 40 + image as u64, ..hooks };
            assert_eq!(case.run(&[image], &hooks)[0], together[image], "line {}", case.line);
        }
        differing += usize::from(case.run(&which, &Hooks { seed: 6, ..hooks }) != together);
    }
    assert!(differing > 100, "{differing}");
}

#[test]
fn what_ends_a_sequence_is_told() {
    let stops = search_case(|case| !case.config.stop_strings.is_empty());
    assert!(finishes(&stops.run_all()).contains(&Finish::Stop));

    let mut case = plain_case();
    for num_beams in [1, 3] {
        case.config.num_beams = num_beams;
        case.config.max_time = Some(0.0);
        let found = case.run_all();
        assert!(
            found.iter().all(|found| found[0].ids.len() == 1 && found[0].finish == Finish::Time)
        );
        case.config.max_time = None;

        case.decoder.boost = vec![(7, 20.0)];
        let detector = LoopDetector { max_period: 4, repeats: 3, min_tokens: 5 };
        let hooks = Hooks { loop_detector: Some(detector), ..Hooks::default() };
        let found = case.run(&[0, 1], &hooks);
        assert!(found.iter().all(|found| found[0].ids == [7; 5]));
        assert_eq!(finishes(&found)[0], Finish::Repetition);
        assert_eq!(case.run_all()[0][0].ids, [7; 40]);
        case.decoder.boost.clear();
    }
}

#[test]
fn only_allowed_tokens_are_written() {
    let mut case = plain_case();
    let allowed: Vec<bool> = (0..16).map(|id| [4, 9, 11].contains(&id)).collect();
    let allowed = Tensor::from_slice(&allowed);
    let hooks = Hooks { allowed: Some(&allowed), ..Hooks::default() };
    for num_beams in [1, 3] {
        case.config.num_beams = num_beams;
        for found in case.run(&[0, 1], &hooks).iter().flatten() {
            assert!(found.ids.iter().all(|id| [2, 4, 9, 11].contains(id)), "{:?}", found.ids);
        }
    }
}

#[test]
fn tokens_stream_and_an_interrupt_ends() {
    let case = plain_case();
    let seen = std::cell::RefCell::new(Vec::new());
    let stop = AtomicBool::new(false);
    let on_token = |id| seen.borrow_mut().push(id);
    let hooks = Hooks { on_token: Some(&on_token), interrupt: Some(&stop), ..Hooks::default() };
    let found = case.run(&[0], &hooks);
    assert_eq!(*seen.borrow(), found[0][0].ids);

    stop.store(true, Ordering::Relaxed);
    let states = Tensor::zeros([1, 1, 1], (Kind::Float, tch::Device::Cpu));
    let prompt = Tensor::from_slice(&[1i64]).unsqueeze(0);
    let error = generate(&case.decoder, &states, &prompt, &case.config, &hooks).unwrap_err();
    assert!(error.is::<Interrupted>());
}

#[test]
fn without_a_cache_padding_is_counted_otherwise() {
    let mut case = plain_case();
    case.config.use_cache = false;
    case.decoder.use_cache = false;
    case.run_all();
}

#[test]
fn what_can_not_be_generated_is_refused() {
    let case = plain_case();
    let config = |change: &dyn Fn(&mut GenerationConfig)| {
        let mut config = case.config.clone();
        change(&mut config);
        config
    };
    let table = [
        (
            config(&|_| ()),
            vec![1i64, 99],
            "the prompt has the token id 99, the vocabulary ends at 16",
        ),
        (
            config(&|c| (c.max_new_tokens, c.max_length, c.length) = (None, 2, LengthRule::Total)),
            vec![1, 3],
            "the prompt has 2 tokens (start token included) and max_length is 2",
        ),
        (
            config(&|c| c.bad_words_ids = vec![vec![3, 16]]),
            vec![1],
            "bad_words_ids has the token id 16, the vocabulary ends at 16",
        ),
        (
            config(&|c| c.forced_bos_token_id = Some(70)),
            vec![1],
            "forced_bos_token_id has the token id 70",
        ),
        (
            config(&|c| c.stop_strings = vec!["a".to_string()]),
            vec![1],
            "stop_strings need a tokenizer",
        ),
        (
            config(&|c| (c.num_beams, c.eos_token_id) = (2, (0..17).collect())),
            vec![1],
            "2 beams need 36 continuations, the vocabulary of 16 has too few",
        ),
    ];
    for (config, prompt, sentence) in table {
        let states = Tensor::zeros([1, 1, 1], (Kind::Float, tch::Device::Cpu));
        let prompt = Tensor::from_slice(&prompt).unsqueeze(0);
        let found = generate(&case.decoder, &states, &prompt, &config, &Hooks::default());
        let error = found.unwrap_err().to_string();
        assert!(error.starts_with(sentence), "{error}");
    }
}

#[test]
fn a_text_is_the_same_with_drafts() {
    let cases = cases(include_str!("../../../../tests/fixtures/generation/search.jsonl"));
    let hooks = Hooks { drafts: true, ..Hooks::default() };
    CALLS.set((0, 0));
    for case in cases {
        for image in 0..case.images.len() {
            let alone = case.run(&[image], &Hooks::default());
            assert_eq!(case.run(&[image], &hooks), alone, "line {}", case.line);
        }
        // The last row of a batch is alone too.
        let all: Vec<usize> = (0..case.images.len()).collect();
        assert_eq!(case.run(&all, &hooks), case.run_all(), "line {}", case.line);
    }
    let (_, drafts) = CALLS.get();
    assert!(drafts > 500, "{drafts}");
}

#[test]
fn drafts_follow_what_became_of_those_before() {
    let mut case = plain_case();
    case.config.eos_token_id.clear();
    case.config.max_new_tokens = Some(200);
    let run = |case: &Case| {
        CALLS.set((0, 0));
        let _ = case.run(&[0], &Hooks { drafts: true, ..Hooks::default() });
        CALLS.get()
    };
    // 200 tokens by fewer readings than tokens, as 4 of 5 are right.
    let (read, drafted) = run(&case);
    assert!(read < 100 && drafted > 100, "{read} {drafted}");
    // Where a draft is never right it is given up.
    case.decoder.drafts_are_right = false;
    let (read, drafted) = run(&case);
    assert!(read > 190 && drafted < 50, "{read} {drafted}");
}

/// Numbers that look random and are the same everywhere.
fn waves(size: &[i64], pitch: f64) -> Tensor {
    let count = Tensor::arange(size.iter().product::<i64>(), (Kind::Double, tch::Device::Cpu));
    (count * (1.7 + pitch / 9.0)).sin().to_kind(Kind::Float).reshape(size)
}

/// A real decoder with weights of no meaning, so that the cache's order matters: what each search reports of
/// its tokens is what a reading of the whole sequence says of them.
#[test]
fn a_search_reports_what_the_decoder_says() {
    // A vocabulary below top_k, so that no rule changes a score.
    let (images, seq, v) = (3i64, 5i64, 30i64);
    let store = Rc::new(Store::fresh(tch::Device::Cpu, Kind::Float));
    let json = serde_json::json!({
        "vocab_size": v, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 4,
    });
    let gpt2 = decoders::find("gpt2").unwrap();
    let decoder = (gpt2.build)(&json, &Params::root(store.clone())).unwrap();
    for (number, mut variable) in store.variables().into_iter().enumerate() {
        let values = waves(&variable.tensor.size(), number as f64 + 1.0);
        no_grad(|| variable.tensor.copy_(&values));
    }
    let states = waves(&[images, seq, 16], 0.3);
    let prompt = Tensor::from_slice(&[1i64, 7, 1, 9, 1, 9]).reshape([images, 2]);
    let base = GenerationConfig {
        eos_token_id: vec![2, 3, 5, 8, 13, 21],
        max_new_tokens: Some(14),
        ..GenerationConfig::default()
    };
    let beams = GenerationConfig { num_beams: 4, num_return_sequences: 3, ..base.clone() };
    let configs = [
        base.clone(),
        GenerationConfig { do_sample: true, num_return_sequences: 3, ..base.clone() },
        GenerationConfig { penalty_alpha: Some(0.6), top_k: 4, ..base },
        beams.clone(),
        GenerationConfig { do_sample: true, ..beams },
    ];
    for config in configs {
        let found = generate(&*decoder, &states, &prompt, &config, &Hooks::default()).unwrap();
        let mut lengths = Vec::new();
        for (image, generated) in found
            .iter()
            .flatten()
            .enumerate()
            .map(|(row, generated)| ((row as i64) / config.num_return_sequences, generated))
        {
            let ids = Tensor::from_slice(&generated.ids).unsqueeze(0);
            let all = Tensor::cat(&[prompt.narrow(0, image, 1), ids.shallow_clone()], 1);
            let state = states.narrow(0, image, 1);
            let mut cache = decoder.limits().cache();
            let hidden = decoder.forward(&all, &state, &mut cache, false);
            let logits = decoder.logits(&hidden).narrow(1, 1, ids.size()[1]).squeeze_dim(0);
            let said = logits.log_softmax(-1, Kind::Float).gather(
                1,
                &ids.squeeze_dim(0).unsqueeze(1),
                false,
            );
            let said: Vec<f64> = Vec::try_from(said.flatten(0, -1)).unwrap();
            for (found, said) in generated.token_logprobs.iter().zip(&said) {
                assert!((found - said).abs() < 1e-4, "{:?}: {found} for {said}", config.mode());
            }
            lengths.push(generated.ids.len());
        }
        lengths.sort();
        // Images left the batch at different times.
        assert!(lengths[0] < lengths[lengths.len() - 1], "{:?}: {lengths:?}", config.mode());
    }
}

/// A file may speak of groups to a run that has one beam.
#[test]
fn groups_without_beams_change_nothing() {
    let mut case = plain_case();
    let ids = |found: Vec<Vec<Generated>>| -> Vec<Vec<i64>> {
        found.into_iter().flatten().map(|generated| generated.ids).collect()
    };
    let plain = ids(case.run(&[0], &Hooks::default()));
    case.config.num_beam_groups = 2;
    assert_eq!(ids(case.run(&[0], &Hooks::default())), plain);
}
