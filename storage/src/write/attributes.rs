//! Puts attributes into the columns of their scope.

use super::{
    any_value::{AnyValue, Elements, KeyValue, Scalar, elements, for_each},
    keys::{Destination, Keys},
    node::{Holds, Node, Presence},
};
use crate::dedicated::ValueType;

/// Leaves of a list of attributes within its node, in file order.
const KEY: usize = 0;
const IS_ARRAY: usize = 1;
const TEXT: usize = 2;
const INT: usize = 3;
const DOUBLE: usize = 4;
const BOOL: usize = 5;
const UNSUPPORTED: usize = 6;

/// Presence of each leaf of a list of attributes, in file order.
pub(super) fn presences() -> [Presence; 7] {
    [
        Presence::Always,
        Presence::Always,
        Presence::Where(Holds::Text),
        Presence::Where(Holds::Int),
        Presence::Where(Holds::Double),
        Presence::Where(Holds::Bool),
        Presence::Where(Holds::Unsupported),
    ]
}

/// Dedicated columns a scope has at most.
pub(super) const MAX_DEDICATED: usize = 25;

/// What goes to the dedicated columns of one owner; of a key that occurs twice, the last value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dedicated<'a> {
    values: [AnyValue<'a>; MAX_DEDICATED],
    used: u32,
}

impl<'a> Dedicated<'a> {
    pub(super) fn none() -> Self {
        Self { values: [AnyValue::Unset; MAX_DEDICATED], used: 0 }
    }

    /// Appends an entry to each of the dedicated columns of `owner`, which begin at its leaf `first`.
    pub(super) fn put(&self, owner: &mut Node, first: usize) {
        let entry = owner.entries() - 1;
        for (column, chunk) in owner.chunks[first..].iter_mut().enumerate() {
            let present = self.used & 1 << column != 0;
            if let Presence::Own(flags) = &mut chunk.presence {
                flags.push(u8::from(present));
            }
            if !present {
                continue;
            }
            match self.values[column] {
                AnyValue::Text(text) => chunk.values.push_text(text),
                AnyValue::Int(int) => chunk.values.push_i64(int),
                AnyValue::Array(array) => {
                    let mut count = 0;
                    for_each(array, |item| {
                        count += 1;
                        match item {
                            AnyValue::Text(text) => chunk.values.push_text(text),
                            AnyValue::Int(int) => chunk.values.push_i64(int),
                            _ => unreachable!("only arrays of the column's type are kept"),
                        }
                    });
                    chunk.add_more(entry, count - 1);
                }
                _ => unreachable!("only values of the column's type are kept"),
            }
        }
    }
}

/// Whether a value can be stored in a dedicated column of this type.
fn fits(value: AnyValue<'_>, column: ValueType) -> bool {
    let wanted = match column {
        ValueType::String => Scalar::Text,
        ValueType::Int => Scalar::Int,
    };
    match value {
        AnyValue::Text(_) => wanted == Scalar::Text,
        AnyValue::Int(_) => wanted == Scalar::Int,
        // An empty array has no type; as a generic attribute it survives.
        AnyValue::Array(array) => matches!(elements(array), Elements::All(kind, _) if kind == wanted),
        _ => false,
    }
}

/// The service name that goes to the resource's own column.
fn service<'a>(value: AnyValue<'a>, taken: Option<&[u8]>) -> Option<&'a [u8]> {
    match value {
        AnyValue::Text(text) if taken.is_none() => Some(text),
        _ => None,
    }
}

/// Puts the attributes of one owner, given as encoded `KeyValue`s, into `node`; `rep` and `def` are the levels of the
/// owner's entry. Values for dedicated columns and the service name are handed back instead. Damaged attributes are left
/// out and counted.
pub(super) fn put<'a>(
    attributes: &[&'a [u8]],
    keys: &mut Keys,
    node: &mut Node,
    (rep, def): (u8, u8),
    dedicated: &mut Dedicated<'a>,
    damaged: &mut u64,
) -> Option<&'a [u8]> {
    let (mut next_rep, mut name) = (rep, None);
    let before = node.entries();
    for (position, attribute) in attributes.iter().enumerate() {
        let Ok(KeyValue { key, value }) = KeyValue::parse(attribute) else {
            *damaged += 1;
            continue;
        };
        let (key, destination) = keys.find(position, key);
        match destination {
            Destination::Dedicated(column, value_type) if fits(value, value_type) => {
                dedicated.values[column] = value;
                dedicated.used |= 1 << column;
                continue;
            }
            Destination::Service => {
                if let Some(text) = service(value, name) {
                    name = Some(text);
                    continue;
                }
            }
            Destination::Generic | Destination::Dedicated(..) => {}
        }
        let chunk = &mut node.chunks[KEY];
        let number = keys.number(key, |key| chunk.values.intern(key));
        chunk.values.push_id(number);
        put_value(value, node, next_rep);
        next_rep = node.depth();
    }
    if node.entries() == before {
        node.skip_holding(rep, def);
    }
    name
}

fn put_value(value: AnyValue<'_>, node: &mut Node, rep: u8) {
    let mut is_array = false;
    let holds = match value {
        AnyValue::Text(text) => {
            node.chunks[TEXT].values.push_text(text);
            Holds::Text
        }
        AnyValue::Int(int) => {
            node.chunks[INT].values.push_i64(int);
            Holds::Int
        }
        AnyValue::Double(double) => {
            node.chunks[DOUBLE].values.push_double(double);
            Holds::Double
        }
        AnyValue::Bool(bool) => {
            node.chunks[BOOL].values.push_bool(bool);
            Holds::Bool
        }
        AnyValue::Array(array) => match elements(array) {
            Elements::None => {
                is_array = true;
                Holds::Nothing
            }
            Elements::All(kind, count) => {
                is_array = true;
                put_array(array, kind, count, node)
            }
            Elements::Mixed => put_unsupported(value, node),
        },
        AnyValue::Unset | AnyValue::Map(_) | AnyValue::Bytes(_) => put_unsupported(value, node),
    };
    node.chunks[IS_ARRAY].values.push_bool(is_array);
    node.enter_holding(rep, holds);
}

fn put_array(array: &[u8], kind: Scalar, count: usize, node: &mut Node) -> Holds {
    let entry = node.entries();
    let (leaf, holds) = match kind {
        Scalar::Text => (TEXT, Holds::Text),
        Scalar::Int => (INT, Holds::Int),
        Scalar::Double => (DOUBLE, Holds::Double),
        Scalar::Bool => (BOOL, Holds::Bool),
    };
    let chunk = &mut node.chunks[leaf];
    for_each(array, |item| match item {
        AnyValue::Text(text) => chunk.values.push_text(text),
        AnyValue::Int(int) => chunk.values.push_i64(int),
        AnyValue::Double(double) => chunk.values.push_double(double),
        AnyValue::Bool(bool) => chunk.values.push_bool(bool),
        _ => unreachable!("all elements are of one typed kind"),
    });
    chunk.add_more(entry, count - 1);
    holds
}

fn put_unsupported(value: AnyValue<'_>, node: &mut Node) -> Holds {
    let mut json = Vec::new();
    value.put_json(&mut json);
    node.chunks[UNSUPPORTED].values.push_text(&json);
    Holds::Unsupported
}
