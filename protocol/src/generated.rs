//! The generated code, nested as its packages are, because generated types refer to each other by relative paths.

pub(crate) mod opentelemetry {
    pub(crate) mod proto {
        pub(crate) mod common {
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.common.v1");
            }
        }
        pub(crate) mod resource {
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.resource.v1");
            }
        }
        pub(crate) mod trace {
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.trace.v1");
            }
        }
        pub(crate) mod collector {
            pub(crate) mod trace {
                pub mod v1 {
                    tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
                }
            }
        }
    }
}

pub mod tempopb {
    tonic::include_proto!("tempopb");
}

pub(crate) mod vivace {
    pub mod v1 {
        tonic::include_proto!("vivace.v1");
    }
}
