//! Whose data a request is about.

use http::{HeaderMap, StatusCode};
use vivace_protocol::TenantId;

use crate::respond::Refusal;

/// The header that names the tenant.
const HEADER: &str = "X-Scope-OrgID";

/// The tenants of a query: one, or several for a federated query (`a|b`), sorted and without repeats.
pub(crate) fn tenants(headers: &HeaderMap, multitenancy: bool, federation: bool) -> Result<Vec<TenantId>, Refusal> {
    if !multitenancy {
        return Ok(vec![TenantId::single()]);
    }
    let value = headers.get(HEADER).map(|v| v.to_str().unwrap_or("\u{fffd}")).unwrap_or("");
    if value.is_empty() {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "no org id\n"));
    }
    let parsed: Result<Vec<TenantId>, _> = value.split('|').map(TenantId::parse).collect();
    let mut tenants = parsed.map_err(|error| Refusal::bad(error.to_string()))?;
    tenants.sort();
    tenants.dedup();
    if tenants.len() > 1 && !federation {
        return Err(Refusal::bad("multiple org IDs present"));
    }
    Ok(tenants)
}
