//! A development broker that speaks the Kafka protocol.
