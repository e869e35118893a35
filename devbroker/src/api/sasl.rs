//! SaslHandshake and SaslAuthenticate: PLAIN with one user, so that clients' configurations can be tried.

use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::code;

const PLAIN: StrBytes = StrBytes::from_static_str("PLAIN");

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nothing was said yet, and something must be.
    Stranger,
    /// PLAIN was agreed on.
    Agreed,
    /// Requests are carried out.
    Known,
}

pub(crate) fn handshake(broker: &Broker, trust: &mut Trust, request: &SaslHandshakeRequest) -> SaslHandshakeResponse {
    let answer = SaslHandshakeResponse::default().with_mechanisms(vec![PLAIN]);
    if broker.options.sasl_plain.is_none() || *trust == Trust::Known {
        return answer.with_error_code(code::ILLEGAL_SASL_STATE);
    }
    if request.mechanism != PLAIN {
        return answer.with_error_code(code::UNSUPPORTED_SASL_MECHANISM);
    }
    *trust = Trust::Agreed;
    answer
}

pub(crate) fn authenticate(
    broker: &Broker,
    trust: &mut Trust,
    request: &SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    let failed = |code, message| {
        let message = StrBytes::from_static_str(message);
        SaslAuthenticateResponse::default().with_error_code(code).with_error_message(Some(message))
    };
    if *trust != Trust::Agreed {
        return failed(code::ILLEGAL_SASL_STATE, "agree on a mechanism first");
    }
    // Authorization id, user, password, each behind a zero byte but the first.
    let mut parts = request.auth_bytes.split(|&byte| byte == 0).skip(1);
    let given = (parts.next(), parts.next());
    let known = broker.options.sasl_plain.as_ref();
    let expected = known.map(|(user, password)| (Some(user.as_bytes()), Some(password.as_bytes())));
    if Some(given) != expected {
        return failed(code::SASL_AUTHENTICATION_FAILED, "user or password is wrong");
    }
    *trust = Trust::Known;
    SaslAuthenticateResponse::default()
}
