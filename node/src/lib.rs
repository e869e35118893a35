#![doc = include_str!("../README.md")]

pub mod config;
mod faults;
mod limits;
mod listeners;
mod monolith;
mod pages;
mod query;
mod rings;
mod start;
mod tenants;

pub use start::main;
