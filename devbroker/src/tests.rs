//! Whole brokers in this process, judged by rskafka and by raw requests.

mod every_request;
mod faults;
mod groups;
mod limits;
mod raw;
mod records;
mod restart;
mod starting;
mod topics;
mod with_rskafka;
