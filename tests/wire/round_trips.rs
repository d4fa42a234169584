//! Of any values and any bytes: what is written is read as it was, and nothing makes a decoder panic.

use super::{ENCODER, FIXTURES, bytes, only};
use ipvsd::kernel::conntrack::{self, Entry};
use ipvsd::kernel::ipvs;
use ipvsd::kernel::netlink::decode::{attributes, messages, status};
use ipvsd::kernel::netlink::{Batch, family};
use ipvsd::kernel::{device, route};
use ipvsd::model::netfilter::AddressPort;
use ipvsd::model::{
    DestinationKey, DestinationSpec, Family, Flow, Forwarding, Op, Persistence, Protocol, RouteSpec, SchedulerFlags,
    VirtualServerKey, VirtualServerSpec,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::IpAddr;

fn any_flow() -> impl Strategy<Value = Flow> {
    let ends = prop_oneof![
        any::<[std::net::Ipv4Addr; 3]>().prop_map(|ends| ends.map(IpAddr::from)),
        any::<[std::net::Ipv6Addr; 3]>().prop_map(|ends| ends.map(IpAddr::from)),
    ];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    (ends, any::<[u16; 3]>(), protocol).prop_map(|([client, vip, real], ports, protocol)| Flow {
        client: (client, ports[0]).into(),
        frontend: AddressPort { address: vip, protocol, port: ports[1] },
        destination: DestinationKey { address: real, port: ports[2] },
    })
}

fn any_key() -> impl Strategy<Value = VirtualServerKey> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let family = prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)];
    prop_oneof![
        3 => (any::<IpAddr>(), any::<u16>(), protocol).prop_map(|(address, port, protocol)| {
            VirtualServerKey::new(address, port, protocol)
        }),
        1 => (1..=u32::MAX, family).prop_map(|(mark, family)| VirtualServerKey::Mark { mark, family }),
    ]
}

fn any_server() -> impl Strategy<Value = (VirtualServerKey, VirtualServerSpec)> {
    let flags = (0..1_u32 << 14).prop_map(|bits| SchedulerFlags(bits << 2));
    (any_key(), "[a-z]{1,15}", flags, option::of((any::<u32>(), 0..=128_u8))).prop_map(
        |(key, scheduler, flags, persistence)| {
            let persistence =
                persistence.map(|(timeout, prefix)| Persistence { timeout, prefix: prefix.min(key.family().bits()) });
            (key, VirtualServerSpec { scheduler: scheduler.parse().unwrap(), flags, persistence })
        },
    )
}

fn any_destination() -> impl Strategy<Value = (DestinationKey, DestinationSpec)> {
    let forwarding = prop_oneof![
        Just(Forwarding::Masquerade),
        Just(Forwarding::Local),
        Just(Forwarding::Tunnel),
        Just(Forwarding::DirectRouting),
        Just(Forwarding::Bypass),
    ];
    (any::<(IpAddr, u16)>(), forwarding, any::<(u32, u32, u32)>()).prop_map(
        |((address, port), forwarding, (weight, upper_threshold, lower_threshold))| {
            let spec = DestinationSpec { weight, forwarding, upper_threshold, lower_threshold };
            (DestinationKey { address, port }, spec)
        },
    )
}

/// Every decoder there is.
fn decode_everything(bytes: &[u8]) {
    let _ = (status(bytes), ipvs::decode::info(bytes), ipvs::decode::service(bytes), family::number(bytes));
    let _ = (ipvs::decode::timeouts(bytes), device::decode_link(bytes), conntrack::decode::entry(bytes));
    let _ = ipvs::sync::daemon(bytes);
    for family in [Family::Ipv4, Family::Ipv6] {
        let _ = (ipvs::decode::destination(bytes, family), route::decode(bytes, family));
        let _ = device::decode_address(bytes, (family, 7));
    }
    for message in messages(bytes).filter_map(Result::ok).filter(|message| message.payload.len() < bytes.len()) {
        decode_everything(message.payload);
    }
    attributes(bytes).for_each(drop);
}

/// A datagram out of the fixtures.
fn any_recorded() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<Vec<u8>> = FIXTURES.lines().map(|line| bytes(line.split_once(" = ").unwrap().1)).collect();
    proptest::sample::select(all)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn a_service_is_read_as_it_was_written((key, spec) in any_server()) {
        let mut batch = Batch::new(1);
        ENCODER.operation(&mut batch, &Op::AddVirtualServer(key, spec));
        let read = ipvs::decode::service(only(batch.bytes()).payload).unwrap();
        prop_assert_eq!((read.identity.key(), read.spec(), read.is_ours()), (Some(key), Ok(spec), true));
    }

    #[test]
    fn a_destination_is_read_as_it_was_written(key in any_key(), (real, spec) in any_destination()) {
        let mut batch = Batch::new(1);
        ENCODER.operation(&mut batch, &Op::AddDestination(key, real, spec));
        let read = ipvs::decode::destination(only(batch.bytes()).payload, key.family()).unwrap();
        prop_assert_eq!((read.key, read.spec()), (real, Ok(spec)));
    }

    #[test]
    fn a_route_is_read_as_it_was_written(vip: IpAddr, with_source: bool) {
        let spec = RouteSpec { preferred_source: with_source.then_some(vip) };
        let mut batch = Batch::new(1);
        route::operation(&mut batch, &Op::AddRoute(vip, spec));
        let read = route::decode(only(batch.bytes()).payload, Family::of(vip)).unwrap();
        prop_assert_eq!(read, Some((vip, spec)));
    }

    /// A request to delete names one direction; with another direction beside it, it is as an entry is told.
    #[test]
    fn a_flow_is_read_as_it_was_written(flow in any_flow(), id: [u8; 4]) {
        let answers = Flow {
            client: (flow.destination.address, flow.destination.port).into(),
            frontend: AddressPort { address: flow.client.ip(), port: flow.client.port(), ..flow.frontend },
            ..flow
        };
        let [original, mut reply] = [flow, answers].map(|flow| {
            let mut batch = Batch::new(1);
            conntrack::encode::delete(&mut batch, Entry { flow, id });
            only(batch.bytes()).payload.to_vec()
        });
        // CTA_TUPLE_REPLY
        reply[6] = 2;
        let whole = [&original[..], &reply[4..]].concat();
        prop_assert_eq!(conntrack::decode::entry(&whole), Ok(Some(Entry { flow, id })));
        prop_assert_eq!(conntrack::decode::entry(&original), Ok(None));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
        decode_everything(&bytes);
    }

    #[test]
    fn no_broken_answer_makes_a_decoder_panic(
        mut bytes in any_recorded(),
        broken in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length: prop::sample::Index,
    ) {
        broken.iter().for_each(|(at, value)| *at.get_mut(&mut bytes) = *value);
        decode_everything(&bytes);
        decode_everything(&bytes[..length.index(bytes.len())]);
    }
}
