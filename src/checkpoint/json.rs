//! JSON objects that may not name a key twice.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// Names met so far.
#[derive(Default)]
pub(super) struct Seen(HashSet<String>);

impl Seen {
    /// An error where `name` was met before.
    pub(super) fn first(&mut self, name: &str) -> Result<(), String> {
        match self.0.insert(name.to_owned()) {
            true => Ok(()),
            false => Err(format!("the name {name:?} occurs twice")),
        }
    }
}

/// The members of an object in the file's order; a repeated name is an error.
pub(super) struct UniqueMap<V>(pub(super) Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueMap<V>, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = UniqueMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap<V>, A::Error> {
        let mut members = Vec::new();
        let mut seen = Seen::default();
        while let Some(name) = map.next_key::<String>()? {
            seen.first(&name).map_err(A::Error::custom)?;
            members.push((name, map.next_value()?));
        }
        Ok(UniqueMap(members))
    }
}
