//! Pictures of the screen for the documents, from a table that was recorded of a kernel with a daemon.
//!
//! `IPVSD_RECORD=1 ./dev test record` writes tests/fixtures/top.json anew, `IPVSD_UPDATE=1 cargo test --lib picture` the
//! pictures.

use super::NameOf;
use super::rows::{Order, Rows};
use super::screen::Screen;
use super::view;
use crate::cli::names::Known;
use crate::inspect::Owner;
use crate::kernel::ipvs::{DestinationEntry, Identity, Info, Stats, Tunnel, VirtualServerEntry};
use crate::kernel::linux::Table;
use crate::model::{DestinationKey, Family, Protocol, VirtualServerKey};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write;
use std::fs;

/// What a terminal of this width and height shows.
pub fn shown(table: &Table, screen: &Screen, names: NameOf<'_>, (width, height): (u16, u16)) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, &Rows::of(table, screen.wanted(), names), screen)).unwrap();
    terminal.backend().clone()
}

#[test]
fn the_pictures_are_what_is_shown() {
    let recorded = include_str!("../../../tests/fixtures/top.json");
    let recorded: Value = serde_json::from_str(recorded).unwrap();
    let table = table(&recorded["table"]);
    let owners: Vec<Owner> = serde_json::from_value(recorded["owners"].clone()).unwrap();
    let known = |owner: Owner| (owner.server.into(), Known { service: owner.service, in_trouble: owner.in_trouble });
    let known: HashMap<VirtualServerKey, Known> = owners.into_iter().map(known).collect();
    let names = |identity: &Identity| known.get(&identity.key()?).cloned();
    let mut screen = Screen::new(Order::Connections, "");
    for (name, keys, height) in [("top", "", 11), ("top-inside", "/api\n\n", 6)] {
        for key in keys.chars().map(|key| if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) }) {
            screen.press(KeyEvent::new(key, KeyModifiers::NONE), &Rows::of(&table, screen.wanted(), &names));
        }
        let picture = svg(shown(&table, &screen, &names, (118, height)).buffer());
        let file = format!("{}/docs/pictures/{name}.svg", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("IPVSD_UPDATE").is_some() {
            fs::write(&file, &picture).unwrap();
        }
        assert!(fs::read_to_string(&file).unwrap() == picture, "{file} is not what is shown; IPVSD_UPDATE=1 writes it");
    }
}

/// The table of `ipvsd list --json`.
fn table(listing: &Value) -> Table {
    let virtual_servers = listing["virtualServers"].as_array().unwrap().iter();
    let destinations = |server: &Value| server["destinations"].as_array().unwrap().iter().map(destination).collect();
    Table {
        info: Info { version: 0, connection_table_size: number(&listing["connectionTableSize"]) },
        virtual_servers: virtual_servers.map(|server| (virtual_server(server), destinations(server))).collect(),
    }
}

fn virtual_server(server: &Value) -> VirtualServerEntry {
    let protocol = server["protocol"].as_str().and_then(Protocol::from_name);
    let identity = match protocol {
        Some(protocol) => Identity::Address {
            address: server["address"].as_str().unwrap().parse().unwrap(),
            port: number(&server["port"]),
            protocol: protocol.number().into(),
        },
        None => Identity::Mark { mark: number(&server["mark"]), family: Family::Ipv4 },
    };
    VirtualServerEntry {
        identity,
        scheduler: server["scheduler"].as_str().unwrap().into(),
        persistence_engine: None,
        flags: 0,
        timeout: 0,
        netmask: u32::MAX,
        stats: stats(&server["stats"]),
    }
}

fn destination(one: &Value) -> DestinationEntry {
    DestinationEntry {
        key: DestinationKey { address: one["address"].as_str().unwrap().parse().unwrap(), port: number(&one["port"]) },
        forwarding: None,
        weight: number(&one["weight"]),
        upper_threshold: 0,
        lower_threshold: 0,
        active: number(&one["activeConnections"]),
        inactive: number(&one["inactiveConnections"]),
        persistent: 0,
        stats: stats(&one["stats"]),
        tunnel: Tunnel::default(),
    }
}

/// The rates alone, which are what is shown.
fn stats(stats: &Value) -> Stats {
    Stats {
        connection_rate: number(&stats["connectionsPerSecond"]),
        packet_rate_in: number(&stats["packetsInPerSecond"]),
        packet_rate_out: number(&stats["packetsOutPerSecond"]),
        byte_rate_in: number(&stats["bytesInPerSecond"]),
        byte_rate_out: number(&stats["bytesOutPerSecond"]),
        ..Stats::default()
    }
}

fn number<T: TryFrom<u64>>(value: &Value) -> T {
    let number = value.as_u64().and_then(|number| T::try_from(number).ok());
    number.unwrap_or_else(|| panic!("{value} is not such a number"))
}

/// Of a cell, in units of SVG.
const WIDTH: usize = 8;
const HEIGHT: usize = 18;

/// A screen as SVG: for each run of cells that look alike a rectangle and a text.
fn svg(buffer: &Buffer) -> String {
    let (columns, lines) = (usize::from(buffer.area.width), usize::from(buffer.area.height));
    let (width, height) = (columns * WIDTH + 2 * WIDTH, lines * HEIGHT + HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-size=\"13\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{BLACK}\"/>\n"
    );
    for (line, cells) in buffer.content.chunks(columns).enumerate() {
        let mut column = 0;
        for run in cells.chunk_by(|one, next| look(one) == look(next)) {
            let text: String = run.iter().map(Cell::symbol).collect();
            let ([paper, ink], is_bold) = look(&run[0]);
            let (x, y, width) = (WIDTH + column * WIDTH, HEIGHT / 2 + line * HEIGHT, run.len() * WIDTH);
            if paper != BLACK {
                writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" fill=\"{paper}\"/>")
                    .unwrap();
            }
            if !text.trim().is_empty() {
                let weight = if is_bold { " font-weight=\"bold\"" } else { "" };
                let (y, text) = (y + 13, text.replace('&', "&amp;").replace('<', "&lt;"));
                writeln!(
                    svg,
                    "<text x=\"{x}\" y=\"{y}\" textLength=\"{width}\" fill=\"{ink}\"{weight} \
                     xml:space=\"preserve\">{text}</text>"
                )
                .unwrap();
            }
            column += run.len();
        }
    }
    svg + "</svg>\n"
}

const BLACK: &str = "#14171a";
const WHITE: &str = "#e8e8e8";

/// The colours of paper and ink, and whether it is bold.
fn look(cell: &Cell) -> ([&'static str; 2], bool) {
    let ink = match cell.fg {
        Color::Yellow => "#ffcf70",
        Color::Red => "#ff9b9b",
        _ => WHITE,
    };
    let colours = if cell.modifier.contains(Modifier::REVERSED) { [ink, BLACK] } else { [BLACK, ink] };
    (colours, cell.modifier.contains(Modifier::BOLD))
}
