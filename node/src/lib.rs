#![doc = include_str!("../README.md")]

mod base;
mod blocks;
mod bucket;
pub mod config;
mod devbroker;
mod doors;
mod faults;
mod health;
mod kafka;
mod limits;
mod listeners;
mod pages;
mod pools;
mod query;
mod rings;
mod roles;
mod start;
mod tenants;

pub use start::main;
