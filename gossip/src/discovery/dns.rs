//! Looking up names: injected, so that tests need no name server.

use std::net::IpAddr;

use futures::FutureExt;
use futures::future::BoxFuture;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use thiserror::Error;

/// A lookup failed. Expected: names come and go; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("look up {name}: {reason}")]
pub struct DnsError {
    /// The name.
    pub name: String,
    /// What the resolver says.
    pub reason: String,
}

/// The target of an SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Looks up names.
pub trait Dns: Send + Sync + 'static {
    /// The addresses of a host, of both families.
    fn addresses(&self, host: &str) -> BoxFuture<'static, Result<Vec<IpAddr>, DnsError>>;

    /// The SRV records of a name.
    fn services(&self, name: &str) -> BoxFuture<'static, Result<Vec<Service>, DnsError>>;
}

/// The system's resolver: hosts as every other program of this host finds them, SRV records by the name servers of
/// `/etc/resolv.conf`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDns;

impl Dns for SystemDns {
    fn addresses(&self, host: &str) -> BoxFuture<'static, Result<Vec<IpAddr>, DnsError>> {
        let name = host.to_owned();
        async move {
            let found =
                tokio::net::lookup_host((name.as_str(), 0)).await.map(|found| found.map(|it| it.ip()).collect());
            found.map_err(|error| DnsError { name, reason: error.to_string() })
        }
        .boxed()
    }

    fn services(&self, name: &str) -> BoxFuture<'static, Result<Vec<Service>, DnsError>> {
        let name = name.to_owned();
        async move {
            let failed = |reason: String| DnsError { name: name.clone(), reason };
            // Made anew each time: the name servers may have changed, and nothing is to be taken from a cache.
            let builder = TokioResolver::builder_tokio().map_err(|error| failed(error.to_string()))?;
            let resolver: Resolver<_> = builder.build().map_err(|error| failed(error.to_string()))?;
            let answer =
                resolver.lookup(name.as_str(), RecordType::SRV).await.map_err(|error| failed(error.to_string()))?;
            let services = answer.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(service) => Some(Service { host: service.target.to_utf8(), port: service.port }),
                _ => None,
            });
            Ok(services.collect())
        }
        .boxed()
    }
}
