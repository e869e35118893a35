//! Requests from pages of other origins, as the CORS protocol of the Fetch standard has it.

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::CorsConfig;

/// The permission that is configured.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    origins: Vec<String>,
    headers: Vec<String>,
    exposed: Option<HeaderValue>,
    max_age: u64,
}

/// What it means for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    preflight: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Judged {
    /// Whether the request only asks for permission: it is answered by that alone.
    pub(crate) fn is_preflight(&self) -> bool {
        self.preflight
    }

    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        for (name, value) in self.headers {
            headers.append(name, value);
        }
    }
}

impl Cors {
    /// `None` without allowed origins: then nothing is permitted, as without the section.
    pub(crate) fn new(config: &CorsConfig) -> Option<Self> {
        let exposed = Some(config.exposed_headers.join(", ")).filter(|names| !names.is_empty());
        (!config.allowed_origins.is_empty()).then(|| Self {
            origins: config.allowed_origins.clone(),
            headers: config.allowed_headers.clone(),
            exposed: exposed.and_then(|names| HeaderValue::from_str(&names).ok()),
            max_age: config.max_age,
        })
    }

    /// The headers that the answer needs.
    pub(crate) fn judge(&self, method: &Method, request: &HeaderMap) -> Judged {
        let asked_method = request.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = method == Method::OPTIONS && asked_method.is_some();
        let mut headers = vec![(header::VARY, HeaderValue::from_static("Origin"))];
        let refused = |headers| Judged { preflight, headers };
        let Some(origin) = request.get(header::ORIGIN) else { return refused(headers) };
        if !origin.to_str().is_ok_and(|origin| self.origins.iter().any(|allowed| matches(allowed, origin))) {
            return refused(headers);
        }
        if preflight {
            let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            if asked_method.is_none_or(|method| method != "POST") || !asked.is_none_or(|asked| self.allows_all(asked)) {
                return refused(headers);
            }
            headers.push((header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST")));
            headers.extend(asked.map(|asked| (header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone())));
            if self.max_age > 0 {
                headers.push((header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age)));
            }
        } else {
            headers.extend(self.exposed.clone().map(|names| (header::ACCESS_CONTROL_EXPOSE_HEADERS, names)));
        }
        headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        headers.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        Judged { preflight, headers }
    }

    fn allows_all(&self, asked: &HeaderValue) -> bool {
        let Ok(asked) = asked.to_str() else { return false };
        asked.split(',').map(str::trim).all(|name| {
            const SIMPLE: [&str; 4] = ["accept", "content-type", "x-requested-with", "origin"];
            SIMPLE.iter().any(|simple| name.eq_ignore_ascii_case(simple))
                || self.headers.iter().any(|allowed| allowed == "*" || name.eq_ignore_ascii_case(allowed))
        })
    }
}

/// Whether an origin fits a pattern in which one `*` stands for anything.
fn matches(pattern: &str, origin: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(origin),
        Some((prefix, suffix)) => {
            let (origin, prefix, suffix) =
                (origin.to_ascii_lowercase(), prefix.to_ascii_lowercase(), suffix.to_ascii_lowercase());
            origin.len() >= prefix.len() + suffix.len() && origin.starts_with(&prefix) && origin.ends_with(&suffix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(method: Method, headers: &[(&'static str, &'static str)]) -> Judged {
        let config = CorsConfig {
            allowed_origins: vec!["https://*.example.com".into(), "http://one.test".into()],
            allowed_headers: vec!["X-Scope-OrgID".into()],
            max_age: 600,
            ..CorsConfig::default()
        };
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Cors::new(&config).unwrap().judge(&method, &headers.collect())
    }

    fn value(judged: &Judged, name: &HeaderName) -> Option<String> {
        judged.headers.iter().find(|(there, _)| there == name).map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_allowed_origin_is_named_in_the_answer_and_another_is_not() {
        let judged = judge(Method::POST, &[("origin", "https://app.example.com")]);
        assert!(!judged.is_preflight());
        assert_eq!(value(&judged, &header::ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "https://app.example.com");
        for origin in ["https://example.com", "http://two.test"] {
            assert_eq!(value(&judge(Method::POST, &[("origin", origin)]), &header::ACCESS_CONTROL_ALLOW_ORIGIN), None);
        }
    }

    #[test]
    fn a_preflight_asks_for_method_and_headers() {
        let ask = |headers| {
            judge(
                Method::OPTIONS,
                &[
                    ("origin", "http://one.test"),
                    ("access-control-request-method", "POST"),
                    ("access-control-request-headers", headers),
                ],
            )
        };
        let judged = ask("content-type, x-scope-orgid");
        assert!(judged.is_preflight());
        assert_eq!(value(&judged, &header::ACCESS_CONTROL_ALLOW_METHODS).unwrap(), "POST");
        assert_eq!(value(&judged, &header::ACCESS_CONTROL_ALLOW_HEADERS).unwrap(), "content-type, x-scope-orgid");
        assert_eq!(value(&judged, &header::ACCESS_CONTROL_MAX_AGE).unwrap(), "600");
        assert_eq!(value(&ask("x-other"), &header::ACCESS_CONTROL_ALLOW_ORIGIN), None);
    }

    #[test]
    fn without_origins_there_is_no_permission_at_all() {
        assert!(Cors::new(&CorsConfig::default()).is_none());
    }
}
