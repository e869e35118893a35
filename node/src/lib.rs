#![doc = include_str!("../README.md")]

pub mod config;
mod limits;
mod monolith;
mod pages;
mod start;
mod tenants;

pub use start::main;
