use super::*;

/// Keys and values of one-element tensors.
type Source = &'static [(&'static str, f64)];

/// A store over them.
fn store(values: Source, missing: Missing) -> Rc<Store> {
    let tensors: Vec<(String, f64)> =
        values.iter().map(|(key, value)| (key.to_string(), *value)).collect();
    let keys = tensors.iter().map(|(key, _)| key.clone()).collect();
    let lookup = move |key: &str| {
        let value = tensors.iter().find(|(known, _)| known == key).unwrap().1;
        Ok(Tensor::from_slice(&[value as f32]))
    };
    Rc::new(Store::new(keys, Box::new(lookup), missing, Device::Cpu, Kind::Float))
}

#[test]
fn tied_names_hold_one_tensor_where_the_file_allows_it() {
    // What the file has, whether the config ties, the two values, warnings.
    let table: [(Source, bool, (f64, f64), usize); 5] = [
        (&[("a", 1.0)], true, (1.0, 1.0), 0),
        (&[("b", 2.0)], true, (2.0, 2.0), 0),
        (&[("a", 3.0), ("b", 3.0)], true, (3.0, 3.0), 0),
        (&[("a", 1.0), ("b", 2.0)], true, (1.0, 2.0), 1),
        (&[("a", 1.0), ("b", 2.0)], false, (1.0, 2.0), 0),
    ];
    for (values, tie, expected, warnings) in table {
        let store = store(values, Missing::Refuse);
        let (a, b) =
            Params::root(store.clone()).tied("a", "b", &[1], Init::Normal(1.0), tie).unwrap();
        assert_eq!((a.double_value(&[0]), b.double_value(&[0])), expected, "{values:?}");
        assert_eq!(store.warnings().len(), warnings, "{values:?}");
        assert_eq!(store.untied(), warnings == 1, "{values:?}");
        assert!(store.check().is_ok() && store.left_over().is_empty(), "{values:?}");
    }
}

#[test]
fn tied_names_are_read_once() {
    let reads = Rc::new(std::cell::RefCell::new(Vec::new()));
    let noted = reads.clone();
    let lookup = move |key: &str| {
        noted.borrow_mut().push(key.to_string());
        Ok(Tensor::from_slice(&[1.0f32]))
    };
    let keys = vec!["a".to_string(), "b".to_string()];
    let store = Store::new(keys, Box::new(lookup), Missing::Refuse, Device::Cpu, Kind::Float);
    let store = Rc::new(store);
    let p = Params::root(store.clone());
    let (a, b) = p.tied("a", "b", &[1], ZEROS, true).unwrap();
    assert_eq!(a.data_ptr(), b.data_ptr());
    assert_eq!(*reads.borrow(), ["a", "b"]);
    store.close();
    assert!(p.var("a", &[1], ZEROS).unwrap_err().to_string().contains("too late"));
}

#[test]
fn shared_names_hold_one_tensor() {
    let table: [(Source, f64, usize); 3] = [
        (&[("a", 1.0)], 1.0, 0),
        (&[("c", 2.0)], 2.0, 0),
        (&[("a", 1.0), ("b", 1.0), ("c", 4.0)], 1.0, 1),
    ];
    for (values, expected, warnings) in table {
        let store = store(values, Missing::Refuse);
        let found = Params::root(store.clone()).shared(&["a", "b", "c"], &[1], ZEROS).unwrap();
        assert_eq!(found.double_value(&[0]), expected, "{values:?}");
        assert_eq!(store.warnings().len(), warnings, "{values:?}");
        assert_eq!((store.variables().len(), store.aliases().len()), (1, 2));
        assert!(store.check().is_ok() && store.left_over().is_empty(), "{values:?}");
    }
    let empty = store(&[], Missing::Refuse);
    let _ = Params::root(empty.clone()).shared(&["a", "b"], &[1], ZEROS).unwrap();
    assert!(empty.check().unwrap_err().to_string().contains("\"a\""));
}

#[test]
fn spare_tensors_are_kept_but_neither_missed_nor_trained() {
    let empty = store(&[], Missing::Refuse);
    Params::root(empty.clone()).spare("a", &[1], ZEROS).unwrap();
    assert!(empty.check().is_ok() && empty.variables().is_empty());
    for (values, missing) in
        [(&[("a", 1.0)] as Source, Missing::Refuse), (&[], Missing::Initialize)]
    {
        let store = store(values, missing);
        Params::root(store.clone()).spare("a", &[1], ZEROS).unwrap();
        let variables = store.variables();
        assert_eq!(variables.len(), 1);
        assert!(!variables[0].trainable);
    }
}

#[test]
fn whole_numbers_are_no_weights() {
    let lookup = |_: &str| Ok(Tensor::from_slice(&[1i8]));
    let keys = ["a", "b", "index"].map(str::to_string).to_vec();
    let store = Store::new(keys, Box::new(lookup), Missing::Refuse, Device::Cpu, Kind::Float);
    let store = Rc::new(store);
    let p = Params::root(store.clone());
    let weight = p.var("a", &[1], ZEROS).unwrap();
    p.spare("b", &[1], ZEROS).unwrap();
    p.buffer("index", &Tensor::from_slice(&[5i64])).unwrap();
    assert_eq!(weight.kind(), Kind::Float);
    let error = store.check().unwrap_err().to_string();
    assert!(error.contains("2 tensors") && error.contains("\"a\" (Int8), \"b\" (Int8)"), "{error}");
}
