//! Flows as connection tracking tells them, and requests to forget them.

use super::{attributes_of, destination, ip, only, payloads, recorded};
use ipvsd::kernel::conntrack;
use ipvsd::kernel::netlink::Batch;
use ipvsd::kernel::netlink::decode::Attribute;
use ipvsd::model::netfilter::AddressPort;
use ipvsd::model::{Flow, Protocol};

/// The flows recorded under a name.
fn flows(name: &str) -> Vec<Flow> {
    let datagrams = recorded(name);
    let mut found: Vec<_> = payloads(&datagrams)
        .into_iter()
        .map(|payload| conntrack::decode::entry(payload).unwrap().unwrap())
        .map(|entry| entry.flow)
        .collect();
    found.sort();
    found
}

/// What the recorder made: the frontend's protocol and port, and the client's port.
fn recorded_flow((protocol, port, client): (Protocol, u16, u16), [vip, real, from]: [&str; 3]) -> Flow {
    Flow {
        client: (ip(from), client).into(),
        frontend: AddressPort { address: ip(vip), protocol, port },
        destination: destination(real, port + 1),
    }
}

#[test]
fn the_kernel_sends_the_flows_that_were_asked_for_and_they_are_understood() {
    let dns = (Protocol::Udp, 53, 4000);
    let all = [dns, (Protocol::Udp, 54, 4001), (Protocol::Sctp, 99, 4002)];
    let four = |flow| recorded_flow(flow, ["10.96.0.2", "10.1.0.1", "10.244.0.1"]);
    let six = |flow| recorded_flow(flow, ["fd00:96::2", "fd00:1::1", "fd00:244::1"]);
    assert_eq!(flows("flows of IPv4"), all.map(four));
    assert_eq!(flows("flows of IPv6"), all.map(six));
    assert_eq!(flows("flows of SCTP"), [four(all[2])]);
    assert_eq!(flows("flows to 10.96.0.2:53"), [four(dns)]);
}

#[test]
fn a_request_to_forget_a_flow_names_it_in_full() {
    for name in ["flows to 10.96.0.2:53", "flows of IPv6"] {
        let datagrams = recorded(name);
        let payload = payloads(&datagrams)[0];
        let mut batch = Batch::new(1);
        conntrack::encode::delete(&mut batch, conntrack::decode::entry(payload).unwrap().unwrap());
        let sent = only(batch.bytes());
        assert_eq!((sent.kind, sent.payload[0]), (0x102, payload[0]));
        let (sent, told) = (attributes_of(&sent.payload[4..]), attributes_of(&payload[4..]));
        // CTA_TUPLE_ORIG
        let tuple = |all: &[Attribute<'_>]| all.iter().find(|one| one.kind == 1).unwrap().value.to_vec();
        let leaves = |bytes: &[u8]| -> Vec<_> {
            let parts = attributes_of(bytes);
            let leaf = |part: &Attribute<'_>| {
                attributes_of(part.value).into_iter().map(|one| (one.kind, one.value.to_vec())).collect::<Vec<_>>()
            };
            parts.iter().map(leaf).collect()
        };
        assert_eq!(leaves(&tuple(&sent)), leaves(&tuple(&told)), "as the kernel told it");
        // CTA_ID
        assert_eq!(sent[1], *told.iter().find(|one| one.kind == 12).unwrap());
        assert_eq!(sent.len(), 2);
    }
}
