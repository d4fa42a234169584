//! How rows look: on a terminal's screen, and as lines.

use super::rows::{Mark, Order, Row, Rows};
use super::screen::Screen;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, TableState};
use std::fmt::Write;

/// The columns: their headings, whether numbers stand in them, and their widths; the name has what is left.
const COLUMNS: [(&str, bool, u16); 9] = [
    ("NAME", false, 0),
    ("VIRTUAL SERVER", false, 34),
    ("SCHEDULER", false, 10),
    ("ACTIVE", true, 8),
    ("INACTIVE", true, 8),
    ("NEW/s", true, 7),
    ("PACKETS/s", true, 9),
    ("BYTES/s", true, 8),
    ("STATE", false, 12),
];
const NAME_AT_LEAST: u16 = 12;
const KEYS: &str =
    "q end  / filter  c connections  n new  p packets  b bytes  a name  Enter into  Esc back  Space pause";

/// Fills the terminal's screen.
pub fn draw(frame: &mut Frame<'_>, rows: &Rows, screen: &Screen) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(summary(rows, screen)).style(Modifier::BOLD), head);
    draw_table(frame, body, (rows, screen));
    let help = if screen.is_typing() { format!("filter: {}_", screen.filter()) } else { KEYS.into() };
    frame.render_widget(Paragraph::new(help), foot);
}

/// The same as lines.
pub fn lines(rows: &Rows, screen: &Screen) -> String {
    let mut text = format!("{}\n", summary(rows, screen));
    let width = rows.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(NAME_AT_LEAST.into());
    let headings = COLUMNS.map(|(heading, ..)| heading.to_owned());
    for cells in [headings].into_iter().chain(rows.rows.iter().map(cells)) {
        let mut line = String::new();
        for ((_, is_number, fixed), cell) in COLUMNS.iter().zip(&cells) {
            let width = if *fixed == 0 { width } else { usize::from(*fixed) };
            // Writing to a String cannot fail.
            _ = if *is_number { write!(line, "{cell:>width$} ") } else { write!(line, "{cell:<width$} ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, (rows, screen): (&Rows, &Screen)) {
    let width = |(_, _, fixed): &(&str, bool, u16)| match fixed {
        0 => Constraint::Min(NAME_AT_LEAST),
        fixed => Constraint::Length(*fixed),
    };
    let lines = rows.rows.iter().map(|row| {
        let cells = COLUMNS.iter().zip(cells(row)).map(|((_, is_number, _), cell)| aligned(cell, *is_number));
        TableRow::new(cells.collect::<Vec<_>>()).style(style(row.mark))
    });
    let headings = COLUMNS.iter().map(|(heading, is_number, _)| aligned((*heading).into(), *is_number));
    let table = Table::new(lines, COLUMNS.iter().map(width))
        .header(TableRow::new(headings.collect::<Vec<_>>()).style(Modifier::REVERSED))
        .row_highlight_style(Modifier::REVERSED);
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(screen.selected(rows)));
}

fn aligned(text: String, is_number: bool) -> Cell<'static> {
    let line = Line::from(text);
    Cell::from(if is_number { line.right_aligned() } else { line })
}

fn summary(rows: &Rows, screen: &Screen) -> String {
    let what = match &rows.inside {
        Some(server) => format!("{server}: {} destinations", rows.total),
        None => format!("{} virtual servers", rows.total),
    };
    let shown = if rows.rows.len() < rows.total { format!(", {} shown", rows.rows.len()) } else { String::new() };
    let marked = if rows.marked > 0 { format!(", {} draining or refusing", rows.marked) } else { String::new() };
    let paused = if screen.is_paused() { ", paused" } else { "" };
    format!("{what}{shown}{marked}, by {}{paused}", word(screen.order()))
}

fn word(order: Order) -> &'static str {
    match order {
        Order::Connections => "connections",
        Order::New => "new connections",
        Order::Packets => "packets",
        Order::Bytes => "bytes",
        Order::Name => "name",
    }
}

fn cells(row: &Row) -> [String; 9] {
    [
        row.name.clone(),
        row.address.clone(),
        row.detail.clone(),
        short(row.active),
        short(row.inactive),
        short(row.new),
        short(row.packets),
        short(row.bytes),
        match row.mark {
            Mark::None => String::new(),
            Mark::Draining(1) => "draining".into(),
            Mark::Draining(count) => format!("{count} draining"),
            Mark::Refusing => "refusing".into(),
        },
    ]
}

fn style(mark: Mark) -> Style {
    match mark {
        Mark::None => Style::new(),
        Mark::Draining(_) => Style::new().fg(Color::Yellow),
        Mark::Refusing => Style::new().fg(Color::Red),
    }
}

/// Up to 5 digits as they are, more in thousands, millions and so on.
fn short(number: u64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let (mut number, mut unit) = (number, 0);
    while number >= 100_000 {
        number /= 1_000;
        unit += 1;
    }
    format!("{number}{}", UNITS.get(unit).unwrap_or(&""))
}
