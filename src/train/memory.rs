//! Memory that does not suffice becomes a sentence that says what to lower.

use anyhow::{Result, bail};

use super::options::Options;
use crate::device::within_memory;

/// Runs work on the model.
///
/// # Errors
/// What `work` says; that the memory does not suffice, with `advice`.
pub fn guarded<T>(advice: impl FnOnce() -> String, work: impl FnOnce() -> Result<T>) -> Result<T> {
    within_memory(work).unwrap_or_else(|short| bail!("{short}: {}", advice()))
}

/// What makes a step of training smaller, of what is not done yet.
pub fn for_a_step(options: &Options) -> String {
    let mut advice = Vec::new();
    let batch = options.per_device_train_batch_size;
    if batch > 1 {
        advice.push(format!(
            "lower --per-device-train-batch-size (now {batch}) and raise --gradient-accumulation-steps by \
             as much, what is learnt stays the same"
        ));
    }
    let mut others = Vec::new();
    if !options.gradient_checkpointing {
        others.push("--gradient-checkpointing");
    }
    if options.mixed_precision().is_none() {
        others.push("--bf16");
    }
    others.push("a smaller --max-target-length");
    others.push("smaller images (size in preprocessor_config.json)");
    advice.push(format!("try {}", others.join(", or ")));
    advice.join("; ")
}

/// What makes an evaluation smaller.
pub fn for_an_evaluation(options: &Options) -> String {
    let mut advice = Vec::new();
    let batch = options.per_device_eval_batch_size;
    if batch > 1 {
        advice.push(format!("lower --per-device-eval-batch-size (now {batch})"));
    }
    if options.generation_num_beams != Some(1) {
        advice.push("evaluate with --generation-num-beams 1".to_string());
    }
    advice.push("evaluate less often (--eval-steps never)".to_string());
    advice.join(", or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libtorch_says_of_memory_is_understood() {
        std::panic::set_hook(Box::new(|_| {}));
        let failing = |text: &str| {
            let text = text.to_string();
            std::panic::catch_unwind(|| {
                guarded(|| "less".to_string(), || -> Result<()> { panic!("{text}") })
            })
        };
        for text in [
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you \
             tried to allocate 8 bytes. Error code 12 (Cannot allocate memory)",
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "std::bad_alloc",
            "called `Result::unwrap()` on an `Err` value: Torch(\"could not create a primitive\")",
        ] {
            let told = failing(text).map(|ended| ended.err().map(|error| error.to_string()));
            assert_eq!(told.ok().flatten().as_deref(), Some("the memory does not suffice: less"));
        }
        assert!(failing("shapes [2] and [3] differ").is_err());
        assert!(failing("Torch(\"could not create a primitive descriptor\")").is_err());
        let _ = std::panic::take_hook();
    }
}
