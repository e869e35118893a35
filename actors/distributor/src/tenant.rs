//! Which tenant a request belongs to.

use http::HeaderMap;
use vivace_protocol::{Error, TenantId};

/// What names the tenants of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tenancy {
    /// Multitenancy is off: everything belongs to `single-tenant`, and the header is not looked at.
    Single,
    /// The header, exactly once.
    Header,
}

impl Tenancy {
    /// The tenant of a request with these headers.
    ///
    /// # Errors
    /// No header or several: `no org id`, and the sender may try again, as it may after an upstream proxy was away that adds
    /// the header. A value that is empty or breaks the rules: the request is wrong and stays so.
    pub(crate) fn of(self, headers: &HeaderMap) -> Result<TenantId, Error> {
        if self == Self::Single {
            return Ok(TenantId::single());
        }
        let mut values = headers.get_all(TenantId::HEADER).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => {
                // What is not UTF-8 is not ASCII either; the replacement character is refused like any other.
                TenantId::parse(&String::from_utf8_lossy(value.as_bytes()))
                    .map_err(|e| Error::fix_request(e.to_string()))
            }
            _ => Err(Error::retry("no org id")),
        }
    }
}

/// Whether spans of this request are left out by the metrics generator.
pub(crate) fn skip_metrics(headers: &HeaderMap) -> bool {
    headers.contains_key("no-generate-metrics")
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use vivace_protocol::Kind;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-scope-orgid", HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn refusal(values: &[&[u8]]) -> (Kind, String) {
        let error = Tenancy::Header.of(&headers(values)).unwrap_err();
        (error.kind(), error.message().to_owned())
    }

    #[test]
    fn without_multitenancy_the_header_is_ignored() {
        for values in [&[][..], &[&b"a b"[..]], &[b"a", b"b"]] {
            assert_eq!(Tenancy::Single.of(&headers(values)).unwrap().as_str(), "single-tenant");
        }
    }

    #[test]
    fn exactly_one_good_value_names_the_tenant() {
        assert_eq!(Tenancy::Header.of(&headers(&[b"team-1"])).unwrap().as_str(), "team-1");
        assert_eq!(Tenancy::Header.of(&headers(&[b"a|a"])).unwrap().as_str(), "a");
        assert_eq!(refusal(&[]), (Kind::Retry, "no org id".into()));
        assert_eq!(refusal(&[b"a", b"b"]), (Kind::Retry, "no org id".into()));
        assert_eq!(refusal(&[b""]), (Kind::FixRequest, "no org id".into()));
        assert_eq!(refusal(&[b"a|b"]), (Kind::FixRequest, "multiple org IDs present".into()));
        assert_eq!(refusal(&[b"a b"]).1, "tenant ID 'a b' contains unsupported character ' '");
        assert_eq!(refusal(b"\xff".chunks(1).collect::<Vec<_>>().as_slice()).0, Kind::FixRequest);
    }
}
