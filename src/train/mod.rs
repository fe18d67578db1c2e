//! Training.

pub mod card;
pub mod data;
pub mod evaluate;
pub mod plot;
pub mod report;
