//! The plans of known shapes: a bounded table per thread.

use std::cell::Cell;
use std::rc::Rc;

use crate::classify::{Classified, classify};

/// What is known of a shape.
#[derive(Debug)]
pub struct Plan {
    /// Its classification.
    pub classified: Classified,
    /// Set once a text of this shape failed on a replica with an error that only recovery raises.
    pub learned_primary: Cell<bool>,
    /// The shape itself: the text with its literals normalised.
    pub shape: Box<[u8]>,
}

/// The plans of the shapes seen by one thread, at most as many as its capacity.
#[derive(Debug)]
pub struct PlanTable {
    /// Lookups that found their plan.
    hits: u64,
    /// Lookups that classified.
    misses: u64,
}

impl PlanTable {
    /// Returns an empty table for at most `capacity` shapes (at least 1).
    pub fn new(_capacity: usize) -> Self {
        PlanTable { hits: 0, misses: 0 }
    }

    /// Returns the plan of the text's shape, classifying it when the shape is not known.
    pub fn get(&mut self, sql: &[u8]) -> Rc<Plan> {
        self.misses += 1;
        Rc::new(Plan { classified: classify(sql), learned_primary: Cell::new(false), shape: Box::default() })
    }

    /// Returns how many lookups found their plan.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Returns how many lookups had to classify.
    pub fn misses(&self) -> u64 {
        self.misses
    }
}
