//! The filter as such, and digests against all that stands in traces, however it is written.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use vivace_protocol::TraceId;

use super::*;

/// An attribute, and how it is written.
#[derive(Debug, Clone)]
struct Attribute {
    name: String,
    value: Kind,
    form: Form,
}

#[derive(Debug, Clone)]
enum Kind {
    Text(String),
    Int(i64),
    Bool(bool),
    Float(f64),
    Texts(Vec<String>),
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Usual,
    ValueFirst,
    /// Before the others are another name and another value.
    Twice,
    /// A field that nobody knows between name and value.
    Between,
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let text = || prop_oneof!["[a-c]{0,2}", "[ab]{120,140}"];
    let value = prop_oneof![
        4 => text().prop_map(Kind::Text),
        2 => prop_oneof![-2..3i64, any::<i64>()].prop_map(Kind::Int),
        1 => any::<bool>().prop_map(Kind::Bool),
        1 => any::<f64>().prop_map(Kind::Float),
        1 => vec(text(), 0..3).prop_map(Kind::Texts),
        1 => Just(Kind::Nothing),
    ];
    let forms = vec![Form::Usual, Form::Usual, Form::ValueFirst, Form::Twice, Form::Between];
    let parts = (prop_oneof!["[k-m]{1,2}", "k{130}"], value, proptest::sample::select(forms));
    parts.prop_map(|(name, value, form)| Attribute { name, value, form })
}

fn field(key: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![key];
    vivace_protocol::wire::put_varint(&mut out, content.len() as u64);
    out.extend_from_slice(content);
    out
}

impl Kind {
    fn encoded(&self) -> Vec<u8> {
        let int = |key, value: u64| {
            let mut out = vec![key];
            vivace_protocol::wire::put_varint(&mut out, value);
            out
        };
        match self {
            Self::Text(text) => field(0x0a, text.as_bytes()),
            Self::Int(value) => int(0x18, value.cast_unsigned()),
            Self::Bool(value) => int(0x10, u64::from(*value)),
            Self::Float(value) => [vec![0x21], value.to_le_bytes().to_vec()].concat(),
            Self::Texts(texts) => field(
                0x2a,
                &texts.iter().flat_map(|text| field(0x0a, &field(0x0a, text.as_bytes()))).collect::<Vec<_>>(),
            ),
            Self::Nothing => Vec::new(),
        }
    }

    fn values(&self) -> Vec<Value> {
        match self {
            Self::Text(text) => vec![Value::str(text)],
            Self::Int(value) => vec![Value::Int(*value)],
            Self::Bool(value) => vec![Value::Bool(*value)],
            Self::Texts(texts) => texts.iter().map(|text| Value::str(text)).collect(),
            Self::Float(_) | Self::Nothing => Vec::new(),
        }
    }
}

impl Attribute {
    fn encoded(&self) -> Vec<u8> {
        let (name, value) = (field(0x0a, self.name.as_bytes()), field(0x12, &self.value.encoded()));
        match self.form {
            Form::Usual => [name, value].concat(),
            Form::ValueFirst => [value, name].concat(),
            Form::Twice => [field(0x0a, b"other"), field(0x12, &[0x10, 1]), name, value].concat(),
            Form::Between => [name, field(0x7a, b"?"), value].concat(),
        }
    }
}

/// Where attributes stand: resource, instrumentation scope, span, event, link.
type Places = [Vec<Attribute>; 5];

fn span(places: &Places, name: &str) -> Vec<u8> {
    let all = |key, place: usize| places[place].iter().flat_map(|own| field(key, &own.encoded())).collect::<Vec<_>>();
    let event = field(0x5a, &[field(0x12, b"happened"), all(0x1a, 3)].concat());
    let span = [
        field(0x2a, name.as_bytes()),
        all(0x4a, 2),
        event,
        field(0x6a, &all(0x22, 4)),
        field(0x7a, &field(0x12, b"bad")),
    ];
    let scope = field(0x0a, &[field(0x0a, b"library"), field(0x12, b"1.2"), all(0x1a, 1)].concat());
    let scope_spans = field(0x12, &[scope, field(0x12, &span.concat())].concat());
    field(0x0a, &[field(0x0a, &all(0x0a, 0)), scope_spans].concat())
}

proptest! {
    #[test]
    fn what_stands_in_traces_is_never_denied(
        spans in vec((proptest::array::uniform5(vec(attribute(), 0..4)), "[xy]{0,2}"), 1..12),
        again in 1..3usize,
        room in 0..20_000u64,
    ) {
        let traces: Vec<_> = (0..again).flat_map(|_| &spans).enumerate().map(|(number, (places, name))| {
            LiveTrace::new(TraceId((number as u128).to_be_bytes()), vec![Bytes::from(span(places, name))])
        }).collect();
        let digest = Digest::of(traces.iter(), room).unwrap();
        let texts = [
            (Intrinsic::EventName, "happened"),
            (Intrinsic::StatusMessage, "bad"),
            (Intrinsic::InstrumentationName, "library"),
            (Intrinsic::InstrumentationVersion, "1.2"),
        ];
        for (field, text) in texts {
            prop_assert!(digest.may_hold(Mark::of_text(field, text.as_bytes())), "{text}");
        }
        for (places, name) in &spans {
            prop_assert!(digest.may_hold(Mark::of_text(Intrinsic::Name, name.as_bytes())) || name.is_empty(), "{name}");
            for attribute in places.iter().flatten() {
                let mut names = vec![attribute.name.as_str()];
                names.extend((attribute.form == Form::Twice).then_some("other"));
                for name in names {
                    prop_assert!(digest.may_hold(Mark::of_name(name.as_bytes())), "{attribute:?}");
                    for value in attribute.value.values() {
                        let mark = Mark::of_attribute(name.as_bytes(), &value).unwrap();
                        prop_assert!(digest.may_hold(mark), "{attribute:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn it_is_never_larger_than_its_part_of_the_traces() {
    for (bytes, most) in [(0, 32), (31, 32), (64, 64), (95, 64), (1 << 20, 1 << 20)] {
        assert_eq!(Digest::within(bytes).bytes(), most, "{bytes}");
    }
}

#[test]
fn what_was_put_in_is_found_and_little_else_is() {
    let marks = |from: i64| (from..from + 5000).filter_map(|n| Mark::of_attribute(b"k", &Value::Int(n)));
    let mut digest = Digest::within(1 << 20);
    let entries = marks(0).chain(marks(0)).filter(|mark| digest.insert(*mark)).count();
    assert!((4900..=5000).contains(&entries), "{entries}");
    let digest = digest.fit(entries);
    assert!((5000 * ENTRY_BITS..5000 * ENTRY_BITS * 2).contains(&(digest.bytes() * 8)), "{}", digest.bytes());
    assert!(marks(0).all(|mark| digest.may_hold(mark)));
    let wrong = marks(1 << 40).filter(|mark| digest.may_hold(*mark)).count();
    assert!(wrong < 100, "{wrong} of 5000");
}

#[test]
fn values_of_other_types_and_names_are_others() {
    let of = |name: &str, value: Value| Mark::of_attribute(name.as_bytes(), &value).unwrap();
    let all = [
        of("a", Value::str("1")),
        of("a", Value::Int(1)),
        of("a", Value::Bool(true)),
        of("b", Value::str("1")),
        Mark::of_name(b"a"),
        Mark::of_text(Intrinsic::Name, b"1"),
        Mark::of_text(Intrinsic::EventName, b"1"),
    ];
    for (at, mark) in all.iter().enumerate() {
        assert!(!all[..at].contains(mark), "{at}");
    }
    assert_eq!(Mark::of_attribute(b"a", &Value::Float(1.0)), None);
}
