//! Who may send a form: the page itself, and programs that are no browsers.
//!
//! A browser says where a request comes from (`Origin`, `Sec-Fetch-Site`) and carries our cookie only from our own pages;
//! a form from a browser must come from the same origin and repeat the cookie's token. A request with none of the headers
//! by which browsers betray themselves cannot have been sent by a foreign page, so scripts go on working.

use http::{HeaderMap, header};

const COOKIE: &str = "vivace_csrf";
/// Random bytes in a token.
pub(super) const TOKEN_BYTES: usize = 16;

/// The token that a browser carries, if it is one of ours.
pub(super) fn carried(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, token)| *name == COOKIE && is_token(token))
        .map(|(_, token)| token)
}

/// A new token of random bytes.
pub(super) fn token(random: [u8; TOKEN_BYTES]) -> String {
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header that gives a token to a browser. Only our own pages send it back.
pub(super) fn cookie(token: &str) -> String {
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict")
}

fn is_token(text: &str) -> bool {
    text.len() == TOKEN_BYTES * 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Checks a form with this token in its field.
///
/// # Errors
/// Says why it is refused.
pub(super) fn check(headers: &HeaderMap, field: Option<&str>) -> Result<(), &'static str> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    let (origin, referer) = (text(header::ORIGIN), text(header::REFERER));
    let browser = site.is_some() || origin.is_some() || referer.is_some() || headers.contains_key(header::COOKIE);
    if !browser {
        return Ok(());
    }
    if site.is_some_and(|site| site != "same-origin") {
        return Err("the request comes from another site");
    }
    let host = text(header::HOST).unwrap_or_default();
    let from = origin.or(referer);
    let same = |url: &str| {
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        !host.is_empty() && rest.split('/').next() == Some(host)
    };
    // The browser's own word counts more than a comparison with a host name that a proxy may have changed.
    if site.is_none() && from.is_some_and(|url| !same(url)) {
        return Err("the request comes from another origin");
    }
    match (carried(headers), field) {
        (Some(cookie), Some(field)) if cookie == field => Ok(()),
        _ => Err("the form has no valid token; load the page again and repeat"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "00112233445566778899aabbccddeeff";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_form_of_our_own_page_is_taken() {
        let cookie = format!("a=b; vivace_csrf={TOKEN}");
        let sent = headers(&[
            ("host", "tempo:3200"),
            ("origin", "http://tempo:3200"),
            ("sec-fetch-site", "same-origin"),
            ("cookie", &cookie),
        ]);
        assert_eq!(check(&sent, Some(TOKEN)), Ok(()));
        let proxied = headers(&[
            ("host", "pod:3200"),
            ("origin", "https://tempo.example"),
            ("sec-fetch-site", "same-origin"),
            ("cookie", &cookie),
        ]);
        assert_eq!(check(&proxied, Some(TOKEN)), Ok(()));
        assert!(check(&sent, Some("00")).is_err());
        assert!(check(&sent, None).is_err());
    }

    #[test]
    fn a_form_of_another_page_is_refused_even_with_the_cookie() {
        let cookie = format!("vivace_csrf={TOKEN}");
        for foreign in [
            headers(&[("host", "tempo:3200"), ("origin", "http://evil"), ("cookie", &cookie)]),
            headers(&[("host", "tempo:3200"), ("origin", "null")]),
            headers(&[("host", "tempo:3200"), ("sec-fetch-site", "cross-site"), ("cookie", &cookie)]),
            headers(&[("host", "tempo:3200"), ("sec-fetch-site", "same-site"), ("cookie", &cookie)]),
            headers(&[("host", "tempo:3200"), ("referer", "http://tempo:3200.evil/x"), ("cookie", &cookie)]),
            headers(&[("host", "tempo:3200"), ("origin", "http://tempo:3200")]),
        ] {
            assert!(check(&foreign, Some(TOKEN)).is_err(), "{foreign:?}");
        }
    }

    #[test]
    fn a_script_needs_no_token() {
        assert_eq!(check(&headers(&[("host", "tempo:3200"), ("user-agent", "curl")]), None), Ok(()));
    }

    #[test]
    fn only_tokens_of_our_form_are_carried_on() {
        assert_eq!(carried(&headers(&[("cookie", "vivace_csrf=\"><script>")])), None);
        let given = cookie(&token([0xab; TOKEN_BYTES]));
        let pair = given.split(';').next().unwrap();
        assert_eq!(carried(&headers(&[("cookie", pair)])), Some("ab".repeat(16).as_str()));
    }
}
