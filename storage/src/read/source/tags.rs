//! Names and values that the dictionaries of a block know.

use vivace_traceql::{FetchError, Field, Intrinsic, Scope};

use super::{
    BlockSource, fetch_error,
    group::Group,
    places::{Place, place},
};
use crate::{
    dedicated::Scope as DedicatedScope,
    read::{cells::lossy, error::Result, rows::RowSet, values::Values},
    schema::AttrLeaves,
    tags::{TagKind, TagNames, TagSet, TagSource, TagValue},
};

impl TagSource for BlockSource {
    fn tag_names(&self, scope: Option<Scope>, names: &mut TagNames) -> std::result::Result<(), FetchError> {
        self.collect_names(scope, names).map_err(fetch_error)
    }

    fn known_values(&self, field: &Field, values: &mut TagSet<TagValue>) -> std::result::Result<bool, FetchError> {
        self.collect_values(field, values).map_err(fetch_error)
    }
}

impl BlockSource {
    fn collect_names(&self, scope: Option<Scope>, names: &mut TagNames) -> Result<()> {
        let columns = self.block().schema().columns();
        let span = &columns.span;
        let scopes: [(Scope, &AttrLeaves); 5] = [
            (Scope::Resource, &columns.resource.attrs),
            (Scope::Instrumentation, &columns.scope.attrs),
            (Scope::Span, &span.attrs),
            (Scope::Event, &span.events.attrs),
            (Scope::Link, &span.links.attrs),
        ];
        for number in self.groups() {
            let mut group = Group::open(self.block(), number)?;
            for (of, leaves) in scopes.iter().filter(|(of, _)| scope.is_none_or(|wanted| wanted == *of)) {
                each_text(&mut group, leaves.key, |key| names.insert(*of, &lossy(key)))?;
                self.own_columns(&mut group, *of, names)?;
            }
            if names.is_full() {
                break;
            }
        }
        Ok(())
    }

    /// Attributes that have columns of their own.
    fn own_columns(&self, group: &mut Group<'_>, scope: Scope, names: &mut TagNames) -> Result<()> {
        let columns = self.block().schema().columns();
        let (dedicated, fixed, of) = match scope {
            Scope::Resource => (&columns.resource.dedicated, &columns.resource.fixed[..], DedicatedScope::Resource),
            Scope::Span => (&columns.span.dedicated, &columns.span.fixed[..], DedicatedScope::Span),
            Scope::Event => (&columns.span.events.dedicated, &[][..], DedicatedScope::Event),
            Scope::Link | Scope::Instrumentation | Scope::Any => return Ok(()),
        };
        let list = &self.block().meta().dedicated_columns.0;
        let dedicated = dedicated.iter().filter_map(|leaf| Some((list.get(leaf.position)?, leaf.leaf)));
        let dedicated = dedicated.filter(|(column, _)| column.scope == of).map(|(column, leaf)| (&*column.name, leaf));
        for (name, leaf) in fixed.iter().copied().chain(dedicated) {
            if !group.is_empty(leaf)? {
                names.insert(scope, name);
            }
        }
        if scope == Scope::Resource {
            let mut has_service = false;
            each_text(group, columns.resource.service, |service| has_service |= !service.is_empty())?;
            if has_service {
                names.insert(scope, "service.name");
            }
        }
        Ok(())
    }

    fn collect_values(&self, field: &Field, values: &mut TagSet<TagValue>) -> Result<bool> {
        let leaf = match place(self.block(), field) {
            Place::Row(leaf) | Place::Required(_, leaf) | Place::Child(_, leaf)
                if !matches!(field, Field::Intrinsic(Intrinsic::StatusMessage)) =>
            {
                leaf
            }
            Place::Attribute { generic, direct: Some(direct), .. } => {
                // Values of other types stand in the list, and so could values of this one.
                for number in self.groups() {
                    let mut group = Group::open(self.block(), number)?;
                    let mut listed = false;
                    each_text(&mut group, generic.leaves.key, |key| listed |= *key == *generic.name)?;
                    if listed {
                        return Ok(false);
                    }
                }
                direct.leaf
            }
            _ => return Ok(false),
        };
        for number in self.groups() {
            let mut group = Group::open(self.block(), number)?;
            if !group.is_empty(leaf)? && group.dictionary(leaf)?.is_none() {
                return Ok(false);
            }
        }
        for number in self.groups() {
            let mut group = Group::open(self.block(), number)?;
            each_text(&mut group, leaf, |text| {
                if !text.is_empty() {
                    let value = lossy(text).into_owned();
                    let bytes = value.len();
                    values.insert(TagValue { kind: TagKind::String, value }, bytes);
                }
            })?;
            if values.is_full() {
                break;
            }
        }
        Ok(true)
    }
}

/// The distinct texts of a column: its dictionary, or without one all its values.
fn each_text(group: &mut Group<'_>, leaf: usize, mut each: impl FnMut(&[u8])) -> Result<()> {
    if group.is_empty(leaf)? {
        return Ok(());
    }
    if let Some(Values::Bytes(entries)) = group.dictionary(leaf)?.as_deref() {
        entries.iter().for_each(each);
        return Ok(());
    }
    group.pages(leaf, &RowSet::all(group.rows), |page| {
        if let Values::Bytes(values) = &page.values {
            values.iter().for_each(&mut each);
        }
        Ok(())
    })
}
