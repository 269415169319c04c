//! A broker that is not there: what it is owed becomes a dead letter with a reason.
//!
//! Serves events that no route takes, and brokers that were taken out of the routing table.

use std::time::Duration;

use async_trait::async_trait;

use super::{Broker, Confirmation, Error, Publication};

/// Refuses everything, for one reason.
pub struct Absent {
    reason: String,
}

impl Absent {
    pub fn new(reason: &str) -> Absent {
        Absent { reason: reason.to_owned() }
    }
}

#[async_trait]
impl Broker for Absent {
    async fn connect(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn is_there(&self) -> bool {
        false
    }

    async fn publish(&mut self, _: &Publication) -> Result<Confirmation, Error> {
        Err(Error::Refused(self.reason.clone()))
    }

    async fn close(&mut self, _: Duration) {}
}
