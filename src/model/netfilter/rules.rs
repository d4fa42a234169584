//! What the rules depend on, and the text form that stands in the rules themselves.
//!
//! ```text
//! masquerade 0x4000, all, localhost, pods from 10.244.0.0/16
//! ```
//! The text is the comment of a rule, so that who reads the rules back knows what they should be.

use ipnet::IpNet;
use std::fmt;
use std::str::FromStr;

/// Everything that the rules of one family depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleSettings {
    /// The bit of the mark that says: this packet's source must become the node's.
    pub masquerade_bit: MasqueradeBit,
    /// Whether traffic to cluster IPs is masqueraded whoever sends it.
    pub masquerade_all: bool,
    /// Whether node ports are on 127.0.0.1; only of IPv4.
    pub localhost: bool,
    /// How this node's pods are known.
    pub local_pods: LocalPods,
    /// What takes packets from a frontend to an endpoint.
    pub balancing: Balancing,
}

/// What takes packets from a frontend to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balancing {
    /// IPVS.
    #[default]
    Ipvs,
    /// Netfilter's own rules: destination NAT.
    Nat {
        /// Whether connection tracking lets packets outside of the TCP window pass (`nf_conntrack_tcp_be_liberal`).
        /// Where it does not it calls them invalid and does not translate them back, so that they must be dropped.
        is_liberal: bool,
        /// Whether certain packets are counted by name (`xt_nfacct`), as kube-proxy does, which not every kernel can.
        counts: bool,
    },
}

/// The number of a bit in a packet's mark, 0 to 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MasqueradeBit(u8);

/// How packets of this node's pods are told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalPods {
    /// They cannot be told.
    Unknown,
    /// By their source address.
    From(IpNet),
    /// By the device they come in on.
    Device(DeviceName),
    /// By how the name of that device begins.
    DevicePrefix(DeviceName),
}

/// The name of a network device, or its beginning: 1 to 15 bytes of printable ASCII without spaces, slashes, quotes and
/// the plus sign, which has a meaning to iptables.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceName([u8; DeviceName::MAX]);

/// A text that says no settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not {1}")]
pub struct InvalidRuleSettings(pub String, pub &'static str);

impl RuleSettings {
    /// As kube-proxy has them where nobody says anything.
    pub const DEFAULT: Self = Self {
        masquerade_bit: MasqueradeBit::DEFAULT,
        masquerade_all: false,
        localhost: false,
        local_pods: LocalPods::Unknown,
        balancing: Balancing::Ipvs,
    };

    /// Whether rules count packets by name.
    pub fn counts(&self) -> bool {
        matches!(self.balancing, Balancing::Nat { counts: true, .. })
    }
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Default for MasqueradeBit {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl MasqueradeBit {
    /// 14, that of kube-proxy.
    pub const DEFAULT: Self = Self(14);

    /// The bit with this number; none above 31.
    pub fn new(number: u8) -> Option<Self> {
        (number < 32).then_some(Self(number))
    }

    /// The bit as it stands in a mark.
    pub fn bits(self) -> u32 {
        1 << self.0
    }
}

impl DeviceName {
    /// `IFNAMSIZ` (linux/if.h) is 16 with the closing zero.
    const MAX: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(Self::MAX);
        // Only ASCII gets in, so the default is never needed.
        self.0.get(..end).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }
}

impl FromStr for DeviceName {
    type Err = InvalidRuleSettings;

    fn from_str(text: &str) -> Result<Self, InvalidRuleSettings> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"/+\"'\\,".contains(&byte);
        let mut bytes = [0; Self::MAX];
        match bytes.get_mut(..text.len()) {
            Some(place) if !text.is_empty() && text.bytes().all(allowed) => place.copy_from_slice(text.as_bytes()),
            _ => return Err(InvalidRuleSettings(text.to_owned(), "the name of a network device")),
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for RuleSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "masquerade {:#x}", self.masquerade_bit.bits())?;
        if self.masquerade_all {
            f.write_str(", all")?;
        }
        if self.localhost {
            f.write_str(", localhost")?;
        }
        match self.balancing {
            Balancing::Ipvs => {}
            Balancing::Nat { is_liberal: false, .. } => f.write_str(", nat")?,
            Balancing::Nat { is_liberal: true, .. } => f.write_str(", liberal nat")?,
        }
        if self.counts() {
            f.write_str(", counted")?;
        }
        match self.local_pods {
            LocalPods::Unknown => Ok(()),
            LocalPods::From(network) => write!(f, ", pods from {network}"),
            LocalPods::Device(name) => write!(f, ", pods on {name}"),
            LocalPods::DevicePrefix(name) => write!(f, ", pods on {name}+"),
        }
    }
}

impl FromStr for RuleSettings {
    type Err = InvalidRuleSettings;

    fn from_str(text: &str) -> Result<Self, InvalidRuleSettings> {
        let invalid = || InvalidRuleSettings(text.to_owned(), "what rules depend on");
        let mut words = text.split(", ");
        let bits = words.next().and_then(|word| word.strip_prefix("masquerade 0x")).ok_or_else(invalid)?;
        let bits = u32::from_str_radix(bits, 16).ok().filter(|bits| bits.is_power_of_two()).ok_or_else(invalid)?;
        let masquerade_bit = u8::try_from(bits.trailing_zeros()).ok().and_then(MasqueradeBit::new);
        let masquerade_bit = masquerade_bit.ok_or_else(invalid)?;
        let mut settings = Self { masquerade_bit, ..Self::default() };
        for word in words {
            match word.split_once(" ") {
                None if word == "all" => settings.masquerade_all = true,
                None if word == "localhost" => settings.localhost = true,
                None if word == "nat" => settings.balancing = Balancing::Nat { is_liberal: false, counts: false },
                Some(("liberal", "nat")) => settings.balancing = Balancing::Nat { is_liberal: true, counts: false },
                None if word == "counted" => match &mut settings.balancing {
                    Balancing::Nat { counts, .. } => *counts = true,
                    Balancing::Ipvs => return Err(invalid()),
                },
                Some(("pods", which)) => settings.local_pods = local_pods(which).ok_or_else(invalid)?,
                _ => return Err(invalid()),
            }
        }
        Ok(settings)
    }
}

fn local_pods(text: &str) -> Option<LocalPods> {
    if let Some(network) = text.strip_prefix("from ") {
        return network.parse().ok().map(LocalPods::From);
    }
    let name = text.strip_prefix("on ")?;
    match name.strip_suffix('+') {
        Some(prefix) => prefix.parse().ok().map(LocalPods::DevicePrefix),
        None => name.parse().ok().map(LocalPods::Device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_settings_is_read_back() {
        for text in [
            "masquerade 0x4000",
            "masquerade 0x1, all",
            "masquerade 0x1, localhost",
            "masquerade 0x1, all, localhost, pods on cni0",
            "masquerade 0x80000000, pods from 10.244.0.0/16",
            "masquerade 0x4000, all, pods from fd00:244::/56",
            "masquerade 0x4000, pods on cni0",
            "masquerade 0x4000, pods on veth+",
            "masquerade 0x4000, nat",
            "masquerade 0x4000, all, liberal nat, pods on veth+",
            "masquerade 0x4000, localhost, nat, counted, pods on cni0",
            "masquerade 0x4000, liberal nat, counted",
        ] {
            assert_eq!(text.parse::<RuleSettings>().unwrap().to_string(), text);
        }
        assert_eq!(RuleSettings::default().to_string(), "masquerade 0x4000");
    }

    #[test]
    fn what_is_no_text_of_settings_is_refused() {
        for text in [
            "",
            "masquerade",
            "masquerade 0x3",
            "masquerade 0x100000000",
            "masquerade 0x4000, some",
            "pods on a",
            "masquerade 0x4000, counted",
        ] {
            assert!(text.parse::<RuleSettings>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_device_has_a_name_that_cannot_be_taken_for_something_else() {
        for good in ["a", "cni0", "fifteen_letters", "br-0.100@x"] {
            assert_eq!(good.parse::<DeviceName>().unwrap().as_str(), good);
        }
        for bad in ["", "sixteen__letters", "a b", "a\"", "a+", "a/b", "é", "a\0", "a,"] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad:?}");
        }
    }
}
