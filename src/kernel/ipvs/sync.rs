//! The kernel threads that tell another machine of the connections here, or hear of those there: as the kernel tells of
//! them. ipvsd starts none; it shows what somebody else started.

use super::decode::body;
use super::encode::Encoder;
use super::{command, subject};
use crate::kernel::netlink::decode::{attributes, text_of, u8_of, u16_of, u32_of};
use crate::kernel::netlink::{Batch, Malformed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `IPVS_DAEMON_ATTR_*` (linux/ip_vs.h).
mod attribute {
    pub const STATE: u16 = 1;
    pub const MCAST_IFN: u16 = 2;
    pub const SYNC_ID: u16 = 3;
    pub const SYNC_MAXLEN: u16 = 4;
    pub const MCAST_GROUP: u16 = 5;
    pub const MCAST_GROUP6: u16 = 6;
    pub const MCAST_PORT: u16 = 7;
    pub const MCAST_TTL: u16 = 8;
}

/// What a sync daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncRole {
    /// Tells of the connections here.
    Master,
    /// Hears of connections elsewhere.
    Backup,
}

/// A running sync daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncDaemon {
    /// What it does.
    pub role: SyncRole,
    /// The device it sends or listens on.
    pub interface: String,
    /// Which messages belong together; 0 to 255.
    pub sync_id: u32,
    /// Bytes of a message at most. 0 from a kernel before Linux 4.3, as all that follows.
    pub max_length: u16,
    /// The multicast group, if the kernel tells it.
    pub group: Option<IpAddr>,
    /// UDP port.
    pub port: u16,
    /// Time to live of what is sent.
    pub ttl: u8,
}

impl Encoder {
    /// Adds a request for the sync daemons; `flags` make it a dump.
    pub fn sync_daemons(&self, batch: &mut Batch, flags: u16) {
        batch.push(self.family, flags, |message| message.raw(&Self::header(command::GET_DAEMON)));
    }
}

/// Reads a sync daemon out of the payload of an answer to `IPVS_CMD_GET_DAEMON`.
///
/// # Errors
/// Its state is missing or unknown, or an attribute is too short.
pub fn daemon(payload: &[u8]) -> Result<SyncDaemon, Malformed> {
    let mut daemon = SyncDaemon {
        role: SyncRole::Master,
        interface: String::new(),
        sync_id: 0,
        max_length: 0,
        group: None,
        port: 0,
        ttl: 0,
    };
    let mut state = 0;
    for found in attributes(body(payload, subject::DAEMON)?) {
        let found = found?;
        match found.kind {
            attribute::STATE => state = u32_of(found.value)?,
            kind => daemon.read(kind, found.value)?,
        }
    }
    daemon.role = match state {
        // IP_VS_STATE_MASTER and IP_VS_STATE_BACKUP (linux/ip_vs.h)
        1 => SyncRole::Master,
        2 => SyncRole::Backup,
        _ => return Err(Malformed(format!("a sync daemon in state {state}"))),
    };
    Ok(daemon)
}

impl SyncDaemon {
    fn read(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            attribute::MCAST_IFN => self.interface = text_of(value)?.to_owned(),
            attribute::SYNC_ID => self.sync_id = u32_of(value)?,
            attribute::SYNC_MAXLEN => self.max_length = u16_of(value)?,
            attribute::MCAST_GROUP => self.group = Some(Ipv4Addr::from(u32_of(value)?.to_ne_bytes()).into()),
            attribute::MCAST_GROUP6 => {
                let octets: Option<&[u8; 16]> = value.first_chunk();
                let octets = octets.ok_or_else(|| Malformed(format!("a group of {} bytes", value.len())))?;
                self.group = Some(Ipv6Addr::from(*octets).into());
            }
            // Unlike all other ports of IPVS in host byte order.
            attribute::MCAST_PORT => self.port = u16_of(value)?,
            attribute::MCAST_TTL => self.ttl = u8_of(value)?,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these attributes.
    fn answer(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut batch = Batch::new(1);
        batch.push(0, 0, |message| {
            message.raw(&Encoder::header(command::GET_DAEMON));
            message.nested(subject::DAEMON, |message| {
                attributes.iter().for_each(|(kind, value)| message.attribute(*kind, value))
            });
        });
        batch.bytes()[crate::kernel::netlink::encode::HEADER..].to_vec()
    }

    const MASTER: (u16, &[u8]) = (attribute::STATE, &1_u32.to_ne_bytes());

    #[test]
    fn a_daemon_of_an_old_kernel_has_a_device_and_an_id() {
        let id = 5_u32.to_ne_bytes();
        let read = daemon(&answer(&[MASTER, (attribute::MCAST_IFN, b"eth0\0"), (attribute::SYNC_ID, &id)])).unwrap();
        assert_eq!((read.role, read.interface.as_str(), read.sync_id), (SyncRole::Master, "eth0", 5));
        assert_eq!((read.max_length, read.group, read.port, read.ttl), (0, None, 0, 0));
    }

    #[test]
    fn groups_of_both_families_are_read() {
        let four: (u16, &[u8]) = (attribute::MCAST_GROUP, &[224, 0, 0, 81]);
        assert_eq!(daemon(&answer(&[MASTER, four])).unwrap().group, Some("224.0.0.81".parse().unwrap()));
        let six: (u16, &[u8]) = (attribute::MCAST_GROUP6, &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9]);
        assert_eq!(daemon(&answer(&[six, MASTER])).unwrap().group, Some("ff02::1:9".parse().unwrap()));
        assert!(daemon(&answer(&[MASTER, (attribute::MCAST_GROUP6, &[0xff])])).is_err());
    }

    #[test]
    fn what_is_neither_master_nor_backup_is_refused() {
        let both: (u16, &[u8]) = (attribute::STATE, &3_u32.to_ne_bytes());
        for wrong in [answer(&[]), answer(&[both]), vec![0; 4], vec![]] {
            assert!(daemon(&wrong).is_err(), "{wrong:?}");
        }
    }
}
