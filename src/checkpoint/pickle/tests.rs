//! Pickles that do what no state dict does.

use super::machine::{MAX_STEPS, load};
use super::value::Value;

fn refusal(bytes: &[u8]) -> String {
    format!("{:#}", load(bytes).err().unwrap())
}

#[test]
fn whatever_executes_is_refused_by_its_name() {
    let check = |bytes: &[u8], name: &str| {
        let error = refusal(bytes);
        let expected = format!("the pickle asks for {name:?}");
        assert!(error.contains(&expected), "{error}");
    };
    check(b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.", "os.system");
    check(b"cposix\nsystem\n.", "posix.system");
    check(b"c__builtin__\neval\n.", "__builtin__.eval");
    check(b"cargparse\nNamespace\n)\x81.", "argparse.Namespace");
    check(b"cnumpy.core.multiarray\n_reconstruct\n.", "numpy.core.multiarray._reconstruct");
    check(b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes");
    check(b"ctorch\nload\n.", "torch.load");
    check(b"ctorch\nComplexFloatStorage\n.", "torch.ComplexFloatStorage");
    check(b"ctorch\ncomplex64\n.", "torch.complex64");
    check(b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system");
    check(b"\x80\x04\x8c\x05torch\x8c\x0b_utils.evil\x93.", "torch._utils.evil");
}

#[test]
fn opcodes_without_a_place_are_refused() {
    // INST, OBJ, NEWOBJ, PERSID, EXT1, REDUCE by name, sets, out-of-band buffers, text.
    for opcode in [b'i', b'o', 0x81, b'P', 0x82, 0x92, 0x8f, 0x91, 0x97, b'V', b'I', b'L', 0] {
        let error = refusal(&[b'N', opcode, b'1', b'\n', b'.']);
        assert!(error.starts_with("byte 1 of the pickle: the opcode "), "{error}");
        assert!(error.contains(&format!("{opcode:#04x}")), "{error}");
    }
}

#[test]
fn damaged_pickles_are_refused() {
    let check = |bytes: &[u8], expected: &str| {
        let error = refusal(bytes);
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    };
    check(b"", "byte 0 of the pickle: the pickle ends too soon");
    check(b".", "empty stack");
    check(b"\x80\x06.", "the pickle has protocol 6");
    check(b"X\xff\xff\xff\xffabc", "4294967295 bytes are needed, 3 are left");
    check(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615 bytes are needed");
    check(b"X\x01\0\0\0\xff.", "a string of the pickle is not UTF-8");
    check(b"\x8a\xff\x01.", "255 bytes are needed");
    check(b"h\x07.", "the memo has no slot 7");
    check(b"q\x00.", "empty stack");
    check(b"t.", "the pickle lacks a MARK");
    check(b"N(0t.", "a MARK of the pickle lies above the stack");
    check(b"N\x86.", "empty stack");
    check(b"}(Nu.", "a key of the pickle lacks its value");
    check(b"NNNs.", "changes a value that cannot change");
    check(b")NNs.", "sets items of something that is no dict");
    check(b"}Na.", "appends to something that is no list");
    check(b"]Nb.", "sets the state of something that is no dict");
    check(b"N)R.", "calls something that is no function");
    check(b"ccollections\nOrderedDict\nNR.", "something else where a tuple belongs");
    check(b"ccollections\nOrderedDict\n]Na\x85R.", "something else where a tuple belongs");
    check(b"ctorch\nfloat32\n)R.", "which is no function");
    check(b"ccollections", "the name of a global has no end");
    check(b"NN\x93.", "the name of a global is no string");
    check(b"NQ.", "something else where a tuple belongs");
    check(b")Q.", "a persistent id of the pickle is no storage");
    check(b"(X\x07\0\0\0storageNNNNtQ.", "has no class of storage");
    check(b"(NctorchFloatStorage", "the name of a global has no end");
    check(b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "has 0 arguments, at least 4");
    check(b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0))tR.", "has no storage");
    check(b"ctorch._utils\n_rebuild_parameter\nN\x85R.", "has no tensor");
}

#[test]
fn neither_loops_nor_depth_nor_floods_harm() {
    // A dict that holds itself.
    let cycle = load(b"}q\0X\x01\0\0\0ah\0s.").unwrap();
    assert_eq!(cycle.objects.len(), 2);
    // Tuples a million deep.
    let deep = [&b")"[..], &vec![0x85; 1_000_000], b"."].concat();
    assert_eq!(load(&deep).unwrap().objects.len(), 1_000_001);
    // More steps than any state dict takes.
    let flood = vec![b'N'; MAX_STEPS + 2];
    assert!(refusal(&flood).contains("takes more than 4000000 steps"));
    // A slot of the memo costs a slot, whatever its number.
    let memo = load(b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.").unwrap();
    assert_eq!(memo.root, Value::None);
    // One list of a million items made into a dict again and again.
    let pair = b"]NaNa";
    let mut bomb = b"](".to_vec();
    bomb.extend_from_slice(pair);
    bomb.extend(std::iter::repeat_n(b'2', 1_000_000));
    bomb.extend_from_slice(b"e\x85q\0");
    for _ in 0..1000 {
        bomb.extend_from_slice(b"ccollections\nOrderedDict\nh\0R");
    }
    assert!(refusal(&bomb).contains("takes more than 4000000 steps"));
}

#[test]
fn integers_have_their_sign() {
    let check = |bytes: &[u8], expected: i64| {
        assert_eq!(load(bytes).unwrap().root_int(), Some(expected));
    };
    check(b"K\xff.", 255);
    check(b"M\xff\xff.", 65535);
    check(b"J\xff\xff\xff\xff.", -1);
    check(b"\x8a\x00.", 0);
    check(b"\x8a\x01\xff.", -1);
    check(b"\x8a\x02\xff\x00.", 255);
    check(b"\x8a\x08\0\0\0\0\0\0\0\x80.", i64::MIN);
}
