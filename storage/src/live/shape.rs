//! Which fields of OTLP messages hold attributes and texts: for walks over all that is stored, whatever it is.

use vivace_protocol::wire::{Reader, WireError};
use vivace_traceql::{Intrinsic, Scope};

use super::any::{self, GROUP_DEPTH};

/// Is told what a trace holds, in its order.
pub(super) trait Visitor<'a> {
    /// An attribute; the value is encoded.
    fn attribute(&mut self, scope: Scope, name: &'a [u8], value: &'a [u8]) -> Result<(), WireError>;

    /// A text that is no attribute.
    fn text(&mut self, field: Intrinsic, text: &'a [u8]);
}

/// Shows all that an encoded `tempopb.Trace` holds.
pub(super) fn visit<'a>(trace: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), WireError> {
    message(trace, &TRACE, visitor)
}

/// A message kind: which fields are attributes of which scope, which are texts, and which lead to further messages.
struct Shape {
    attributes: Option<(u32, Scope)>,
    texts: &'static [(u32, Intrinsic)],
    children: &'static [(u32, &'static Shape)],
}

const NOTHING: Shape = Shape { attributes: None, texts: &[], children: &[] };

static EVENT: Shape =
    Shape { attributes: Some((0x1a, Scope::Event)), texts: &[(0x12, Intrinsic::EventName)], ..NOTHING };
static LINK: Shape = Shape { attributes: Some((0x22, Scope::Link)), ..NOTHING };
static STATUS: Shape = Shape { texts: &[(0x12, Intrinsic::StatusMessage)], ..NOTHING };
static SPAN: Shape = Shape {
    attributes: Some((0x4a, Scope::Span)),
    texts: &[(0x2a, Intrinsic::Name)],
    children: &[(0x5a, &EVENT), (0x6a, &LINK), (0x7a, &STATUS)],
};
static INSTRUMENTATION: Shape = Shape {
    attributes: Some((0x1a, Scope::Instrumentation)),
    texts: &[(0x0a, Intrinsic::InstrumentationName), (0x12, Intrinsic::InstrumentationVersion)],
    ..NOTHING
};
static SCOPE_SPANS: Shape = Shape { children: &[(0x0a, &INSTRUMENTATION), (0x12, &SPAN)], ..NOTHING };
static RESOURCE: Shape = Shape { attributes: Some((0x0a, Scope::Resource)), ..NOTHING };
static RESOURCE_SPANS: Shape = Shape { children: &[(0x0a, &RESOURCE), (0x12, &SCOPE_SPANS)], ..NOTHING };
static TRACE: Shape = Shape { children: &[(0x0a, &RESOURCE_SPANS)], ..NOTHING };

fn message<'a>(message: &'a [u8], shape: &Shape, visitor: &mut impl Visitor<'a>) -> Result<(), WireError> {
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        if let Some((attribute, scope)) = shape.attributes
            && key == attribute
        {
            let (name, value) = any::key_value(reader.bytes()?)?;
            visitor.attribute(scope, name, value)?;
        } else if let Some((_, child)) = shape.children.iter().find(|(field, _)| *field == key) {
            self::message(reader.bytes()?, child, visitor)?;
        } else if let Some((_, field)) = shape.texts.iter().find(|(field, _)| *field == key) {
            visitor.text(*field, reader.bytes()?);
        } else {
            reader.skip(key, GROUP_DEPTH)?;
        }
    }
    Ok(())
}
