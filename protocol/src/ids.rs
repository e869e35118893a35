//! Identifiers: trace, span, tenant.

use std::fmt;
use std::sync::{Arc, LazyLock};

/// The 16 bytes of a trace id.
///
/// Orders as the bytes do, which is also the order of the hex form. `Display` writes 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

/// The 8 bytes of a span id. `Display` writes 16 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub [u8; 8]);

/// Why a text is no trace id. The texts are part of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceIdError {
    /// Anything but `0-9a-fA-F`; the position counts bytes from one.
    #[error("trace IDs can only contain hex characters: invalid character '{found}' at position {position}")]
    NotHex { found: char, position: usize },
    #[error("trace IDs can't be larger than 128 bits")]
    TooLong,
}

impl TraceId {
    /// Reads hex digits of any case. Fewer than 32 digits, also an odd number, are padded with zeros on the left; no digit at all
    /// is the zero id.
    ///
    /// # Errors
    /// A character that is no hex digit is reported before the length is.
    pub fn parse_hex(text: &str) -> Result<Self, TraceIdError> {
        if let Some((at, found)) = text.char_indices().find(|(_, c)| !c.is_ascii_hexdigit()) {
            return Err(TraceIdError::NotHex { found, position: at + 1 });
        }
        if text.len() > 32 {
            return Err(TraceIdError::TooLong);
        }
        // At most 32 hex digits always fit; the empty text is the only one that is refused.
        Ok(Self(u128::from_str_radix(text, 16).unwrap_or(0).to_be_bytes()))
    }

    /// The id in `bytes`, if there are exactly 16 of them.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The id as raw bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether all bytes are zero, which no trace may use.
    pub fn is_zero(&self) -> bool {
        u128::from_ne_bytes(self.0) == 0
    }

    /// Hex without leading zeros, the form of search answers. The zero id is `0`.
    pub fn short_hex(&self) -> String {
        format!("{:x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SpanId {
    /// The id in `bytes`, if there are exactly 8 of them.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The id as raw bytes.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// Whether all bytes are zero: no span, or as a parent, none.
    pub fn is_zero(&self) -> bool {
        u64::from_ne_bytes(self.0) == 0
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A checked tenant id; cloning is a reference count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// Why a header names no tenant. The texts are part of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantIdError {
    #[error("no org id")]
    Missing,
    #[error("tenant ID '{tenant}' contains unsupported character '{found}'")]
    Unsupported { tenant: String, found: char },
    #[error("tenant ID is too long: max 150 characters")]
    TooLong,
    #[error("tenant ID is '.' or '..'")]
    Dots,
    /// Several different tenants where only one is possible.
    #[error("multiple org IDs present")]
    Multiple,
}

impl TenantId {
    /// The tenant of everything when multitenancy is off.
    pub const SINGLE: &'static str = "single-tenant";
    /// The header (and in lower case, gRPC metadata key) that names the tenant.
    pub const HEADER: &'static str = "X-Scope-OrgID";
    const MAX_BYTES: usize = 150;

    /// [`TenantId::SINGLE`], without allocating.
    pub fn single() -> Self {
        static SINGLE: LazyLock<TenantId> = LazyLock::new(|| TenantId(Arc::from(TenantId::SINGLE)));
        SINGLE.clone()
    }

    /// Reads the value of the tenant header where exactly one tenant is possible, as on writes.
    ///
    /// A list joined by `|` is accepted if all its parts are the same tenant. What follows a `:` in a part is metadata and
    /// ignored.
    ///
    /// # Errors
    /// An empty value, a value that breaks the rules for ids, or different tenants in one list.
    pub fn parse(header: &str) -> Result<Self, TenantIdError> {
        let mut parts = header.split('|');
        let first = Self::checked(parts.next().unwrap_or_default())?;
        for part in parts {
            if Self::checked(part)? != first {
                return Err(TenantIdError::Multiple);
            }
        }
        Ok(Self(Arc::from(first)))
    }

    /// Reads the value of the tenant header of a query: one tenant or several joined by `|`, answered sorted and without
    /// duplicates, never empty.
    ///
    /// # Errors
    /// As [`TenantId::parse`], except that different tenants are fine.
    pub fn parse_list(header: &str) -> Result<Vec<Self>, TenantIdError> {
        let mut tenants = header
            .split('|')
            .map(|part| Self::checked(part).map(|t| Self(Arc::from(t))))
            .collect::<Result<Vec<_>, _>>()?;
        tenants.sort();
        tenants.dedup();
        Ok(tenants)
    }

    /// The tenant as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn checked(part: &str) -> Result<&str, TenantIdError> {
        let tenant = part.split_once(':').map_or(part, |(tenant, _metadata)| tenant);
        if tenant.is_empty() {
            return Err(TenantIdError::Missing);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
        if let Some(found) = tenant.chars().find(|c| !allowed(*c)) {
            return Err(TenantIdError::Unsupported { tenant: tenant.to_owned(), found });
        }
        if tenant.len() > Self::MAX_BYTES {
            return Err(TenantIdError::TooLong);
        }
        if tenant == "." || tenant == ".." {
            return Err(TenantIdError::Dots);
        }
        Ok(tenant)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl AsRef<str> for TenantId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_odd_trace_ids_are_padded_on_the_left() {
        let id = TraceId::parse_hex("aBc").unwrap();
        assert_eq!(id.to_string(), "00000000000000000000000000000abc");
        assert_eq!(id.short_hex(), "abc");
        assert_eq!(TraceId::parse_hex(&"f".repeat(32)).unwrap().0, [0xff; 16]);
        assert!(TraceId::parse_hex("").unwrap().is_zero());
    }

    #[test]
    fn bad_trace_ids_are_refused_with_the_texts_of_the_api() {
        assert_eq!(
            TraceId::parse_hex("xyz").unwrap_err().to_string(),
            "trace IDs can only contain hex characters: invalid character 'x' at position 1"
        );
        assert_eq!(TraceId::parse_hex("a+").unwrap_err(), TraceIdError::NotHex { found: '+', position: 2 });
        assert_eq!(TraceId::parse_hex("+a").unwrap_err(), TraceIdError::NotHex { found: '+', position: 1 });
        assert_eq!(
            TraceId::parse_hex(&"0".repeat(33)).unwrap_err().to_string(),
            "trace IDs can't be larger than 128 bits"
        );
    }

    #[test]
    fn tenants_follow_the_rules_for_characters_and_length() {
        assert_eq!(TenantId::parse("Team-1!_.*'()").unwrap().as_str(), "Team-1!_.*'()");
        assert_eq!(TenantId::parse("a:k=v").unwrap().as_str(), "a");
        assert_eq!(TenantId::parse(&"a".repeat(150)).unwrap().as_str().len(), 150);
        assert_eq!(
            TenantId::parse(&"a".repeat(151)).unwrap_err().to_string(),
            "tenant ID is too long: max 150 characters"
        );
        assert_eq!(TenantId::parse("").unwrap_err().to_string(), "no org id");
        assert_eq!(TenantId::parse("..").unwrap_err().to_string(), "tenant ID is '.' or '..'");
        assert_eq!(
            TenantId::parse("a b").unwrap_err().to_string(),
            "tenant ID 'a b' contains unsupported character ' '"
        );
    }

    #[test]
    fn a_list_is_one_tenant_on_writes_only_if_all_parts_agree() {
        assert_eq!(TenantId::parse("a|a:x=y").unwrap().as_str(), "a");
        assert_eq!(TenantId::parse("a|b").unwrap_err().to_string(), "multiple org IDs present");
        let list = TenantId::parse_list("b|a|b").unwrap();
        assert_eq!(list.iter().map(TenantId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(TenantId::parse_list("a|").unwrap_err(), TenantIdError::Missing);
    }
}
