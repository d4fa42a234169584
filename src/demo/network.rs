//! A small network in namespaces: a client, a node, and backends behind the node, joined by veth pairs.
//!
//! ```text
//!   client                       node                          backend-1, backend-2, ...
//!   192.0.2.2  ------ 192.0.2.1       10.244.I.1  ------------ 10.244.I.2
//!   fd00:2::2         fd00:2::1       fd00:244:I::1            fd00:244:I::2
//! ```
//!
//! Everyone's default route is the node, which forwards. It has none itself. Demo and kernel tests use it.

use super::namespace::{Namespace, index_of};
use anyhow::{Context, Result};
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

/// Usual settings of a namespace: no waiting for duplicate addresses, no dropping of asymmetric paths.
const HOST: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    // Not only for our addresses, which say so themselves: neighbours are asked from the link-local one.
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];

const ROUTER: &[(&str, &str)] = &[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];

/// An end of a cable: one address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In a network of 24 bits.
    pub ipv4: Ipv4Addr,
    /// In a network of 64 bits.
    pub ipv6: Ipv6Addr,
}

impl Addresses {
    /// A port of the one that is of another address's family.
    pub fn matching(&self, other: IpAddr, port: u16) -> SocketAddr {
        if other.is_ipv4() { (self.ipv4, port).into() } else { (self.ipv6, port).into() }
    }
}

/// A namespace with one cable to the node.
#[derive(Debug)]
pub struct Host {
    /// `client` or `backend-1` and so on; the node's end of the cable has the same name.
    pub name: String,
    /// Where its programs run.
    pub namespace: Namespace,
    /// Its end of the cable.
    pub addresses: Addresses,
    /// The node's end, this host's default gateway.
    pub gateway: Addresses,
}

/// The whole network. It vanishes with this value and the processes inside.
#[derive(Debug)]
pub struct Network {
    /// Sends requests.
    pub client: Host,
    /// Runs ipvsd. Its first device leads to the client.
    pub node: Namespace,
    /// Answer requests.
    pub backends: Vec<Host>,
}

impl Network {
    /// Builds it with `backends` backends, up to 254.
    ///
    /// # Errors
    /// If the kernel lacks something, or this is not root.
    pub fn build(backends: u8) -> Result<Self> {
        let node = Namespace::new()?;
        node.set(HOST)?;
        node.set(ROUTER)?;
        let client = Host::attach(&node, "client".to_owned(), client_network())?;
        let backends = (1..=backends)
            .map(|number| Host::attach(&node, format!("backend-{number}"), backend_network(number)))
            .collect::<Result<_>>()?;
        Ok(Self { client, node, backends })
    }
}

impl Host {
    fn attach(node: &Namespace, name: String, (gateway, addresses): (Addresses, Addresses)) -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.set(HOST)?;
        let cable = cable(&name, &namespace);
        node.configure(async |netlink| {
            netlink.link().add(cable).execute().await.context("cannot make a veth pair")?;
            bring_up(&netlink, &name, gateway).await
        })?;
        namespace.configure(async |netlink| {
            bring_up(&netlink, INSIDE, addresses).await?;
            let ipv4 = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway.ipv4).build();
            netlink.route().add(ipv4).execute().await?;
            let ipv6 = RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway.ipv6).build();
            netlink.route().add(ipv6).execute().await?;
            Ok(())
        })?;
        Ok(Self { name, namespace, addresses, gateway })
    }
}

/// A host's name for its end of the cable.
const INSIDE: &str = "eth0";

fn client_network() -> (Addresses, Addresses) {
    let end = |host| Addresses {
        ipv4: Ipv4Addr::new(192, 0, 2, host),
        ipv6: Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, host.into()),
    };
    (end(1), end(2))
}

fn backend_network(number: u8) -> (Addresses, Addresses) {
    let end = |host| Addresses {
        ipv4: Ipv4Addr::new(10, 244, number, host),
        ipv6: Ipv6Addr::new(0xfd00, 0x244, number.into(), 0, 0, 0, 0, host.into()),
    };
    (end(1), end(2))
}

/// A veth pair: `name` here, [`INSIDE`] in the other namespace.
fn cable(name: &str, other: &Namespace) -> LinkMessage {
    let inside = LinkMessageBuilder::<LinkUnspec>::new().name(INSIDE).setns_by_fd(other.as_fd().as_raw_fd()).build();
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
        .build()
}

async fn bring_up(netlink: &Handle, name: &str, addresses: Addresses) -> Result<()> {
    let index = index_of(netlink, name).await?;
    let both: [(IpAddr, u8); 2] = [(addresses.ipv4.into(), 24), (addresses.ipv6.into(), 64)];
    for (address, prefix) in both {
        let mut request = netlink.address().add(index, address, prefix);
        // Usable at once.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.with_context(|| format!("cannot add the address {address}"))?;
    }
    netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    Ok(())
}
