//! Rows, keys and pictures, from a table made up here.

use super::picture;
use super::rows::{Mark, Order, Rows};
use super::screen::{Next, Screen};
use super::view;
use crate::cli::names::Known;
use crate::kernel::ipvs::{DestinationEntry, Identity, Info, Stats, Tunnel, VirtualServerEntry};
use crate::kernel::linux::Table;
use crate::model::{DestinationKey, Family, Forwarding};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

const WEB: &str = "10.96.0.1";
const DNS: &str = "10.96.0.10";

fn identity(address: &str, port: u16, protocol: u16) -> Identity {
    Identity::Address { address: address.parse().unwrap(), port, protocol }
}

fn virtual_server(identity: Identity, scheduler: &str, rates: [u64; 3]) -> VirtualServerEntry {
    let [connection_rate, packet_rate_in, byte_rate_in] = rates;
    VirtualServerEntry {
        identity,
        scheduler: scheduler.into(),
        persistence_engine: None,
        flags: 0,
        timeout: 0,
        netmask: u32::MAX,
        stats: Stats { connection_rate, packet_rate_in, packet_rate_out: 1, byte_rate_in, ..Stats::default() },
    }
}

fn destination(last: u8, weight: u32, active: u32) -> DestinationEntry {
    DestinationEntry {
        key: DestinationKey { address: [10, 1, 0, last].into(), port: 8080 },
        forwarding: Some(Forwarding::Masquerade),
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        active,
        inactive: 1,
        persistent: 0,
        stats: Stats::default(),
        tunnel: Tunnel::default(),
    }
}

fn table() -> Table {
    let mark = Identity::Mark { mark: 0x7000_0001, family: Family::Ipv6 };
    Table {
        info: Info { version: 0, connection_table_size: 4096 },
        virtual_servers: vec![
            (
                virtual_server(identity(WEB, 80, 6), "rr", [5, 10, 123_456]),
                vec![destination(1, 1, 7), destination(2, 0, 2)],
            ),
            (virtual_server(identity(DNS, 53, 17), "mh", [900, 20, 99_999]), vec![destination(3, 1, 0)]),
            (virtual_server(mark, "wrr", [0, 0, 0]), vec![]),
        ],
    }
}

fn names(identity: &Identity) -> Option<Known> {
    let known = |service: &str| Some(Known { service: service.into(), in_trouble: false });
    match identity {
        Identity::Address { port: 80, .. } => known("shop/web"),
        Identity::Address { port: 53, .. } => known("kube-system/dns"),
        _ => None,
    }
}

fn rows(screen: &Screen) -> Rows {
    Rows::of(&table(), screen.wanted(), &names)
}

fn addresses(screen: &Screen) -> Vec<String> {
    rows(screen).rows.into_iter().map(|row| row.address).collect()
}

fn press(screen: &mut Screen, codes: &[KeyCode]) -> Next {
    let mut next = Next::Draw;
    for code in codes {
        let rows = rows(screen);
        next = screen.press(KeyEvent::new(*code, KeyModifiers::NONE), &rows);
    }
    next
}

#[test]
fn each_order_has_its_first() {
    let (web, dns, mark) = ("tcp 10.96.0.1:80", "udp 10.96.0.10:53", "mark 0x70000001 IPv6");
    for (order, wanted) in [
        (Order::Connections, [web, dns, mark]),
        (Order::New, [dns, web, mark]),
        (Order::Packets, [dns, web, mark]),
        (Order::Bytes, [web, dns, mark]),
        (Order::Name, [mark, dns, web]),
    ] {
        assert_eq!(addresses(&Screen::new(order, "")), wanted, "{order:?}");
    }
}

#[test]
fn the_filter_looks_at_names_addresses_and_schedulers_in_any_case() {
    for (filter, wanted) in [("SHOP", 1), ("10.96.0.1", 2), ("wrr", 1), ("nothing", 0), ("", 3)] {
        let found = rows(&Screen::new(Order::Name, filter));
        assert_eq!((found.rows.len(), found.total), (wanted, 3), "{filter}");
    }
}

#[test]
fn what_refuses_and_what_drains_is_marked() {
    let found = rows(&Screen::new(Order::Connections, ""));
    let marks: Vec<_> = found.rows.iter().map(|row| row.mark).collect();
    assert_eq!(marks, [Mark::Draining(1), Mark::None, Mark::Refusing]);
    assert_eq!(found.marked, 2);
    let in_trouble = |identity: &Identity| names(identity).map(|known| Known { in_trouble: true, ..known });
    let found = Rows::of(&table(), Screen::new(Order::Connections, "").wanted(), &in_trouble);
    assert_eq!(found.rows[1].mark, Mark::Error, "the name server");
}

#[test]
fn keys_lead_into_a_virtual_server_and_back_to_it() {
    let mut screen = Screen::new(Order::Connections, "");
    press(&mut screen, &[KeyCode::Down, KeyCode::Enter]);
    assert_eq!(addresses(&screen), ["10.1.0.3:8080"]);
    press(&mut screen, &[KeyCode::Esc]);
    assert_eq!(screen.selected(&rows(&screen)), Some(1));
    press(&mut screen, &[KeyCode::Char('a')]);
    assert_eq!(screen.selected(&rows(&screen)), Some(1), "the name server is second by name, too");
    press(&mut screen, &[KeyCode::Char('n')]);
    assert_eq!(screen.selected(&rows(&screen)), Some(0), "the selection goes with the row");
    press(&mut screen, &[KeyCode::End]);
    assert_eq!(screen.selected(&rows(&screen)), Some(2));
    press(&mut screen, &[KeyCode::Down, KeyCode::PageUp]);
    assert_eq!(screen.selected(&rows(&screen)), Some(0));
}

#[test]
fn a_filter_is_written_mended_and_dropped() {
    let mut screen = Screen::new(Order::Name, "");
    press(
        &mut screen,
        &[KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Backspace, KeyCode::Char('d'), KeyCode::Char('n')],
    );
    assert_eq!((screen.wanted().filter.as_str(), screen.is_typing()), ("dn", true), "q is a letter here");
    assert_eq!(addresses(&screen).len(), 1);
    press(&mut screen, &[KeyCode::Enter, KeyCode::Esc]);
    assert_eq!((screen.wanted().filter.as_str(), screen.is_typing()), ("", false));
}

#[test]
fn keys_end_look_and_pause() {
    let mut screen = Screen::new(Order::Name, "");
    assert_eq!(press(&mut screen, &[KeyCode::Char('r')]), Next::Look);
    press(&mut screen, &[KeyCode::Char(' ')]);
    assert!(screen.is_paused());
    assert_eq!(press(&mut screen, &[KeyCode::Char('q')]), Next::End);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    let rows = rows(&screen);
    assert_eq!(screen.press(control_c, &rows), Next::End);
}

#[test]
fn an_empty_table_takes_every_key() {
    let empty = Table { virtual_servers: vec![], ..table() };
    let mut screen = Screen::new(Order::Name, "");
    for code in [KeyCode::Down, KeyCode::Up, KeyCode::Enter, KeyCode::End, KeyCode::Esc, KeyCode::PageDown] {
        let rows = Rows::of(&empty, screen.wanted(), &names);
        screen.press(KeyEvent::new(code, KeyModifiers::NONE), &rows);
    }
    assert_eq!(screen.selected(&Rows::of(&empty, screen.wanted(), &names)), None);
}

#[test]
fn lines_have_a_column_for_each_measure() {
    let screen = Screen::new(Order::Connections, "");
    let text = view::lines(&rows(&screen), &screen);
    let expected = "\
3 virtual servers, 2 draining, refusing or in error, by connections
NAME            VIRTUAL SERVER       SCHEDULER    ACTIVE INACTIVE   NEW/s PACKETS/s  BYTES/s STATE
shop/web        tcp 10.96.0.1:80     rr 2              9        2       5        11     123k draining
kube-system/dns udp 10.96.0.10:53    mh 1              0        1     900        21    99999
                mark 0x70000001 IPv6 wrr 0             0        0       0         1        0 refusing
";
    assert_eq!(text, expected);
}

#[test]
fn the_screen_fits_a_terminal_of_any_size() {
    for (width, height) in [(140, 8), (80, 24), (20, 3), (1, 1)] {
        let screen = Screen::new(Order::Connections, "");
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view::draw(frame, &rows(&screen), &screen)).unwrap();
        let shown = terminal.backend().to_string();
        assert!(width < 140 || (shown.contains("shop/web") && shown.contains("123k")), "{shown}");
    }
}

#[test]
fn on_a_narrow_terminal_some_columns_make_way_but_not_what_is_sorted_by() {
    for (order, width, there, gone) in [
        (Order::Packets, 80, ["PACKETS/s", "STATE", "kube-system/dns"], ["SCHEDULER", "INACTIVE"]),
        (Order::Connections, 80, ["NEW/s", "BYTES/s", "10.96.0.10:53"], ["SCHEDULER", "PACKETS/s"]),
        (Order::Bytes, 60, ["ACTIVE", "BYTES/s", "refusing"], ["INACTIVE", "NEW/s"]),
    ] {
        let screen = Screen::new(order, "");
        let shown = picture::shown(&table(), &screen, &names, (width, 8)).to_string();
        assert!(
            there.iter().all(|text| shown.contains(text)) && !gone.iter().any(|text| shown.contains(text)),
            "{shown}"
        );
    }
}

#[test]
fn of_many_rows_those_around_the_selected_one_are_shown() {
    let many = |number: u8| (virtual_server(identity(&format!("10.96.0.{number}"), 80, 6), "rr", [0; 3]), vec![]);
    let table = Table { virtual_servers: (0..=99).map(many).collect(), ..table() };
    let mut screen = Screen::new(Order::Name, "");
    let rows = |screen: &Screen| Rows::of(&table, screen.wanted(), &names);
    for (key, first, last) in [(KeyCode::Home, 0, 19), (KeyCode::End, 80, 99), (KeyCode::PageUp, 70, 89)] {
        screen.press(KeyEvent::new(key, KeyModifiers::NONE), &rows(&screen));
        let shown = picture::shown(&table, &screen, &names, (120, 23)).to_string();
        let order: Vec<_> = rows(&screen).rows.into_iter().map(|row| row.address).collect();
        assert!(shown.contains(&order[first]) && shown.contains(&order[last]), "{key}: {shown}");
        assert_eq!(shown.matches("10.96.0.").count(), 20, "{key}: {shown}");
    }
}
