//! Which fields of OTLP messages hold attributes and texts: for walks over all that is stored, whatever it is.

use vivace_protocol::wire::{Reader, WireError};
use vivace_traceql::{Intrinsic, Scope};

use super::any::{self, GROUP_DEPTH};

/// Is told what a trace holds, in its order.
pub(super) trait Visitor<'a> {
    /// Whether a resource or an instrumentation scope need not be looked into: it was shown before, byte for byte.
    fn is_known(&mut self, _of: Scope, _message: &'a [u8]) -> bool {
        false
    }

    /// An encoded attribute.
    fn key_value(&mut self, scope: Scope, message: &'a [u8]) -> Result<(), WireError> {
        let (name, value) = any::key_value(message)?;
        self.attribute(scope, name, value)
    }

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
    /// Whose attributes they are, where the same message often comes again.
    again: Option<Scope>,
    attributes: Option<(u32, Scope)>,
    texts: &'static [(u32, Intrinsic)],
    children: &'static [(u32, &'static Shape)],
}

const NOTHING: Shape = Shape { again: None, attributes: None, texts: &[], children: &[] };

static EVENT: Shape =
    Shape { attributes: Some((0x1a, Scope::Event)), texts: &[(0x12, Intrinsic::EventName)], ..NOTHING };
static LINK: Shape = Shape { attributes: Some((0x22, Scope::Link)), ..NOTHING };
static STATUS: Shape = Shape { texts: &[(0x12, Intrinsic::StatusMessage)], ..NOTHING };
static SPAN: Shape = Shape {
    attributes: Some((0x4a, Scope::Span)),
    texts: &[(0x2a, Intrinsic::Name)],
    children: &[(0x5a, &EVENT), (0x6a, &LINK), (0x7a, &STATUS)],
    ..NOTHING
};
static INSTRUMENTATION: Shape = Shape {
    again: Some(Scope::Instrumentation),
    attributes: Some((0x1a, Scope::Instrumentation)),
    texts: &[(0x0a, Intrinsic::InstrumentationName), (0x12, Intrinsic::InstrumentationVersion)],
    ..NOTHING
};
static SCOPE_SPANS: Shape = Shape { children: &[(0x0a, &INSTRUMENTATION), (0x12, &SPAN)], ..NOTHING };
static RESOURCE: Shape = Shape { again: Some(Scope::Resource), attributes: Some((0x0a, Scope::Resource)), ..NOTHING };
static RESOURCE_SPANS: Shape = Shape { children: &[(0x0a, &RESOURCE), (0x12, &SCOPE_SPANS)], ..NOTHING };
static TRACE: Shape = Shape { children: &[(0x0a, &RESOURCE_SPANS)], ..NOTHING };

fn message<'a>(message: &'a [u8], shape: &Shape, visitor: &mut impl Visitor<'a>) -> Result<(), WireError> {
    if shape.again.is_some_and(|of| visitor.is_known(of, message)) {
        return Ok(());
    }
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        if let Some((attribute, scope)) = shape.attributes
            && key == attribute
        {
            visitor.key_value(scope, reader.bytes()?)?;
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
