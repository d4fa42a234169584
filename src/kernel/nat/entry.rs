//! Virtual servers of rules in IPVS's words, for those who print what balances. Rules count no connections.

use crate::kernel::ipvs::handle::Table;
use crate::kernel::ipvs::{DestinationEntry, Info, Stats, Tunnel, VirtualServerEntry};
use crate::model::{Destinations, Family, Persistence, VirtualServer, VirtualServerKey};

/// A table of these, of no version and no size.
pub fn table<'s>(virtual_servers: impl Iterator<Item = (&'s VirtualServerKey, &'s VirtualServer)>) -> Table {
    let info = Info { version: 0, connection_table_size: 0 };
    let entries =
        virtual_servers.map(|(key, server)| (virtual_server(key, server), destinations(&server.destinations)));
    Table { info, virtual_servers: entries.collect() }
}

fn virtual_server(key: &VirtualServerKey, server: &VirtualServer) -> VirtualServerEntry {
    let Persistence { timeout, prefix } =
        server.spec.persistence.unwrap_or(Persistence { timeout: 0, prefix: key.family().bits() });
    let netmask = match key.family() {
        Family::Ipv4 => u32::MAX.checked_shl(u32::from(32_u8.saturating_sub(prefix))).unwrap_or(0),
        Family::Ipv6 => prefix.into(),
    };
    VirtualServerEntry {
        identity: (*key).into(),
        scheduler: server.spec.scheduler.to_string(),
        persistence_engine: None,
        flags: VirtualServerEntry::flags_of_ours(server.spec.persistence.is_some()),
        timeout,
        netmask,
        stats: Stats::default(),
    }
}

fn destinations(destinations: &Destinations) -> Vec<DestinationEntry> {
    let entry = |(key, spec): (&_, &crate::model::DestinationSpec)| DestinationEntry {
        key: *key,
        forwarding: Some(spec.forwarding),
        weight: spec.weight,
        upper_threshold: spec.upper_threshold,
        lower_threshold: spec.lower_threshold,
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: Stats::default(),
        tunnel: Tunnel::default(),
    };
    destinations.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::nat::server::spec;
    use crate::model::{DestinationKey, DestinationSpec, Protocol};

    #[test]
    fn an_entry_says_what_the_virtual_server_is() {
        for (address, prefix, persistence) in [("10.96.0.1", 24, true), ("fd00::1", 64, true), ("10.96.0.1", 32, false)]
        {
            let key = VirtualServerKey::new(address.parse().unwrap(), 80, Protocol::Tcp);
            let persistence = persistence.then_some(Persistence { timeout: 30, prefix });
            let destination = DestinationKey { address: address.parse().unwrap(), port: 8080 };
            let destinations = [(destination, DestinationSpec::masquerading(3))].into_iter().collect();
            let server = VirtualServer { spec: spec(persistence), destinations };
            let table = table([(&key, &server)].into_iter());
            let [(entry, found)] = &table.virtual_servers[..] else { panic!("{table:?}") };
            assert_eq!((entry.identity.key(), entry.spec().unwrap()), (Some(key), server.spec));
            assert!(entry.is_ours());
            assert_eq!((found[0].key, found[0].spec().unwrap()), (destination, DestinationSpec::masquerading(3)));
            assert_eq!(found[0].connections(), 0);
        }
    }
}
