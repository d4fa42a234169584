//! What the screen shows of all there is, and what keys change of it. Pure.

use super::rows::{Order, Rows, Subject, Wanted};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The state of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    wanted: Wanted,
    /// Whether keys write into the filter.
    is_typing: bool,
    /// The row that keys are about. It keeps its subject when rows change their order.
    selected: Option<Subject>,
    /// Whether the kernel is not looked at for now.
    is_paused: bool,
}

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The screen is other than it was.
    Draw,
    /// A new look at the kernel.
    Look,
    /// The end.
    End,
}

impl Screen {
    /// All virtual servers in some order, as far as they have this text.
    pub fn new(order: Order, filter: &str) -> Self {
        let wanted = Wanted { order, filter: filter.into(), inside: None };
        Self { wanted, is_typing: false, selected: None, is_paused: false }
    }

    /// Which rows are shown.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Whether the filter is being written.
    pub fn is_typing(&self) -> bool {
        self.is_typing
    }

    /// Whether the kernel is not looked at for now.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Where the selected row is; the first one if it went away.
    pub fn selected(&self, rows: &Rows) -> Option<usize> {
        let position = self.selected.and_then(|subject| rows.position(subject));
        position.or((!rows.rows.is_empty()).then_some(0))
    }

    /// Does what a key asks, where `rows` are what is shown.
    pub fn press(&mut self, key: KeyEvent, rows: &Rows) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { Next::End } else { Next::Draw };
        }
        if self.is_typing {
            self.write(key.code);
            return Next::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return Next::End,
            KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('r') => return Next::Look,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('c') => self.wanted.order = Order::Connections,
            KeyCode::Char('n') => self.wanted.order = Order::New,
            KeyCode::Char('p') => self.wanted.order = Order::Packets,
            KeyCode::Char('b') => self.wanted.order = Order::Bytes,
            KeyCode::Char('a') => self.wanted.order = Order::Name,
            KeyCode::Enter | KeyCode::Right => self.enter(rows),
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => self.leave(),
            code => self.walk(code, rows),
        }
        Next::Draw
    }

    fn write(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(letter) => self.wanted.filter.push(letter),
            KeyCode::Backspace => _ = self.wanted.filter.pop(),
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.wanted.filter.clear();
            }
            _ => {}
        }
    }

    fn enter(&mut self, rows: &Rows) {
        let row = self.selected(rows).and_then(|index| rows.rows.get(index));
        if let Some(Subject::VirtualServer(identity)) = row.map(|row| row.subject) {
            self.wanted.inside = Some(identity);
            self.selected = None;
            self.wanted.filter.clear();
        }
    }

    /// Out of a virtual server, and then off the filter.
    fn leave(&mut self) {
        match self.wanted.inside.take() {
            Some(identity) => self.selected = Some(Subject::VirtualServer(identity)),
            None => self.wanted.filter.clear(),
        }
    }

    fn walk(&mut self, code: KeyCode, rows: &Rows) {
        const PAGE: usize = 10;
        let (here, last) = (self.selected(rows).unwrap_or(0), rows.rows.len().saturating_sub(1));
        let there = match code {
            KeyCode::Up | KeyCode::Char('k') => here.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => here.saturating_add(1),
            KeyCode::PageUp => here.saturating_sub(PAGE),
            KeyCode::PageDown => here.saturating_add(PAGE),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => last,
            _ => return,
        };
        self.selected = rows.rows.get(there.min(last)).map(|row| row.subject);
    }
}
