//! ApiVersions: what this broker takes. A question in a version from the future is answered in version 0, with an error and the
//! list, so that the client can ask again in a version that both know.

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use crate::code;
use crate::request::APIS;

pub(crate) fn handle(from_the_future: bool) -> ApiVersionsResponse {
    let apis = APIS.iter().map(|api| {
        ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.oldest).with_max_version(api.newest)
    });
    let code = if from_the_future { code::UNSUPPORTED_VERSION } else { code::NONE };
    ApiVersionsResponse::default().with_error_code(code).with_api_keys(apis.collect())
}
