//! Fuzzing of the header that names the tenant: what passes is a name that is safe in a path, a label and a header.

use http::HeaderValue;
use vivace_fuzzkit::{Campaign, likeness};

use super::*;

#[test]
fn any_header_names_a_safe_tenant_or_none() {
    let campaign = Campaign::new(env!("CARGO_MANIFEST_DIR"), "tenant")
        .max_bytes(400)
        .tokens(&["|", ":", "..", ".", "/", "%2f", "a", "\u{fffd}", "\\", "!", "*"])
        .runs(400_000);
    let seeds: [&[u8]; 8] =
        [b"team-1", b"a|a", b"a:meta|a", b".", b"..", b"!-_.*'()", &[b'a'; 150], b"single-tenant:x=y"];
    seeds.into_iter().fold(campaign, |campaign, seed| campaign.seed_input(seed.to_vec())).run(|input| {
        let Ok(value) = HeaderValue::from_bytes(input) else { return likeness("no header") };
        let mut headers = HeaderMap::new();
        headers.append("x-scope-orgid", value);
        match Tenancy::Header.of(&headers) {
            Ok(tenant) => {
                let name = tenant.as_str();
                assert!(!name.is_empty() && name.len() <= 150 && name != "." && name != "..");
                assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b)), "{name:?}");
                // A name passes again as itself, and a query of it asks exactly this tenant.
                assert_eq!(TenantId::parse(name).as_ref(), Ok(&tenant));
                assert_eq!(TenantId::parse_list(&String::from_utf8_lossy(input)), Ok(vec![tenant]));
                likeness("tenant")
            }
            Err(error) => {
                assert!(error.message().len() <= 200 + 4 * input.len());
                likeness(error.message().split('\'').next().unwrap_or_default())
            }
        }
    });
}
