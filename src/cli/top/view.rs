//! How rows look: on a terminal's screen, and as lines.

use super::rows::{Mark, Order, Row, Rows};
use super::screen::Screen;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, TableState};

/// The columns: their headings, whether numbers stand in them, and their widths, 0 for as wide as what stands in them; the
/// name has what is left.
const COLUMNS: [(&str, bool, u16); 9] = [
    ("NAME", false, 0),
    ("VIRTUAL SERVER", false, 0),
    ("SCHEDULER", false, 10),
    ("ACTIVE", true, 8),
    ("INACTIVE", true, 8),
    ("NEW/s", true, 7),
    ("PACKETS/s", true, 9),
    ("BYTES/s", true, 8),
    ("STATE", false, 12),
];
/// Columns that make way on a narrow terminal, by their places, the first one first.
const MAKE_WAY: [usize; 5] = [2, 4, 6, 5, 7];
const NAME_AT_LEAST: usize = 12;
const KEYS: &str =
    "q end  / filter  c connections  n new  p packets  b bytes  a name  Enter into  Esc back  Space pause";
/// The same where the terminal is narrow.
const FEW_KEYS: &str = "q end  / filter  c n p b a sort  Enter into  Esc back  Space pause";

/// Fills the terminal's screen.
pub fn draw(frame: &mut Frame<'_>, rows: &Rows, screen: &Screen) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(summary(rows, screen)).style(Modifier::BOLD), head);
    draw_table(frame, body, rows, screen);
    let keys = if usize::from(foot.width) < KEYS.len() { FEW_KEYS } else { KEYS };
    let help = if screen.is_typing() { format!("filter: {}_", screen.wanted().filter) } else { keys.into() };
    frame.render_widget(Paragraph::new(help), foot);
}

/// The same as lines.
pub fn lines(rows: &Rows, screen: &Screen) -> String {
    let mut text = format!("{}\n", summary(rows, screen));
    let widths = widths(rows);
    for cells in [headings(rows)].into_iter().chain(rows.rows.iter().map(cells)) {
        let mut line = String::new();
        for (((_, is_number, _), width), cell) in COLUMNS.iter().zip(widths).zip(&cells) {
            line += &if *is_number { format!("{cell:>width$} ") } else { format!("{cell:<width$} ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, rows: &Rows, screen: &Screen) {
    let mut widths = widths(rows);
    let shown = shown(&widths, area.width.into(), screen.wanted().order);
    let pick = |cells: [String; 9]| {
        let cells = COLUMNS.iter().zip(cells).zip(&shown).filter(|(_, is_shown)| **is_shown);
        TableRow::new(cells.map(|((column, cell), _)| aligned(cell, column.1)).collect::<Vec<_>>())
    };
    // Thousands of rows are not laid out to show some dozens.
    let height = usize::from(area.height.saturating_sub(1));
    let selected = screen.selected(rows);
    let first = selected.map_or(0, |selected| (selected + 1).saturating_sub(height));
    let lines = rows.rows.iter().skip(first).take(height).map(|row| pick(cells(row)).style(style(row.mark)));
    // The name has what is left.
    widths[0] = usize::from(area.width).saturating_sub(needed(&widths, &shown)) + NAME_AT_LEAST;
    let widths = widths.iter().zip(&shown).filter(|(_, is_shown)| **is_shown);
    let widths = widths.map(|(width, _)| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
    let table = Table::new(lines, widths)
        .header(pick(headings(rows)).style(Modifier::REVERSED))
        .row_highlight_style(Modifier::REVERSED);
    let mut state = TableState::new().with_selected(selected.map(|selected| selected.saturating_sub(first)));
    frame.render_stateful_widget(table, area, &mut state);
}

fn headings(rows: &Rows) -> [String; 9] {
    COLUMNS.map(|(heading, ..)| match heading {
        "VIRTUAL SERVER" if rows.inside.is_some() => "DESTINATION".into(),
        "SCHEDULER" if rows.inside.is_some() => "WEIGHT".into(),
        heading => heading.into(),
    })
}

/// As wide as what stands in a column, where that has no width of its own.
fn widths(rows: &Rows) -> [usize; 9] {
    let widest = |of: fn(&Row) -> &String| rows.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let mut widths = COLUMNS.map(|(heading, _, width)| if width == 0 { heading.len() } else { width.into() });
    widths[0] = widest(|row| &row.name).max(NAME_AT_LEAST);
    widths[1] = widest(|row| &row.address).max(widths[1]);
    widths
}

/// Which columns have a place. What is sorted by stays.
fn shown(widths: &[usize; 9], width: usize, order: Order) -> [bool; 9] {
    let sorted_by = match order {
        Order::Connections => 3,
        Order::New => 5,
        Order::Packets => 6,
        Order::Bytes => 7,
        Order::Name => 0,
    };
    let mut shown = [true; 9];
    for leaving in MAKE_WAY.into_iter().filter(|column| *column != sorted_by) {
        if needed(widths, &shown) > width
            && let Some(is_shown) = shown.get_mut(leaving)
        {
            *is_shown = false;
        }
    }
    shown
}

/// The width that columns need, with a blank between two of them and the narrowest name.
fn needed(widths: &[usize; 9], shown: &[bool; 9]) -> usize {
    let others = widths.iter().zip(shown).skip(1).filter(|(_, is_shown)| **is_shown);
    NAME_AT_LEAST + others.map(|(width, _)| width + 1).sum::<usize>()
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
    let marked =
        if rows.marked > 0 { format!(", {} draining, refusing or in error", rows.marked) } else { String::new() };
    let paused = if screen.is_paused() { ", paused" } else { "" };
    format!("{what}{shown}{marked}, by {}{paused}", word(screen.wanted().order))
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
            Mark::Error => "error".into(),
        },
    ]
}

fn style(mark: Mark) -> Style {
    match mark {
        Mark::None => Style::new(),
        Mark::Draining(_) => Style::new().fg(Color::Yellow),
        Mark::Refusing | Mark::Error => Style::new().fg(Color::Red),
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
