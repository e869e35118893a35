//! Text to tokens. Names are lexed here as a whole, because attribute names follow rules of their own.

use crate::{
    field::{Field, Intrinsic, Scope, is_name_char},
    value::Value,
};

/// One token. Texts that need no unescaping are borrowed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    End,
    /// Operators and brackets, longest match.
    Punct(&'static str),
    /// A reserved word.
    Word(&'a str),
    /// Any other identifier.
    Ident(&'a str),
    /// Scope and name, or `scope:intrinsic`.
    Field(Field),
    /// Number, duration or string.
    Literal(Value),
}

impl Token<'_> {
    /// How error messages call the token.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::End => "$end".into(),
            Self::Punct(text) => (*text).into(),
            Self::Word(text) => (*text).into(),
            Self::Ident(_) => "IDENTIFIER".into(),
            Self::Field(Field::Attribute { scope, parent, .. }) => match (parent, scope) {
                (true, _) => "parent.",
                (_, Scope::Any) => ".",
                (_, Scope::Span) => "span.",
                (_, Scope::Resource) => "resource.",
                (_, Scope::Event) => "event.",
                (_, Scope::Link) => "link.",
                (_, Scope::Instrumentation) => "instrumentation.",
            }
            .into(),
            Self::Field(Field::Intrinsic(intrinsic)) => intrinsic.as_str().into(),
            Self::Literal(Value::Str(_)) => "STRING".into(),
            Self::Literal(Value::Int(_)) => "INTEGER".into(),
            Self::Literal(Value::Float(_)) => "FLOAT".into(),
            Self::Literal(_) => "DURATION".into(),
        }
    }
}

/// Longest first within one first character.
const PUNCTUATION: [&str; 35] = [
    "!>>", "!<<", "&>>", "&<<", "!>", "!<", "!~", "!=", "&>", "&<", "&~", "&&", "||", ">>", "<<", ">=", "<=", "=~",
    "{", "}", "(", ")", ",", "|", "=", "<", ">", "+", "-", "*", "/", "%", "^", "!", "~",
];

const WORDS: [&str; 52] = [
    "true",
    "false",
    "nil",
    "ok",
    "error",
    "unset",
    "unspecified",
    "internal",
    "server",
    "client",
    "producer",
    "consumer",
    "duration",
    "name",
    "status",
    "statusMessage",
    "kind",
    "parent",
    "rootName",
    "rootServiceName",
    "rootService",
    "traceDuration",
    "nestedSetLeft",
    "nestedSetRight",
    "nestedSetParent",
    "childCount",
    "id",
    "traceID",
    "spanID",
    "parentID",
    "timeSinceStart",
    "version",
    "count",
    "avg",
    "max",
    "min",
    "sum",
    "by",
    "coalesce",
    "select",
    "with",
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "avg_over_time",
    "sum_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
    "topk",
    "bottomk",
];

#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

/// Byte offset and reason.
pub(crate) type LexError = (usize, String);

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) -> Result<(), LexError> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                match comment.find("*/") {
                    Some(length) => self.at += length + 4,
                    None => return Err((self.at, "comment not terminated".into())),
                }
            } else {
                return Ok(());
            }
        }
    }

    /// The next token and where it starts.
    pub(crate) fn next(&mut self) -> Result<(usize, Token<'a>), LexError> {
        self.skip_space()?;
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok((start, Token::End)) };
        let second_is_digit = rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let token = match first {
            '0'..='9' => Token::Literal(self.number()?),
            '.' if second_is_digit => Token::Literal(self.number()?),
            '.' => {
                self.at += 1;
                Token::Field(self.attribute(Scope::Any, false)?)
            }
            '"' => Token::Literal(Value::Str(self.string()?.into())),
            '`' => match rest[1..].find('`') {
                Some(length) => {
                    self.at += length + 2;
                    Token::Literal(Value::Str(rest[1..=length].replace('\r', "").into()))
                }
                None => return Err((start, "literal not terminated".into())),
            },
            c if c == '_' || c.is_alphabetic() => self.word()?,
            c => match PUNCTUATION.iter().find(|punct| rest.starts_with(**punct)) {
                Some(punct) => {
                    self.at += punct.len();
                    Token::Punct(punct)
                }
                None => return Err((start, format!("syntax error: unexpected character {c:?}"))),
            },
        };
        Ok((start, token))
    }

    fn take_word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn word(&mut self) -> Result<Token<'a>, LexError> {
        let word = self.take_word();
        match self.rest().as_bytes().first() {
            Some(b'.') => {
                let scope = match word {
                    "span" => Some((Scope::Span, false)),
                    "resource" => Some((Scope::Resource, false)),
                    "event" => Some((Scope::Event, false)),
                    "link" => Some((Scope::Link, false)),
                    "instrumentation" => Some((Scope::Instrumentation, false)),
                    "parent" => Some((Scope::Any, true)),
                    _ => None,
                };
                if let Some((mut scope, parent)) = scope {
                    self.at += 1;
                    if parent {
                        for (opener, inner) in [("span.", Scope::Span), ("resource.", Scope::Resource)] {
                            if self.rest().starts_with(opener) {
                                self.at += opener.len();
                                scope = inner;
                                break;
                            }
                        }
                    }
                    return Ok(Token::Field(self.attribute(scope, parent)?));
                }
            }
            Some(b':') if matches!(word, "trace" | "span" | "event" | "link" | "instrumentation") => {
                self.at += 1;
                self.skip_space()?;
                let start = self.at;
                let name = self.take_word();
                return scoped_intrinsic(word, name)
                    .map(|intrinsic| Token::Field(Field::Intrinsic(intrinsic)))
                    .ok_or_else(|| (start, format!("syntax error: unknown intrinsic {word}:{name}")));
            }
            _ => {}
        }
        Ok(if WORDS.contains(&word) { Token::Word(word) } else { Token::Ident(word) })
    }

    /// An attribute name, quoted parts included, right after its scope.
    fn attribute(&mut self, scope: Scope, parent: bool) -> Result<Field, LexError> {
        let start = self.at;
        let rest = self.rest();
        let plain = rest.find(|c: char| !is_name_char(c)).unwrap_or(rest.len());
        self.at += plain;
        if !self.rest().starts_with('"') {
            if plain == 0 {
                return Err((start, "syntax error: unexpected END_ATTRIBUTE, expecting IDENTIFIER".into()));
            }
            return Ok(Field::Attribute { scope, name: rest[..plain].into(), parent });
        }
        let mut name = rest[..plain].to_owned();
        let mut quoted = false;
        let mut chars = self.rest().char_indices();
        let mut end = self.rest().len();
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => quoted = !quoted,
                '\\' if quoted => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => name.push(escaped),
                    _ => return Err((self.at + index, "invalid escape sequence in attribute name".into())),
                },
                c if quoted || is_name_char(c) => name.push(c),
                _ => {
                    end = index;
                    break;
                }
            }
        }
        if quoted {
            return Err((start, "unexpected EOF, expecting \" to close the attribute name".into()));
        }
        if name.is_empty() {
            return Err((start, "syntax error: unexpected END_ATTRIBUTE, expecting IDENTIFIER".into()));
        }
        self.at += end;
        Ok(Field::Attribute { scope, name: name.into(), parent })
    }

    fn number(&mut self) -> Result<Value, LexError> {
        let start = self.at;
        let rest = self.rest();
        let run = rest
            .find(|c: char| {
                !(c.is_ascii_digit() || matches!(c, '.' | 'n' | 's' | 'u' | 'µ' | 'μ' | 'm' | 'h' | 'd' | 'w' | 'y'))
            })
            .unwrap_or(rest.len());
        let candidate = &rest[..run];
        if candidate.contains(|c: char| c.is_alphabetic())
            && let Some(nanos) = prometheus_duration(candidate).or_else(|| go_duration(candidate))
        {
            self.at += run;
            return Ok(Value::Duration(nanos));
        }
        let bytes = rest.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut end = digits(0);
        let mut float = false;
        if bytes.get(end) == Some(&b'.') {
            float = true;
            end += 1;
            end += digits(end);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = bytes.get(end + 1 + sign).map_or(0, |_| digits(end + 1 + sign));
            if exponent > 0 {
                float = true;
                end += 1 + sign + exponent;
            }
        }
        self.at += end;
        let text = &rest[..end];
        if float {
            // `1.` and `.5` are fine for the parser of the standard library too.
            return match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Value::Float(value)),
                _ => Err((start, format!("strconv.ParseFloat: parsing \"{text}\": value out of range"))),
            };
        }
        text.parse()
            .map(Value::Int)
            .ok()
            .ok_or_else(|| (start, format!("strconv.ParseInt: parsing \"{text}\": value out of range")))
    }

    /// A double-quoted string with its escapes; bytes that are not UTF-8 become replacement characters.
    fn string(&mut self) -> Result<String, LexError> {
        let start = self.at;
        let body = &self.rest()[1..];
        let unterminated = || (start, "literal not terminated".to_owned());
        let stop = body.find(['"', '\\', '\n']).ok_or_else(unterminated)?;
        if body.as_bytes()[stop] == b'"' {
            self.at += stop + 2;
            return Ok(body[..stop].to_owned());
        }
        let mut out: Vec<u8> = Vec::with_capacity(body.len().min(256));
        let mut chars = body.char_indices();
        while let Some((index, c)) = chars.next() {
            let bad_escape = || (start + 1 + index, "invalid char escape".to_owned());
            match c {
                '"' => {
                    self.at += index + 2;
                    return Ok(String::from_utf8(out)
                        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()));
                }
                '\n' => return Err(unterminated()),
                '\\' => {
                    let (_, escaped) = chars.next().ok_or_else(unterminated)?;
                    let mut digits = |count: usize, radix: u32, first: u32| -> Option<u32> {
                        let mut code = first;
                        for _ in 0..count {
                            code = code.checked_mul(radix)? + chars.next()?.1.to_digit(radix)?;
                        }
                        Some(code)
                    };
                    let byte = match escaped {
                        'n' => b'\n',
                        't' => b'\t',
                        'r' => b'\r',
                        'a' => 7,
                        'b' => 8,
                        'f' => 12,
                        'v' => 11,
                        '\\' => b'\\',
                        '"' => b'"',
                        'x' => {
                            let code = digits(2, 16, 0).ok_or_else(bad_escape)?;
                            u8::try_from(code).ok().ok_or_else(bad_escape)?
                        }
                        '0'..='7' => {
                            let first = escaped.to_digit(8).unwrap_or(0);
                            let code = digits(2, 8, first).ok_or_else(bad_escape)?;
                            u8::try_from(code).ok().ok_or_else(bad_escape)?
                        }
                        'u' | 'U' => {
                            let count = if escaped == 'u' { 4 } else { 8 };
                            let code = digits(count, 16, 0).and_then(char::from_u32).ok_or_else(bad_escape)?;
                            out.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
                            continue;
                        }
                        _ => return Err(bad_escape()),
                    };
                    out.push(byte);
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Err(unterminated())
    }
}

fn scoped_intrinsic(scope: &str, name: &str) -> Option<Intrinsic> {
    Some(match (scope, name) {
        ("trace", "duration") => Intrinsic::TraceDuration,
        ("trace", "rootName") => Intrinsic::RootName,
        ("trace", "rootService") => Intrinsic::RootServiceName,
        ("trace", "id") => Intrinsic::TraceId,
        ("span", "duration") => Intrinsic::Duration,
        ("span", "name") => Intrinsic::Name,
        ("span", "status") => Intrinsic::Status,
        ("span", "statusMessage") => Intrinsic::StatusMessage,
        ("span", "kind") => Intrinsic::Kind,
        ("span", "id") => Intrinsic::SpanId,
        ("span", "parentID") => Intrinsic::ParentId,
        ("span", "childCount") => Intrinsic::ChildCount,
        ("event", "name") => Intrinsic::EventName,
        ("event", "timeSinceStart") => Intrinsic::EventTimeSinceStart,
        ("link", "traceID") => Intrinsic::LinkTraceId,
        ("link", "spanID") => Intrinsic::LinkSpanId,
        ("instrumentation", "name") => Intrinsic::InstrumentationName,
        ("instrumentation", "version") => Intrinsic::InstrumentationVersion,
        _ => return None,
    })
}

/// Integers with `y w d h m s ms`, each at most once, from large to small.
fn prometheus_duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 86_400_000_000_000),
        ("w", 7 * 86_400_000_000_000),
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
    ];
    let mut rest = text;
    let mut next_unit = 0;
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = rest.get(..digits)?.parse().ok()?;
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &rest[digits..digits + letters];
        let index = UNITS.iter().position(|(name, _)| *name == unit)?;
        if index < next_unit {
            return None;
        }
        next_unit = index + 1;
        total = total.checked_add(count.checked_mul(UNITS[index].1)?)?;
        rest = &rest[digits + letters..];
    }
    Some(total)
}

/// Decimals with `h m s ms us µs ns` in any order.
fn go_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    while !rest.is_empty() {
        let length = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (whole, fraction) = rest[..length].split_once('.').unwrap_or((&rest[..length], ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let after = &rest[length..];
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let unit: i64 = match &after[..letters] {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        // Exactly rather than through a float; digits far below a nanosecond are cut.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let part = fraction.parse::<i128>().ok()? * i128::from(unit) / scale;
            total = total.checked_add(i64::try_from(part).ok()?)?;
        }
        rest = &after[letters..];
    }
    Some(total)
}
