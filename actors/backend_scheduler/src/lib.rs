//! Configuration of the backend-scheduler; the component itself is not here yet.

pub mod config;

pub use config::Config;
