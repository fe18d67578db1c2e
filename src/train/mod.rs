//! Training.

pub mod data;
pub mod loss;
pub mod optim;
pub mod schedule;
