//! From a trace to its key on the ring.

/// The ring key of a trace: FNV-1 with 32 bits over the tenant's name and the 16 bytes of the id.
#[must_use]
pub fn trace_key(tenant: &str, trace_id: [u8; 16]) -> u32 {
    let bytes = tenant.as_bytes().iter().chain(&trace_id);
    // FNV-1, not FNV-1a: multiply, then exclusive or.
    bytes.fold(2_166_136_261, |hash: u32, byte| hash.wrapping_mul(16_777_619) ^ u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_traces_have_their_keys() {
        let id = 0x0123_4567_89ab_cdef_u128.to_be_bytes();
        assert_eq!(trace_key("single-tenant", id), 3_046_574_154);
        assert_eq!(trace_key("acme", id), 2_183_090_471);
    }
}
