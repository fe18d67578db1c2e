//! Checkpoints as a whole, and what the tests of every format share.

use tch::Kind;

use super::*;

pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

/// Every tensor of a directory, in its order.
pub(super) fn read_all(dir: &Path) -> Vec<(String, Tensor)> {
    let checkpoint = Checkpoint::open(dir).unwrap();
    checkpoint.keys().map(|key| (key.to_owned(), checkpoint.tensor(key).unwrap())).collect()
}

/// What opening a file of these bytes and this name says, less the path.
pub(super) fn refusal(name: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let error = format!("{:#}", Checkpoint::open_file(&path).err().unwrap());
    let prefix = format!("{path:?}: ");
    assert!(error.starts_with(&prefix), "{error}");
    error[prefix.len()..].to_owned()
}

pub(super) fn assert_same(found: &[(String, Tensor)], expected: &[(String, Tensor)]) {
    let keys = |tensors: &[(String, Tensor)]| -> Vec<String> {
        tensors.iter().map(|(key, _)| key.clone()).collect()
    };
    assert_eq!(keys(found), keys(expected));
    for ((key, found), (_, expected)) in found.iter().zip(expected) {
        assert_eq!((found.kind(), found.size()), (expected.kind(), expected.size()), "{key}");
        assert_eq!(found, expected, "{key}");
    }
}

/// Opens a fixture and compares it with the `expected.safetensors` beside it.
pub(super) fn check_expected(name: &str) -> Checkpoint {
    let dir = fixture(name);
    let found = Checkpoint::open(&dir).unwrap();
    let expected = Checkpoint::open_file(&dir.join("expected.safetensors")).unwrap();
    assert_eq!(found.len(), expected.len(), "{name}");
    let in_order = found.keys().map(|key| (key.to_owned(), expected.tensor(key).unwrap()));
    assert_same(&read_all(&dir), &in_order.collect::<Vec<_>>());
    for key in found.keys() {
        let tensor = found.tensor(key).unwrap();
        assert!(tensor.is_contiguous(), "{name} {key}");
        let info = found.info(key).unwrap();
        assert_eq!((info.kind, &info.shape), (tensor.kind(), &tensor.size()), "{name} {key}");
    }
    found
}

#[test]
fn values_are_those_of_the_fixture() {
    let checkpoint = Checkpoint::open(&fixture("safetensors")).unwrap();
    assert_eq!(checkpoint.format(), Format::Safetensors);
    assert_eq!(checkpoint.metadata().get("format").map(String::as_str), Some("pt"));
    let check = |key: &str, kind: Kind, shape: &[i64], expected: &[f64]| {
        let info = checkpoint.info(key).unwrap();
        assert_eq!((info.kind, info.shape.as_slice()), (kind, shape), "{key}");
        let tensor = checkpoint.tensor(key).unwrap();
        assert_eq!((tensor.kind(), tensor.size().as_slice()), (kind, shape), "{key}");
        let values: Vec<f64> = tensor.to_kind(Kind::Double).view(-1).try_into().unwrap();
        assert_eq!(values, expected, "{key}");
    };
    check("f32", Kind::Float, &[2, 3], &[-1.0, -0.75, -0.5, -0.25, 0.0, 0.25]);
    check("f16", Kind::Half, &[3], &[-1.0, -0.75, -0.5]);
    check("bf16", Kind::BFloat16, &[2, 2], &[100.0, 101.5, 103.0, 104.5]);
    check("f64", Kind::Double, &[1, 2], &[1e300, 1e299 + 1e300]);
    check("i32", Kind::Int, &[2, 1], &[-2147483648.0, 2147483647.0]);
    check("i16", Kind::Int16, &[3], &[-300.0, 300.0, 7.0]);
    check("i8", Kind::Int8, &[3], &[-128.0, 127.0, 0.0]);
    check("u8", Kind::Uint8, &[5], &[0.0, 255.0, 1.0, 2.0, 3.0]);
    check("bool", Kind::Bool, &[3], &[1.0, 0.0, 1.0]);
    check("scalar", Kind::Float, &[], &[2.5]);
    check("empty", Kind::Float, &[0, 4], &[]);
    check("quoted \"name\" é", Kind::Float, &[1], &[1.0]);
    let i64s: Vec<i64> = checkpoint.tensor("i64").unwrap().try_into().unwrap();
    assert_eq!(i64s, [i64::MIN, i64::MAX]);
    assert_eq!(checkpoint.len(), 13);
}

#[test]
fn safetensors_of_other_frameworks_become_those_of_pytorch() {
    for name in ["safetensors-flax", "safetensors-tf"] {
        assert_eq!(check_expected(name).format(), Format::Safetensors);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    write_safetensors(&path, &[], &[("format", "paddle")]).unwrap();
    let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
    assert!(error.ends_with("the format \"paddle\", which is none of pt, tf, flax, mlx"));
}

#[test]
fn shards_come_in_the_order_of_their_names() {
    let checkpoint = Checkpoint::open(&fixture("sharded")).unwrap();
    assert_eq!(checkpoint.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(checkpoint.files().len(), 2);
    let c: Vec<f32> = checkpoint.tensor("c").unwrap().try_into().unwrap();
    assert_eq!(c, [0.0, 0.25, 0.5, 0.75]);
}

#[test]
fn legacy_names_become_current() {
    let checkpoint = Checkpoint::open(&fixture("legacy-names")).unwrap();
    let mut keys: Vec<_> = checkpoint.keys().collect();
    keys.sort();
    assert_eq!(keys, ["bert.LayerNorm.bias", "bert.LayerNorm.weight"]);
    assert_eq!(checkpoint.renamed().len(), 2);
    let bias: Vec<f32> = checkpoint.tensor("bert.LayerNorm.bias").unwrap().try_into().unwrap();
    assert_eq!(bias, [9.0, 9.25, 9.5, 9.75]);
}

#[test]
fn two_names_that_become_one_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let ones = || Tensor::ones([1], (Kind::Float, tch::Device::Cpu));
    let names = ["LayerNorm.beta", "LayerNorm.bias"];
    write_safetensors(&path, &names.map(|name| (name.to_owned(), ones())), &[]).unwrap();
    let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
    let clash = "tensor \"LayerNorm.bias\" occurs twice in the checkpoint";
    assert_eq!(error, format!("{path:?}: {clash}"));
}

#[test]
fn an_empty_directory_says_what_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
    let looked = FILES.join(", ");
    assert_eq!(error, format!("{:?} holds no weights: looked for {looked}", dir.path()));
    let missing = dir.path().join("missing");
    let error = Checkpoint::open(&missing).err().unwrap().to_string();
    assert_eq!(error, format!("{missing:?} is not a directory"));
}

/// Every fixture that opens.
fn fixtures() -> Vec<PathBuf> {
    let folder = fixture("");
    let dirs = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    dirs.filter(|dir| Checkpoint::open(dir).is_ok()).collect()
}

#[test]
fn tensors_on_the_pages_of_a_file_are_those_that_are_copied() {
    let all = fixtures();
    assert!(all.len() > 5, "{all:?}");
    for dir in all {
        let own = read_all(&dir);
        let shared = Checkpoint::open(&dir).unwrap();
        let read = |(key, own): &(String, Tensor)| {
            shared.tensor_as(key, own.kind(), Device::Cpu, Memory::Shared).unwrap()
        };
        let tensors: Vec<Tensor> = own.iter().map(read).collect();
        // Let go, the pages come back from the file.
        shared.release();
        drop(shared);
        for ((key, own), shared) in own.iter().zip(tensors) {
            assert!(shared.is_contiguous(), "{dir:?} {key}");
            assert_eq!((own.kind(), own.size()), (shared.kind(), shared.size()), "{dir:?} {key}");
            assert!(own.equal(&shared), "{dir:?} {key}");
        }
    }
}

#[test]
fn what_is_written_to_a_shared_tensor_stays_in_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let numbers = Tensor::arange(5000, (Kind::Float, Device::Cpu));
    write_safetensors(&path, &[("a".to_owned(), numbers.shallow_clone())], &[]).unwrap();
    let file = Checkpoint::open(dir.path()).unwrap();
    let read = |memory| file.tensor_as("a", Kind::Float, Device::Cpu, memory).unwrap();
    let (own, mut shared) = (read(Memory::Own), read(Memory::Shared));
    assert_ne!(own.data_ptr(), shared.data_ptr());
    #[cfg(unix)]
    assert_eq!(shared.data_ptr(), read(Memory::Shared).data_ptr());
    let _ = shared.fill_(7.0);
    let anew = Checkpoint::open(dir.path()).unwrap();
    assert!(own.equal(&numbers) && anew.tensor("a").unwrap().equal(&numbers));
    assert!(shared.eq(7.0).all().int64_value(&[]) == 1);
}

#[test]
fn conversion_and_odd_places_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let numbers = Tensor::arange(300, (Kind::Float, Device::Cpu)) / 7.0;
    let tensors = [("a".to_owned(), numbers.shallow_clone())];
    write_safetensors(&path, &tensors, &[]).unwrap();
    // The header one byte longer: no number is aligned any more.
    let mut bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    bytes.splice(..8, (length + 1).to_le_bytes());
    bytes.insert(8 + length as usize, b' ');
    std::fs::write(dir.path().join("odd.safetensors"), bytes).unwrap();
    for name in ["model.safetensors", "odd.safetensors"] {
        let file = Checkpoint::open_file(&dir.path().join(name)).unwrap();
        for memory in [Memory::Own, Memory::Shared] {
            for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
                let found = file.tensor_as("a", kind, Device::Cpu, memory).unwrap();
                assert_eq!(found.kind(), kind);
                assert!(found.equal(&numbers.to_kind(kind)), "{name} {memory:?} {kind:?}");
            }
        }
    }
}
