//! Ids and scores are the reference's.

use super::*;

/// Ids exact, scores and log-probabilities within 1e-4. -> what differs
fn differences(case: &Case, found: &[Vec<Generated>]) -> Option<String> {
    for (image, found) in found.iter().enumerate() {
        let expected = case.expected[image].as_array().unwrap();
        if found.len() != expected.len() {
            return Some(format!("{} sequences for {}", found.len(), expected.len()));
        }
        for (found, expected) in found.iter().zip(expected) {
            let Some(ids) = expected["ids"].as_array() else { continue };
            let ids: Vec<i64> = ids.iter().map(|id| id.as_i64().unwrap()).collect();
            if found.ids != ids {
                return Some(format!("ids {:?} for {ids:?}", found.ids));
            }
            let eos = found.ids.last().is_some_and(|id| case.config.eos_token_id.contains(id));
            assert_eq!(found.finish == Finish::Eos, eos, "line {}", case.line);
            let score = expected["score"].as_f64();
            if found.sequences_score.is_some() != score.is_some()
                || !close(found.sequences_score.unwrap_or(0.0), score.unwrap_or(0.0))
            {
                return Some(format!("score {:?} for {score:?}", found.sequences_score));
            }
            let Some(logprobs) = expected["logprobs"].as_array() else { continue };
            let same = logprobs.len() == found.token_logprobs.len()
                && (logprobs.iter().zip(&found.token_logprobs))
                    .all(|(expected, found)| close(*found, expected.as_f64().unwrap()));
            if !same {
                return Some(format!("logprobs {:?} for {logprobs:?}", found.token_logprobs));
            }
        }
    }
    None
}

fn check(text: &str) {
    let mut failures = Vec::new();
    let cases = cases(text);
    for case in &cases {
        let together = case.run_all();
        if let Some(what) = differences(case, &together) {
            failures.push(format!("line {}, {:?}: {what}", case.line, case.config.mode()));
            continue;
        }
        let alone: Vec<_> = (0..case.images.len())
            .flat_map(|image| case.run(&[image], &Hooks::default()))
            .collect();
        if alone != together {
            failures.push(format!("line {}: alone {alone:?}, together {together:?}", case.line));
        }
    }
    assert!(cases.len() > 100);
    let count = failures.len();
    failures.truncate(12);
    assert!(failures.is_empty(), "{count} of {}:\n{}", cases.len(), failures.join("\n"));
}

#[test]
fn greedy_and_beam_search_are_the_reference_s() {
    check(include_str!("../../../../tests/fixtures/generation/search.jsonl"));
}

#[test]
fn beam_groups_and_contrastive_search_are_the_reference_s() {
    check(include_str!("../../../../tests/fixtures/generation/groups.jsonl"));
}

/// Rules against the reference: fixture of processed scores, [3, 20] a line.
#[test]
fn rules_change_scores_as_the_reference_s_do() {
    let text = include_str!("../../../../tests/fixtures/generation/rules.jsonl");
    let (mut cut, mut effects) = (0, [0; 3]);
    for (line, text) in text.lines().enumerate() {
        let case: Value = serde_json::from_str(text).unwrap();
        let ids: Vec<Vec<i64>> = serde_json::from_value(case["ids"].clone()).unwrap();
        let length = ids[0].len() as i64;
        let ids = Tensor::from_slice(&ids.concat()).reshape([-1, length]);
        let states: Vec<u32> = serde_json::from_value(case["states"].clone()).unwrap();
        let logits: Vec<f32> = states.iter().flat_map(|state| logits_of(*state, &[], 20)).collect();
        let setting = logits::Setting {
            prompt: case["prompt"].as_i64().unwrap(),
            max_length: 8,
            vocab_size: 20,
            device: tch::Device::Cpu,
            allowed: None,
        };
        let rules = Processors::new(&settings(&case["config"]), &setting).unwrap();
        let scores = Tensor::from_slice(&logits).reshape([-1, 20]);
        let found: Vec<f64> = Vec::try_from(rules.apply(&ids, scores).flatten(0, -1)).unwrap();
        let effect = rules.effect(length);
        effects[effect as usize] += 1;
        for (found, before) in found.iter().zip(&logits) {
            let kept = *found == f64::from(*before);
            let told = match effect {
                logits::Effect::Nothing => kept,
                logits::Effect::Forbids => kept || *found == f64::NEG_INFINITY,
                logits::Effect::Changes => true,
            };
            assert!(told, "line {}: {effect:?}, and {before} becomes {found}", line + 1);
        }
        let rows = case["expected"].as_array().unwrap().iter();
        let expected: Vec<&Value> = rows.flat_map(|row| row.as_array().unwrap()).collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let same = match expected.as_f64() {
                Some(expected) => close(*found, expected),
                None => *found == f64::NEG_INFINITY,
            };
            cut += usize::from(expected.is_null());
            assert!(same, "line {}: {found} for {expected}", line + 1);
        }
    }
    assert!(cut > 1000);
    assert!(effects.iter().all(|seen| *seen > 3), "{effects:?}");
}

#[test]
fn beam_scores_are_the_sums_of_their_tokens() {
    for text in [
        include_str!("../../../../tests/fixtures/generation/search.jsonl"),
        include_str!("../../../../tests/fixtures/generation/groups.jsonl"),
    ] {
        let mut seen = 0;
        for case in cases(text).iter().filter(|case| case.config.num_beams > 1) {
            for found in case.run_all().iter().flatten() {
                let Some(score) = found.sequences_score.filter(|score| *score > -1e8) else {
                    continue;
                };
                let sum: f64 = found.token_logprobs.iter().sum();
                let expected = sum / (found.ids.len() as f64).powf(case.config.length_penalty);
                assert!(close(score, expected), "line {}: {score} for {expected}", case.line);
                seen += 1;
            }
        }
        assert!(seen > 100);
    }
}
