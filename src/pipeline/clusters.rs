//! The Kafka clusters of a daemon: pipelines of the same one ask through the same clients.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::diagnosis;
use super::reach::kafka_settings;
use crate::config::settled::Kafka;
use crate::fault::Fault;
use crate::kafka::Admin;

/// How a cluster is reached, and who asks it as long as some pipeline does.
type Asked = (Kafka, Weak<Admin>);

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Clusters(Arc<Mutex<Vec<Asked>>>);

impl Clusters {
    /// Who asks a cluster; nobody has spoken to a broker yet where it is the first.
    pub(super) fn admin(&self, of: &Kafka) -> Result<Arc<Admin>, Fault> {
        let mut clusters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.retain(|(_, admin)| admin.strong_count() > 0);
        let known = clusters.iter().find(|(known, _)| reached_alike(known, of));
        if let Some(admin) = known.and_then(|(_, admin)| admin.upgrade()) {
            return Ok(admin);
        }
        let made = Admin::new(&kafka_settings(of)).map_err(|error| diagnosis::of_kafka(&error))?;
        let made = Arc::new(made);
        clusters.push((of.clone(), Arc::downgrade(&made)));
        Ok(made)
    }
}

/// How topics are named and made is each pipeline's own affair.
fn reached_alike(one: &Kafka, other: &Kafka) -> bool {
    one.bootstrap_servers == other.bootstrap_servers
        && one.properties == other.properties
        && one.login == other.login
}
