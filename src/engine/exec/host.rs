//! A host that commands are run on: a connection, and the way to another one.

use std::sync::Arc;

use super::error::ExecError;
use crate::model::escape::printable;
use crate::remote::{Connection, Connector};

/// Cheap to clone. The connection is closed with the last clone and the last child.
#[derive(Clone)]
pub struct Host {
    pub(super) connector: Arc<dyn Connector>,
    pub(super) connection: Arc<dyn Connection>,
}

impl Host {
    /// Connects, and may ask a person where the connector does.
    pub async fn connect(connector: Arc<dyn Connector>) -> Result<Host, ExecError> {
        let connected = connector.connect().await;
        let connection = connected.map_err(|error| ExecError::remote(&error, false))?;
        Ok(Host { connector, connection })
    }

    /// The host's name as the user knows it, escaped.
    pub fn name(&self) -> String {
        printable(self.connector.host().as_bytes())
    }

    pub async fn disconnect(&self) {
        self.connection.disconnect().await;
    }
}
