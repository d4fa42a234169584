//! The options of `ipvsd list`, which are ipvsadm's by name and meaning, and what they ask for.

use super::text::{Layout, Style};
use crate::model::{Family, Protocol, VirtualServerKey};
use clap::Args;
use std::net::{IpAddr, SocketAddr};

/// Flags of `ipvsd list`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    layout: LayoutFlags,
    /// Persistence templates of each destination; with --connection, the data of persistence engines
    #[arg(long, conflicts_with_all = ["save", "timeout", "daemon"])]
    pub persistent_conn: bool,
    /// Counters to the last digit, instead of in K, M, G or T from a hundred million on
    #[arg(long, conflicts_with = "save")]
    exact: bool,
    /// In the kernel's order
    #[arg(long, conflicts_with = "save")]
    nosort: bool,
    /// In ascending order, as without it
    #[arg(long)]
    sort: bool,
    /// The packets of --fwmark-service are IPv6
    #[arg(short = '6', long, requires = "fwmark_service", conflicts_with_all = OTHER_SUBJECTS)]
    ipv6: bool,
    /// Behind each line of the table what it is called: the Service's port, the pod; asks the daemon that runs here
    #[arg(long, conflicts_with_all = ["connection", "save", "timeout", "daemon"])]
    pub names: bool,
    /// Print JSON: all fields, counters and rates, and whether ipvsd made the virtual server
    #[arg(long, conflicts_with = "save")]
    pub json: bool,
    /// Numeric addresses and ports; they always are, this is for the habit of `-Ln`
    #[arg(short, long)]
    numeric: bool,
    /// List, as without it; this is for the habit of `-Ln`
    #[arg(short = 'L', short_alias = 'l', long, conflicts_with = "save")]
    list: bool,
}

/// What is no virtual server that matches a mark. clap does not ask for what an option requires where something else is
/// there that excludes it.
const OTHER_SUBJECTS: [&str; 7] =
    ["connection", "save", "timeout", "daemon", "tcp_service", "udp_service", "sctp_service"];

/// What is to be printed; by default the whole table.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct SubjectFlags {
    /// The connection table
    #[arg(short, long)]
    connection: bool,
    /// The rules that `ipvsadm -R` restores the table from
    #[arg(short = 'S', long)]
    save: bool,
    /// After how many seconds idle connections are forgotten: TCP, TCP after a FIN, UDP
    #[arg(long)]
    timeout: bool,
    /// The daemons that keep another machine's connection table in step
    #[arg(long)]
    daemon: bool,
    /// This virtual server alone: ADDRESS[:PORT], [ADDRESS]:PORT for IPv6; without a port, the one for every port
    #[arg(short, long, value_name = "ADDRESS", value_parser = service_address)]
    tcp_service: Option<SocketAddr>,
    /// The same, of UDP
    #[arg(short, long, value_name = "ADDRESS", value_parser = service_address)]
    udp_service: Option<SocketAddr>,
    /// The same, of SCTP
    #[arg(long, value_name = "ADDRESS", value_parser = service_address)]
    sctp_service: Option<SocketAddr>,
    /// The virtual server that matches this firewall mark alone
    #[arg(short, long, value_name = "MARK", value_parser = clap::value_parser!(u32).range(1..))]
    fwmark_service: Option<u32>,
}

/// Other columns. Of several, the first of these counts.
#[derive(Debug, Args)]
struct LayoutFlags {
    /// Connections, packets and bytes since creation
    #[arg(long, conflicts_with_all = ["connection", "save", "timeout", "daemon"])]
    stats: bool,
    /// The same for each second
    #[arg(long, conflicts_with_all = ["connection", "save", "timeout", "daemon"])]
    rate: bool,
    /// Limits of each destination's connections
    #[arg(long, conflicts_with_all = ["connection", "save", "timeout", "daemon"])]
    thresholds: bool,
    /// How packets to destinations are wrapped
    #[arg(long, conflicts_with = "save")]
    tun_info: bool,
}

/// What is to be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The table of virtual servers.
    All,
    /// One of them.
    VirtualServer(VirtualServerKey),
    /// The table as rules.
    Rules,
    /// The connection table.
    Connections,
    /// When idle connections are forgotten.
    Timeouts,
    /// The sync daemons.
    SyncDaemons,
}

impl Arguments {
    /// What is to be printed.
    pub fn subject(&self) -> Subject {
        let SubjectFlags { connection, save, timeout, daemon, .. } = self.subject;
        match (connection, save, timeout, daemon) {
            (true, ..) => Subject::Connections,
            (_, true, ..) => Subject::Rules,
            (_, _, true, _) => Subject::Timeouts,
            (.., true) => Subject::SyncDaemons,
            _ => self.virtual_server().map_or(Subject::All, Subject::VirtualServer),
        }
    }

    fn virtual_server(&self) -> Option<VirtualServerKey> {
        let SubjectFlags { tcp_service, udp_service, sctp_service, fwmark_service, .. } = self.subject;
        let family = if self.ipv6 { Family::Ipv6 } else { Family::Ipv4 };
        let by_address = [(Protocol::Tcp, tcp_service), (Protocol::Udp, udp_service), (Protocol::Sctp, sctp_service)];
        let by_address = by_address.into_iter().find_map(|(protocol, address)| {
            address.map(|address| VirtualServerKey::new(address.ip(), address.port(), protocol))
        });
        by_address.or_else(|| fwmark_service.map(|mark| VirtualServerKey::Mark { mark, family }))
    }

    /// How the table is to be printed as text.
    pub fn style(&self) -> Style {
        let LayoutFlags { stats, rate, thresholds, tun_info } = self.layout;
        let layouts = [
            (stats, Layout::Stats),
            (rate, Layout::Rate),
            (thresholds, Layout::Thresholds),
            (self.persistent_conn, Layout::PersistentConnections),
            (tun_info, Layout::Tunnels),
        ];
        let layout = layouts.into_iter().find_map(|(asked, layout)| asked.then_some(layout));
        Style { layout: layout.unwrap_or_default(), exact: self.exact }
    }

    /// Whether the table is to be sorted.
    pub fn is_sorted(&self) -> bool {
        !self.nosort
    }
}

/// An address with a port, or without one, which is port 0.
fn service_address(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse().ok();
    let found = with_port.or_else(|| text.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 0)));
    found.ok_or_else(|| "no address with a port, both in numbers: 192.0.2.1:80 or [2001:db8::1]:80".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        list: Arguments,
    }

    fn parsed(flags: &str) -> Result<Arguments, clap::Error> {
        Line::try_parse_from(["list"].into_iter().chain(flags.split_whitespace())).map(|line| line.list)
    }

    #[test]
    fn options_ask_for_what_they_do_in_ipvsadm() {
        let mark = |family| Subject::VirtualServer(VirtualServerKey::Mark { mark: 7, family });
        let server = |address: &str, port, protocol| {
            Subject::VirtualServer(VirtualServerKey::new(address.parse().unwrap(), port, protocol))
        };
        for (flags, subject) in [
            ("", Subject::All),
            ("-Ln", Subject::All),
            ("-l --numeric --sort --exact", Subject::All),
            ("-Lnc", Subject::Connections),
            ("--list --connection --persistent-conn", Subject::Connections),
            ("-Sn", Subject::Rules),
            ("--save -n --sort", Subject::Rules),
            ("-L --timeout", Subject::Timeouts),
            ("-L --daemon", Subject::SyncDaemons),
            ("-Ln -t 10.0.0.1:80 --stats", server("10.0.0.1", 80, Protocol::Tcp)),
            ("-Lnu [fd00::1]:53", server("fd00::1", 53, Protocol::Udp)),
            ("--sctp-service 10.0.0.1:9", server("10.0.0.1", 9, Protocol::Sctp)),
            ("-t 10.0.0.1", server("10.0.0.1", 0, Protocol::Tcp)),
            ("-t fd00::1", server("fd00::1", 0, Protocol::Tcp)),
            ("-Ln -f 7", mark(Family::Ipv4)),
            ("-Ln -6 -f 7", mark(Family::Ipv6)),
            ("-Ln -f 7 --ipv6", mark(Family::Ipv6)),
        ] {
            assert_eq!(parsed(flags).unwrap().subject(), subject, "{flags}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for flags in [
            "-Lnc -t 10.0.0.1:80",
            "-t 10.0.0.1:80 -u 10.0.0.1:80",
            "--timeout --daemon",
            "-c --stats",
            "-c --rate",
            "-c --thresholds",
            "--stats --timeout",
            "--daemon --rate",
            "--timeout --persistent-conn",
            "-L -S",
            "-Sn --stats",
            "-Sn --nosort",
            "-Sn --exact",
            "-Sn --json",
            "-Sn --persistent-conn",
            "-Sn --tun-info",
            "-Sn --names",
            "-c --names",
            "--timeout --names",
            "-Sn -t 10.0.0.1:80",
            "-Lnc -6",
            "-Sn -6",
            "--timeout -6",
            "--daemon -6",
            "-Ln -t [fd00::1]:80 -6",
        ] {
            assert_eq!(parsed(flags).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{flags}");
        }
        assert_eq!(parsed("-Ln -6").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn what_is_no_virtual_server_is_refused() {
        for flags in ["-t 10.0.0.1:99999", "-t [fd00::1]", "-t web:80", "-t 10.0.0.1:http", "-t 80", "-f 0", "-f 0x7"] {
            assert_eq!(parsed(flags).unwrap_err().kind(), ErrorKind::ValueValidation, "{flags}");
        }
    }

    #[test]
    fn of_several_layouts_the_same_one_counts_as_in_ipvsadm() {
        for (flags, layout) in [
            ("", Layout::Usual),
            ("--rate --stats", Layout::Stats),
            ("--thresholds --rate", Layout::Rate),
            ("--persistent-conn --thresholds", Layout::Thresholds),
            ("--tun-info --persistent-conn", Layout::PersistentConnections),
            ("--tun-info", Layout::Tunnels),
        ] {
            assert_eq!(parsed(flags).unwrap().style(), Style { layout, exact: false }, "{flags}");
        }
        assert!(parsed("--stats --exact").unwrap().style().exact);
        assert!(parsed("--sort").unwrap().is_sorted() && !parsed("--sort --nosort").unwrap().is_sorted());
    }

    #[test]
    fn the_document_has_every_option() {
        let document = include_str!("../../../docs/inspection.md");
        let section = document.split("\n## ").find(|section| section.starts_with("Options\n")).unwrap();
        for argument in Line::command().get_arguments() {
            let long = argument.get_long().unwrap();
            let is_named = |end: &str| section.contains(&format!("`--{long}{end}"));
            assert!(is_named("`") || is_named(" "), "--{long}");
            let shorts = argument.get_short_and_visible_aliases().unwrap_or_default();
            assert!(shorts.iter().all(|short| section.contains(&format!("`-{short}`"))), "{shorts:?}");
        }
    }
}
