//! The variables of one model: where their values come from, and an account of every one.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

use super::linear::Packing;

/// Gives the tensor of a key that the source has.
pub type Lookup = Box<dyn Fn(&str) -> Result<Tensor>>;

/// What to do with a variable that the source lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Loading a checkpoint: tell all of them by name.
    Refuse,
    /// Assembling a new model: draw it by its family's rule, and remember its name.
    Initialize,
}

/// One named tensor of a model, as it is saved.
pub struct Variable {
    pub name: String,
    pub tensor: Tensor,
    /// False for tables that a checkpoint stores but training never changes.
    pub trainable: bool,
    /// True for the weight and the bias of a `LayerNorm`.
    pub norm: bool,
}

/// Owns the variables that the constructors ask for through `Params`.
pub struct Store {
    /// None once the source is closed.
    lookup: RefCell<Option<Lookup>>,
    keys: Vec<String>,
    known: HashSet<String>,
    missing: Missing,
    device: Device,
    kind: Kind,
    packing: Option<Packing>,
    /// None once the source is closed.
    give_back: RefCell<Option<Box<dyn Fn()>>>,
    tally: RefCell<Tally>,
}

#[derive(Default)]
struct Tally {
    variables: Vec<Variable>,
    index: HashMap<String, usize>,
    /// alias -> the variable that holds its value
    aliases: Vec<(String, String)>,
    /// Keys that a constructor looked at and knows to be without influence.
    spare: Vec<String>,
    made: Vec<String>,
    missing: Vec<String>,
    misshapen: Vec<String>,
    /// Whole numbers in the place of weights.
    unfit: Vec<String>,
    warnings: Vec<String>,
    /// Two names that the config makes one hold values of their own.
    untied: bool,
}

impl Store {
    /// A store over a source that has `keys`; variables come as `kind` on `device`.
    pub fn new(
        keys: Vec<String>,
        lookup: Lookup,
        missing: Missing,
        device: Device,
        kind: Kind,
    ) -> Self {
        let known = keys.iter().cloned().collect();
        let lookup = RefCell::new(Some(lookup));
        Store {
            lookup,
            keys,
            known,
            missing,
            device,
            kind,
            packing: None,
            give_back: RefCell::new(None),
            tally: RefCell::default(),
        }
    }

    /// For inference on a CPU alone: matrices of dense layers are packed as they are read, and are no
    /// variables any more, so that the model can be neither trained nor saved.
    pub fn packing(mut self, packing: Packing) -> Self {
        self.packing = Some(packing);
        self
    }

    /// With a way to free the memory of what has been read of the source, which its tensors may go on
    /// using.
    pub fn giving_back(mut self, give_back: Box<dyn Fn()>) -> Self {
        self.give_back = RefCell::new(Some(give_back));
        self
    }

    /// Frees the memory of what has been read of the source.
    pub(super) fn give_back(&self) {
        if let Some(give_back) = &*self.give_back.borrow() {
            give_back();
        }
    }

    /// A store without a source: every variable is drawn by its rule.
    pub fn fresh(device: Device, kind: Kind) -> Self {
        Store::new(
            Vec::new(),
            Box::new(|key| bail!("no tensor {key:?}")),
            Missing::Initialize,
            device,
            kind,
        )
    }

    /// Lets go of the source: every constructor has what it asked for.
    pub fn close(&self) {
        self.lookup.borrow_mut().take();
        self.give_back.borrow_mut().take();
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What matrices become; None while the variables are kept.
    pub fn packs(&self) -> Option<Packing> {
        self.packing
    }

    pub fn missing(&self) -> Missing {
        self.missing
    }

    /// True if the source has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.known.contains(key)
    }

    /// The source's tensor, moved to this store's device and (if it floats) kind.
    pub(super) fn take(&self, key: &str) -> Option<Result<Tensor>> {
        self.has(key).then(|| {
            let lookup = self.lookup.borrow();
            let Some(lookup) = lookup.as_ref() else {
                bail!("tensor {key:?} is asked for too late")
            };
            let tensor = lookup(key)?;
            let kind = if tensor.is_floating_point() { self.kind } else { tensor.kind() };
            Ok(tensor.to_device(self.device).to_kind(kind))
        })
    }

    pub(super) fn add(&self, name: &str, tensor: Tensor, trainable: bool) -> Result<Tensor> {
        let mut tally = self.tally.borrow_mut();
        let place = tally.variables.len();
        if tally.index.insert(name.to_string(), place).is_some() {
            bail!("tensor {name:?} is asked for twice");
        }
        let handle = tensor.shallow_clone();
        tally.variables.push(Variable { name: name.to_string(), tensor, trainable, norm: false });
        Ok(handle)
    }

    /// The value of the variable `name` is held elsewhere, in another form, or by another name.
    pub(super) fn let_go(&self, name: &str) {
        let mut tally = self.tally.borrow_mut();
        let shared = tally.aliases.iter().any(|(_, first)| first == name);
        if let Some(place) = tally.index.get(name).copied().filter(|_| !shared) {
            tally.variables[place].tensor = Tensor::new();
        }
    }

    /// The variable `name` belongs to a `LayerNorm`.
    pub(super) fn note_norm(&self, name: &str) {
        let mut tally = self.tally.borrow_mut();
        if let Some(place) = tally.index.get(name).copied() {
            tally.variables[place].norm = true;
        }
    }

    pub(super) fn note_alias(&self, alias: &str, name: &str) {
        self.tally.borrow_mut().aliases.push((alias.to_string(), name.to_string()));
    }

    pub(super) fn note_spare(&self, key: &str) {
        self.tally.borrow_mut().spare.push(key.to_string());
    }

    pub(super) fn note_made(&self, key: &str) {
        self.tally.borrow_mut().made.push(key.to_string());
    }

    pub(super) fn note_missing(&self, key: &str) {
        self.tally.borrow_mut().missing.push(key.to_string());
    }

    pub(super) fn note_misshapen(&self, key: &str, found: &[i64], wanted: &[i64]) {
        let line = format!("{key:?} is {found:?}, the config asks for {wanted:?}");
        self.tally.borrow_mut().misshapen.push(line);
    }

    pub(super) fn note_unfit(&self, key: &str, found: Kind) {
        self.tally.borrow_mut().unfit.push(format!("{key:?} ({found:?})"));
    }

    pub(super) fn warn(&self, sentence: String) {
        self.tally.borrow_mut().warnings.push(sentence);
    }

    pub(super) fn note_untied(&self) {
        self.tally.borrow_mut().untied = true;
    }

    /// True if the file has two values for what its config ties, and both were kept.
    pub fn untied(&self) -> bool {
        self.tally.borrow().untied
    }

    /// After building: an error that names the tensors that are missing, have the wrong shape or hold whole
    /// numbers instead of weights.
    pub fn check(&self) -> Result<()> {
        let tally = self.tally.borrow();
        if !tally.misshapen.is_empty() {
            bail!(
                "{} of the checkpoint {} the wrong shape: {}",
                count(tally.misshapen.len(), "tensor"),
                if tally.misshapen.len() == 1 { "has" } else { "have" },
                list(&tally.misshapen)
            );
        }
        if !tally.unfit.is_empty() {
            bail!(
                "{} of the checkpoint {} whole numbers where weights belong (quantized models are not \
                 read): {}",
                count(tally.unfit.len(), "tensor"),
                if tally.unfit.len() == 1 { "holds" } else { "hold" },
                list(&tally.unfit)
            );
        }
        if !tally.missing.is_empty() {
            let names: Vec<String> = tally.missing.iter().map(|name| format!("{name:?}")).collect();
            bail!(
                "{} {} missing from the checkpoint: {}",
                count(names.len(), "tensor"),
                if names.len() == 1 { "is" } else { "are" },
                list(&names)
            );
        }
        Ok(())
    }

    /// Keys of the source that no constructor asked for, in the source's order.
    pub fn left_over(&self) -> Vec<String> {
        let tally = self.tally.borrow();
        let known = |key: &str| {
            tally.index.contains_key(key)
                || tally.aliases.iter().any(|(alias, _)| alias == key)
                || tally.spare.iter().any(|spare| spare == key)
        };
        self.keys.iter().filter(|key| !known(key)).cloned().collect()
    }

    /// Names of the variables that were drawn because the source lacks them.
    pub fn made(&self) -> Vec<String> {
        self.tally.borrow().made.clone()
    }

    /// Sentences for the user that are no errors.
    pub fn warnings(&self) -> Vec<String> {
        self.tally.borrow().warnings.clone()
    }

    /// Every variable, in the order of construction; a shared tensor stands once, under its first name.
    /// Those that are packed are left out.
    pub fn variables(&self) -> Vec<Variable> {
        let tally = self.tally.borrow();
        tally
            .variables
            .iter()
            .filter(|v| v.tensor.defined())
            .map(|v| Variable {
                name: v.name.clone(),
                tensor: v.tensor.shallow_clone(),
                trainable: v.trainable,
                norm: v.norm,
            })
            .collect()
    }

    /// (second name, first name) of each tensor that has two.
    pub fn aliases(&self) -> Vec<(String, String)> {
        self.tally.borrow().aliases.clone()
    }
}

fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// The first names, and how many more there are: a sentence must stay one.
pub fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
