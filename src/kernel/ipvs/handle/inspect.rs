//! Reads for those who look: all that IPVS holds, ours or not, with statistics. The reconciler has a reading of its own.

use super::Ipvs;
use crate::kernel::ObserveError;
use crate::kernel::ipvs::sync::{self, SyncDaemon};
use crate::kernel::ipvs::{DestinationEntry, Info, VirtualServerEntry};
use crate::model::VirtualServerKey;

/// All of the IPVS table or a part of it, ours and others'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Version and size.
    pub info: Info,
    /// Virtual servers in the kernel's order, each with its destinations.
    pub virtual_servers: Vec<(VirtualServerEntry, Vec<DestinationEntry>)>,
}

impl Ipvs {
    /// Reads everything that IPVS holds.
    ///
    /// # Errors
    /// Any failure to read all of it.
    pub fn table(&mut self) -> Result<Table, ObserveError> {
        let virtual_servers = self.virtual_servers()?;
        self.with_destinations(virtual_servers)
    }

    /// Reads all virtual servers alone, which is one question however many there are.
    ///
    /// # Errors
    /// Any failure to read all of it.
    pub fn table_without_destinations(&mut self) -> Result<Table, ObserveError> {
        let virtual_servers = self.virtual_servers()?.into_iter().map(|server| (server, Vec::new())).collect();
        Ok(Table { virtual_servers, info: self.info })
    }

    /// Reads one virtual server; the table is empty if there is none.
    ///
    /// # Errors
    /// Any failure to read all of it.
    pub fn table_of(&mut self, key: VirtualServerKey) -> Result<Table, ObserveError> {
        let virtual_servers = self.virtual_servers_by_key(&[key])?;
        self.with_destinations(virtual_servers)
    }

    /// Those of these virtual servers that exist, whoever made them, each with its destinations.
    ///
    /// # Errors
    /// Any failure to read all of them.
    pub fn entries(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<Vec<(VirtualServerEntry, Vec<DestinationEntry>)>, ObserveError> {
        let virtual_servers = self.virtual_servers_by_key(keys)?;
        Ok(self.with_destinations(virtual_servers)?.virtual_servers)
    }

    /// The sync daemons that run in this network namespace, the master first.
    ///
    /// # Errors
    /// Any failure to read all of it.
    pub fn sync_daemons(&mut self) -> Result<Vec<SyncDaemon>, ObserveError> {
        let encoder = self.encoder;
        let decode = |payload: &[u8]| sync::daemon(payload).map(Some);
        let mut found = self.socket.dump("sync daemons", |batch, flags| encoder.sync_daemons(batch, flags), decode)?;
        found.sort_by_key(|daemon| daemon.role);
        Ok(found)
    }

    fn with_destinations(&mut self, virtual_servers: Vec<VirtualServerEntry>) -> Result<Table, ObserveError> {
        let with = virtual_servers.into_iter().map(|server| {
            let destinations = self.destinations(server.identity)?;
            Ok((server, destinations))
        });
        Ok(Table { virtual_servers: with.collect::<Result<_, _>>()?, info: self.info })
    }
}
