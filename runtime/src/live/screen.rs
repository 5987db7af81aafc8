//! The full screen of `harness watch`: steps with bars, curves, the log and the machine's load, and the keys to look
//! around. [`View`] is what the user chose; [`View::draw`] shows a source that way and touches no terminal itself.

use crate::cli::{bytes, count};
use crate::listen::{fit, seconds};
use crate::live::model::{Curve, Line as LogLine, Live, Standing, fold, is_percent};
use crate::live::source::Source;
use anyhow::Result;
use harness_report::format::number;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Wrap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at the record.
const LOOK: Duration = Duration::from_millis(50);
/// What passes without news is shown so often: times, mostly.
const TICK: Duration = Duration::from_millis(500);
/// Columns from which curves stand beside the steps.
const BESIDE: u16 = 70;
/// Points of a drawn line at most: four times as many as a wide terminal can tell apart.
const POINTS: usize = 800;
/// Lines of a figure at most.
const LINES: usize = 24;
const COLOURS: [Color; 7] =
    [Color::Blue, Color::Yellow, Color::Green, Color::Magenta, Color::Cyan, Color::Red, Color::Gray];

/// A row of the list of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// A step that runs or failed, which nobody should have to look for.
    Step(usize),
    /// The steps of a name, folded or with its members below.
    Family(usize),
    /// A step below its family.
    Member(usize),
}

/// What the user chose to see.
#[derive(Debug, Default)]
pub struct View {
    /// Whether colours are wanted.
    pub colour: bool,
    /// The chosen row.
    at: usize,
    /// The row on top.
    top: usize,
    /// Families that the user folded or unfolded.
    turned: Vec<usize>,
    /// Whether all steps fit the screen as it was drawn last, so that no family need be folded.
    all: bool,
    /// What names must contain.
    filter: String,
    /// Whether a filter is being typed.
    typing: bool,
    /// Whether the log has the whole screen, or the help.
    log: bool,
    help: bool,
    /// Lines that the log is scrolled up.
    back: usize,
    /// Which figure is shown, counted from that of the chosen row.
    figure: usize,
    /// Whether the user is done.
    pub left: bool,
}

/// The text of a step's bar.
fn bar(share: f64, columns: usize) -> String {
    let full = (share * columns as f64).floor() as usize;
    let half = full < columns && share * columns as f64 - full as f64 >= 0.5;
    let rest = columns.saturating_sub(full + usize::from(half));
    format!("{}{}{}", "━".repeat(full.min(columns)), if half { "╸" } else { "" }, " ".repeat(rest))
}

/// A share of the past in eighths of a line, newest last.
fn spark(values: impl DoubleEndedIterator<Item = f64>, columns: usize) -> String {
    const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let mut marks: Vec<char> =
        values.rev().take(columns).map(|v| EIGHTHS[(v.clamp(0.0, 1.0) * 7.0).round() as usize]).collect();
    marks.reverse();
    marks.into_iter().collect()
}

impl View {
    /// A view of everything.
    pub fn new(colour: bool) -> Self {
        Self { colour, ..Self::default() }
    }

    fn paint(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn dim(&self) -> Style {
        if self.colour { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    fn of(&self, standing: Standing) -> Style {
        match standing {
            Standing::Executed => self.paint(Color::Green),
            Standing::Running => self.paint(Color::Blue),
            Standing::Failed => self.paint(Color::Red).add_modifier(Modifier::BOLD),
            Standing::Skipped => self.paint(Color::Yellow),
            Standing::Cached | Standing::Waiting => self.dim(),
        }
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, live: &Live) {
        if self.typing {
            match key.code {
                KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
                KeyCode::Enter => self.typing = false,
                KeyCode::Backspace => _ = self.filter.pop(),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => self.left = true,
                KeyCode::Char(letter) => self.filter.push(letter),
                _ => {}
            }
            (self.at, self.top, self.back) = (0, 0, 0);
            return;
        }
        let rows = self.rows(live);
        let last = rows.len().saturating_sub(1);
        let row = rows.get(self.at).copied();
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => self.left = true,
            KeyCode::Char('q') => self.left = true,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc if self.log => self.log = false,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc => self.left = true,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Char('l') => (self.log, self.back) = (!self.log, 0),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('c') | KeyCode::Tab => self.figure += 1,
            KeyCode::Up | KeyCode::Char('k') if self.log => self.back += 1,
            KeyCode::Down | KeyCode::Char('j') if self.log => self.back = self.back.saturating_sub(1),
            KeyCode::PageUp if self.log => self.back += 10,
            KeyCode::PageDown if self.log => self.back = self.back.saturating_sub(10),
            KeyCode::Home if self.log => self.back = usize::MAX / 2,
            KeyCode::End if self.log => self.back = 0,
            KeyCode::Up | KeyCode::Char('k') => (self.at, self.figure) = (self.at.saturating_sub(1), 0),
            KeyCode::Down | KeyCode::Char('j') => (self.at, self.figure) = ((self.at + 1).min(last), 0),
            KeyCode::PageUp => self.at = self.at.saturating_sub(10),
            KeyCode::PageDown => self.at = (self.at + 10).min(last),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = last,
            KeyCode::Enter | KeyCode::Char(' ') | KeyCode::Right | KeyCode::Left => {
                if let Some(Row::Family(family)) = row {
                    let open = self.is_open(live, family);
                    if key.code != if open { KeyCode::Right } else { KeyCode::Left } {
                        self.turn(family);
                    }
                } else if let (Some(Row::Member(step)), KeyCode::Left) = (row, key.code) {
                    let family = live.steps[step].family;
                    self.turn(family);
                    self.at = self.rows(live).iter().position(|&row| row == Row::Family(family)).unwrap_or(0);
                }
            }
            _ => {}
        }
    }

    /// Folds a family, or unfolds it.
    fn turn(&mut self, family: usize) {
        match self.turned.iter().position(|&turned| turned == family) {
            Some(place) => _ = self.turned.remove(place),
            None => self.turned.push(family),
        }
    }

    /// Whether a family's members are listed: where there is room for all they are, unless the user wants it otherwise.
    fn is_open(&self, live: &Live, family: usize) -> bool {
        (self.all && live.families[family].members.len() > 1) != self.turned.contains(&family)
    }

    /// Rows of the list with every family of several unfolded.
    fn most(live: &Live) -> usize {
        let again = live.shown().filter(|(_, step)| matches!(step.standing, Standing::Running | Standing::Failed));
        let several = live.families.iter().map(|family| family.members.len()).filter(|&members| members > 1);
        again.count() + live.families.len() + several.sum::<usize>()
    }

    fn rows(&self, live: &Live) -> Vec<Row> {
        let filter = self.filter.to_lowercase();
        let fits = |step: usize| {
            let step = &live.steps[step];
            filter.is_empty() || step.label.to_lowercase().contains(&filter) || step.standing.word().contains(&filter)
        };
        let mut rows = Vec::new();
        for standing in [Standing::Running, Standing::Failed] {
            let found = live.shown().filter(|(id, step)| step.standing == standing && fits(*id));
            rows.extend(found.map(|(id, _)| Row::Step(id)));
        }
        for (id, family) in live.families.iter().enumerate() {
            let found: Vec<usize> = family.members.iter().copied().filter(|&member| fits(member)).collect();
            if found.is_empty() {
                continue;
            }
            rows.push(Row::Family(id));
            // Whoever filters looks for steps.
            if self.is_open(live, id) || (!filter.is_empty() && found.len() <= 40) {
                rows.extend(found.into_iter().map(Row::Member));
            }
        }
        rows
    }

    /// Draws the source as it stands.
    pub fn draw(&mut self, frame: &mut Frame<'_>, source: &Source) {
        let area = frame.area();
        if self.help {
            return self.draw_help(frame, area);
        }
        let [head, middle, foot] =
            Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]).areas(area);
        self.draw_head(frame, head, source);
        self.draw_foot(frame, foot);
        if source.generation == 0 {
            frame.render_widget(Paragraph::new("no run yet; the first one that begins is shown here"), middle);
            return;
        }
        if self.log {
            return self.draw_log(frame, middle, &source.live);
        }
        let lines = (middle.height / 4).clamp(3, 14);
        let [upper, lower] = Layout::vertical([Constraint::Min(3), Constraint::Length(lines)]).areas(middle);
        if upper.width >= BESIDE {
            let [left, right] = Layout::horizontal([Constraint::Percentage(54), Constraint::Min(20)]).areas(upper);
            self.draw_steps(frame, left, &source.live);
            self.draw_step(frame, right, &source.live);
        } else {
            self.draw_steps(frame, upper, &source.live);
        }
        self.draw_log(frame, lower, &source.live);
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect, source: &Source) {
        let live = &source.live;
        let over = live.shown().filter(|(_, step)| step.standing.is_over()).count();
        let all = live.shown().count();
        let (word, style) = match (source.generation, live.word()) {
            (0, _) => ("waits", self.dim()),
            (_, word @ "running") => (word, self.of(Standing::Running)),
            (_, word @ "finished") => (word, self.of(Standing::Executed)),
            (_, word @ "interrupted") => (word, self.of(Standing::Skipped)),
            (_, word) => (word, self.of(Standing::Failed)),
        };
        let mut right = String::new();
        if let Some(load) = source.meter.recent.back().filter(|_| source.here && live.word() == "running") {
            let columns = if area.width >= 110 { 20 } else { 8 };
            right = format!(
                "cpu {} {:>3.0} %",
                spark(source.meter.recent.iter().map(|l| l.cpu), columns),
                load.cpu * 100.0
            );
            if area.width >= 76 {
                right.push_str(&format!("  mem {} of {}", bytes(load.used), bytes(load.total)));
            }
            for gpu in load.gpus.iter().take(if area.width >= 110 { 4 } else { 0 }) {
                let used = bytes(gpu.used);
                right.push_str(&format!("  gpu{} {:.0} % {used}", gpu.index, gpu.busy * 100.0));
            }
        }
        let room = usize::from(area.width).saturating_sub(right.chars().count() + 1);
        let time = format!("  {}", seconds(live.elapsed_s()));
        let name = fit(&live.asked.file, room.saturating_sub(word.len() + time.len() + 3).max(8));
        let left = Line::from(vec![
            Span::styled(name, Style::new().add_modifier(Modifier::BOLD)),
            Span::raw("  "),
            Span::styled(word, style.add_modifier(Modifier::BOLD)),
            Span::raw(if source.generation == 0 { String::new() } else { time }),
        ]);
        let [top, below] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
        frame.render_widget(left, top);
        let columns = (right.chars().count() as u16).min(top.width);
        let corner = Rect { x: top.right() - columns, width: columns, ..top };
        frame.render_widget(Line::styled(right, self.dim()), corner);
        let mut parts: Vec<Span<'_>> = Vec::new();
        for standing in Standing::ALL {
            let count = live.count(standing);
            if count > 0 {
                parts.push(Span::styled(format!("{count} {}  ", standing.word()), self.of(standing)));
            }
        }
        let words: usize = parts.iter().map(Span::width).sum();
        let count = format!("{over}/{all} ");
        let columns = usize::from(area.width).saturating_sub(words + count.len() + 1);
        let share = if all == 0 { 0.0 } else { over as f64 / all as f64 };
        let mut line =
            vec![Span::raw(count), Span::styled(bar(share, columns), self.of(Standing::Executed)), Span::raw(" ")];
        line.extend(parts);
        frame.render_widget(Line::from(line), below);
    }

    fn draw_foot(&self, frame: &mut Frame<'_>, area: Rect) {
        let text = if self.typing {
            format!("/{}▏  Enter keeps the filter, Esc drops it", self.filter)
        } else if self.log {
            "l steps  ↑↓ scroll  / filter  ? help  q leave".into()
        } else {
            let filter = if self.filter.is_empty() { String::new() } else { format!("   only `{}`", self.filter) };
            format!("↑↓ choose  ⏎ fold  c curves  l log  / filter  ? help  q leave{filter}")
        };
        frame.render_widget(Line::styled(text, if self.typing { Style::new() } else { self.dim() }), area);
    }

    fn draw_help(&self, frame: &mut Frame<'_>, area: Rect) {
        let keys = [
            ("↑ ↓ j k", "choose a step or a family; PageUp, PageDown, Home, End go far"),
            ("⏎ → ←", "list the steps of a family, fold them again"),
            ("c Tab", "the next figure"),
            ("l", "the log on the whole screen, and back"),
            ("/", "show what contains a text: names, states, lines of the log"),
            ("?", "this, and back"),
            ("q Ctrl-C", "leave; the run goes on"),
        ];
        let mut lines = vec![Line::from("Keys").style(Style::new().add_modifier(Modifier::BOLD)), Line::default()];
        lines.extend(keys.iter().map(|(key, what)| Line::from(format!("  {key:<10}{what}"))));
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
    }

    fn draw_steps(&mut self, frame: &mut Frame<'_>, area: Rect, live: &Live) {
        let block = Block::bordered().title(" steps ").border_style(self.dim());
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let height = usize::from(inside.height).max(1);
        self.all = Self::most(live) <= height;
        let rows = self.rows(live);
        self.at = self.at.min(rows.len().saturating_sub(1));
        self.top = self.top.clamp((self.at + 1).saturating_sub(height), self.at);
        self.top = self.top.min(rows.len().saturating_sub(height));
        let width = usize::from(inside.width);
        for (place, (index, row)) in rows.iter().enumerate().skip(self.top).take(height).enumerate() {
            let mut line = match *row {
                Row::Step(step) => self.step(live, step, width, ""),
                Row::Member(step) => self.step(live, step, width, "  "),
                Row::Family(family) => self.family(live, family, width),
            };
            if index == self.at {
                line = line.style(Style::new().add_modifier(Modifier::REVERSED));
            }
            let at = Rect { y: inside.y + place as u16, height: 1, ..inside };
            frame.render_widget(line, at);
        }
    }

    fn step<'a>(&self, live: &'a Live, id: usize, width: usize, indent: &'static str) -> Line<'a> {
        let step = &live.steps[id];
        let right = match (&step.progress, step.standing) {
            (Some(progress), Standing::Running) => {
                let columns = if width >= 60 { 14 } else { 8 };
                let left = progress.left_s().map(|left| (left - progress.said.elapsed().as_secs_f64()).max(0.0));
                let left = left.map(|left| format!(" {:>8}", short_seconds(left))).unwrap_or_default();
                format!("{} {:>3.0} %{left}", bar(progress.share(), columns), (progress.share() * 100.0).floor())
            }
            (_, Standing::Executed) => match step.headline() {
                numbers if numbers.is_empty() => seconds(step.wall_s),
                numbers => numbers.split("  ").next().unwrap_or_default().to_string(),
            },
            (_, standing) => standing.word().into(),
        };
        let mark = match step.standing {
            Standing::Executed => "✓ ",
            Standing::Cached => "· ",
            Standing::Running => "▶ ",
            Standing::Waiting => "  ",
            Standing::Failed => "✗ ",
            Standing::Skipped => "- ",
        };
        self.line(indent, mark, &step.label, &right, step.standing, width)
    }

    fn family(&self, live: &Live, id: usize, width: usize) -> Line<'static> {
        let family = &live.families[id];
        let count = |standing| live.members(family, standing);
        let all = family.members.len();
        let over = Standing::ALL.into_iter().filter(|standing| standing.is_over()).map(count).sum::<usize>();
        let standing = match () {
            () if count(Standing::Failed) > 0 => Standing::Failed,
            () if count(Standing::Running) > 0 => Standing::Running,
            () if over < all => Standing::Waiting,
            () if count(Standing::Skipped) > 0 => Standing::Skipped,
            () if count(Standing::Executed) > 0 => Standing::Executed,
            () => Standing::Cached,
        };
        let mark = if self.is_open(live, id) { "▾ " } else { "▸ " };
        let right =
            format!("{} {over:>3}/{all:<3}", bar(over as f64 / all.max(1) as f64, if width >= 60 { 14 } else { 8 }));
        let name = if width >= 60 { format!("{}  {}", family.name, family.kind) } else { family.name.clone() };
        self.line("", mark, &name, &right, standing, width)
    }

    fn line(
        &self,
        indent: &'static str,
        mark: &'static str,
        name: &str,
        right: &str,
        standing: Standing,
        width: usize,
    ) -> Line<'static> {
        let taken = indent.len() + 2 + right.chars().count() + 1;
        let name = fit(name, width.saturating_sub(taken).max(6));
        let gap = width.saturating_sub(taken - 1 + name.chars().count());
        Line::from(vec![
            Span::raw(indent),
            Span::styled(mark, self.of(standing)),
            Span::raw(name),
            Span::raw(" ".repeat(gap)),
            Span::styled(right.to_string(), self.of(standing)),
        ])
    }

    /// The chosen step or family: what it is, its numbers, its curves.
    fn draw_step(&self, frame: &mut Frame<'_>, area: Rect, live: &Live) {
        let rows = self.rows(live);
        let chosen = rows.get(self.at).copied();
        let mut lines: Vec<Line<'_>> = Vec::new();
        let title = match chosen {
            Some(Row::Step(step) | Row::Member(step)) => {
                let step = &live.steps[step];
                let place = if step.slot.is_empty() { String::new() } else { format!(" on {}", step.slot) };
                lines.push(Line::styled(
                    format!("{}, {}{place}", step.kind, step.standing.word()),
                    self.of(step.standing),
                ));
                if let Some(progress) = &step.progress {
                    let (done, total) = (progress.done, progress.total);
                    lines.push(Line::from(format!("{}: {done} of {total} {}", progress.stage, progress.unit)));
                }
                if let Some(error) = &step.error {
                    lines.extend(
                        error.lines().take(6).map(|line| Line::styled(line.to_string(), self.of(step.standing))),
                    );
                }
                let numbers = step.headline();
                lines
                    .extend(numbers.split("  ").filter(|n| !n.is_empty()).map(|number| Line::from(number.to_string())));
                step.label.clone()
            }
            Some(Row::Family(family)) => {
                let family = &live.families[family];
                lines.push(Line::from(format!("{}, {}", family.kind, count(family.members.len(), "step"))));
                family.name.clone()
            }
            None => String::new(),
        };
        let block = Block::bordered()
            .title(format!(" {} ", fit(&title, usize::from(area.width).saturating_sub(4).max(4))))
            .border_style(self.dim());
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let figures = figures(live, chosen);
        let words = if figures.is_empty() { inside.height } else { (lines.len() as u16).min(inside.height / 3) };
        let [top, below] = Layout::vertical([Constraint::Length(words), Constraint::Min(0)]).areas(inside);
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), top);
        if let Some(figure) = figures.get(self.figure % figures.len().max(1))
            && below.height >= 4
        {
            self.draw_figure(frame, below, live, figure, chosen, figures.len());
        }
    }

    fn draw_figure(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        live: &Live,
        figure: &[&Curve],
        chosen: Option<Row>,
        figures: usize,
    ) {
        let (kind, name) = (&live.steps[figure[0].step].kind, &figure[0].name);
        let percent = is_percent(kind, name);
        let own = |curve: &Curve| matches!(chosen, Some(Row::Step(step) | Row::Member(step)) if step == curve.step);
        let some_own = figure.iter().any(|curve| own(curve));
        let mut labels: Vec<&str> = Vec::new();
        let points: Vec<Vec<(f64, f64)>> = figure
            .iter()
            .map(|curve| {
                let kept = fold(&curve.y, POINTS);
                kept.into_iter()
                    .map(|at| (curve.x[at], curve.y[at]))
                    .filter(|(x, y)| x.is_finite() && y.is_finite())
                    .collect()
            })
            .collect();
        let all = || points.iter().flatten();
        let range = |of: fn(&(f64, f64)) -> f64| {
            let (low, high) = all().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
            let room = if high > low { 0.0 } else { high.abs().max(1.0) * 0.05 };
            [low - room, high + room]
        };
        if all().next().is_none() {
            frame.render_widget(Paragraph::new(format!("{name}: no number yet")), area);
            return;
        }
        let ([x0, x1], [y0, y1]) = (range(|p| p.0), range(|p| p.1));
        let mut datasets = Vec::new();
        let mut order: Vec<usize> = (0..figure.len()).collect();
        // The chosen one is drawn last, above the others.
        order.sort_by_key(|&at| own(figure[at]));
        for at in order {
            let (label, _) = live.place(figure[at].step);
            let number = labels.iter().position(|known| *known == label).unwrap_or_else(|| {
                labels.push(label);
                labels.len() - 1
            });
            let colour =
                if some_own && !own(figure[at]) { self.dim() } else { self.paint(COLOURS[number % COLOURS.len()]) };
            datasets.push(
                Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).style(colour).data(&points[at]),
            );
        }
        let last = figure.iter().rfind(|curve| own(curve)).or(figure.last()).and_then(|curve| curve.y.last().copied());
        let last = last.map(|last| format!("  now {}", number(last, percent))).unwrap_or_default();
        let more = if figures > 1 { format!("  (c: {figures} figures)") } else { String::new() };
        let unit = if percent { " %" } else { "" };
        let [title, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        frame.render_widget(Line::from(format!("{name}{unit} of {kind}{last}{more}")), title);
        let text = |value: f64, percent: bool| Span::styled(number(value, percent), self.dim());
        let chart = Chart::new(datasets)
            .x_axis(Axis::default().bounds([x0, x1]).style(self.dim()).labels([text(x0, false), text(x1, false)]))
            .y_axis(Axis::default().bounds([y0, y1]).style(self.dim()).labels([text(y0, percent), text(y1, percent)]));
        frame.render_widget(chart, below);
    }

    fn draw_log(&mut self, frame: &mut Frame<'_>, area: Rect, live: &Live) {
        let filter = self.filter.to_lowercase();
        let fits = |line: &&LogLine| {
            !self.log
                || filter.is_empty()
                || line.text.to_lowercase().contains(&filter)
                || line.label.to_lowercase().contains(&filter)
        };
        let block = Block::bordered().title(" log ").border_style(self.dim());
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let found: Vec<&LogLine> = live.log.iter().filter(fits).collect();
        let height = usize::from(inside.height);
        self.back = self.back.min(found.len().saturating_sub(height));
        let end = found.len() - if self.log { self.back } else { 0 };
        for (place, line) in found[end.saturating_sub(height)..end].iter().enumerate() {
            let style = match line.level.as_str() {
                "warn" => self.paint(Color::Yellow),
                "error" => self.paint(Color::Red),
                "out" => self.dim(),
                _ => Style::new(),
            };
            let label = if line.label.is_empty() { String::new() } else { format!("{}  ", fit(&line.label, 28)) };
            let text = match line.level.as_str() {
                "info" | "out" => line.text.clone(),
                level => format!("{level}: {}", line.text),
            };
            let line = Line::from(vec![
                Span::styled(label, self.paint(Color::Cyan)),
                Span::styled(text.replace('\t', "    "), style),
            ]);
            frame.render_widget(line, Rect { y: inside.y + place as u16, height: 1, ..inside });
        }
    }
}

/// `12 s`, `3 m 20 s`, `2 h 5 m`: no longer than a column of the list.
fn short_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5_970.0 => format!("{} m {} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {} m", s as u64 / 3600, s as u64 % 3600 / 60),
    }
}

/// The curves by what is drawn: those of the chosen row's kind first. A learning rate comes last.
fn figures(live: &Live, chosen: Option<Row>) -> Vec<Vec<&Curve>> {
    let kind = match chosen {
        Some(Row::Step(step) | Row::Member(step)) => live.steps.get(step).map(|step| step.kind.as_str()),
        Some(Row::Family(family)) => live.families.get(family).map(|family| family.kind.as_str()),
        None => None,
    };
    let mut figures: Vec<(&str, &str, Vec<&Curve>)> = Vec::new();
    for curve in live.curves.iter() {
        let of = live.steps.get(curve.step).map_or("", |step| step.kind.as_str());
        let place =
            figures.iter().position(|(kind, name, _)| *kind == of && *name == curve.name).unwrap_or_else(|| {
                figures.push((of, &curve.name, Vec::new()));
                figures.len() - 1
            });
        if figures[place].2.len() < LINES {
            figures[place].2.push(curve);
        }
    }
    figures.sort_by_key(|(of, name, _)| (kind.is_some_and(|kind| kind != *of), *name == "lr"));
    figures.into_iter().map(|(_, _, curves)| curves).collect()
}

/// Shows the source on the whole terminal until the user leaves, or a signal says so. The terminal is as it was then,
/// also after a panic.
///
/// # Errors
/// The terminal cannot be used.
pub fn show(source: &mut Source, colour: bool) -> Result<()> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, told.clone())?;
    }
    let mut terminal = ratatui::try_init()?;
    let result = watch(source, &mut terminal, &mut View::new(colour), &told);
    ratatui::try_restore()?;
    result
}

fn watch(
    source: &mut Source,
    terminal: &mut ratatui::DefaultTerminal,
    view: &mut View,
    told: &AtomicBool,
) -> Result<()> {
    let mut shown: Option<Instant> = None;
    while !view.left && !told.load(Ordering::Relaxed) {
        let mut news = source.look();
        // Keys are taken as they come; what they change is drawn once.
        while event::poll(if news { Duration::ZERO } else { LOOK })? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => view.key(key, &source.live),
                Event::Resize(..) => {}
                _ => continue,
            }
            news = true;
            if view.left {
                return Ok(());
            }
        }
        if news || shown.is_none_or(|shown| shown.elapsed() >= TICK) {
            terminal.draw(|frame| view.draw(frame, source))?;
            shown = Some(Instant::now());
        }
        if news {
            // Twenty pictures a second are enough.
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::load::{Gpu, Load};
    use crate::live::source::Which;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::UNIX_EPOCH;

    /// A run with 40 pretrainings, 160 evaluations of them, a failure, curves and a log.
    fn source(dir: &std::path::Path) -> Source {
        let mut source = Source::new(dir, Which::Newest);
        source.generation = 1;
        let live = &mut source.live;
        live.asked.file = "transfer.exp".into();
        live.last_word = Some(UNIX_EPOCH + Duration::from_secs(83));
        let mut line = |text: String| live.line(&text);
        for n in 0..40 {
            line(format!(
                r#"{{"event":"step_started","step":{n},"label":"moco[seed={n}]","kind":"pretrain","key":"0","slot":"cpu#{n}"}}"#
            ));
            for x in 1..=20 {
                let y = 5.0 / f64::from(x) + f64::from(n) / 40.0;
                line(format!(
                    r#"{{"event":"metric","step":{n},"label":"moco[seed={n}]","name":"loss","x":{x},"y":{y}}}"#
                ));
            }
            if n < 38 {
                line(format!(
                    r#"{{"event":"step_finished","step":{n},"label":"moco[seed={n}]","kind":"pretrain","key":null,"status":"executed","wall_s":12.5,"metrics":{{"loss":1.25}},"error":null}}"#
                ));
            }
        }
        line(r#"{"event":"progress","step":38,"label":"moco[seed=38]","stage":"epoch 3/8","done":3,"total":8,"unit":"pictures","elapsed_s":90.0}"#.into());
        for n in 40..200 {
            let label = format!("nearest[method=moco, dataset=a-long-name-of-a-dataset, seed={n}]");
            let (status, error) = match n {
                40 => ("failed", "\"too little memory\\nfor 3 GiB\""),
                41..90 => ("cached", "null"),
                _ => ("executed", "null"),
            };
            line(format!(
                r#"{{"event":"step_finished","step":{n},"label":"{label}","kind":"knn","key":null,"status":"{status}","wall_s":2,"metrics":{{"top1":0.5}},"error":{error}}}"#
            ));
        }
        for n in 0..20 {
            live.say("out", "moco[seed=38]", &format!("line {n}\tof its output"));
        }
        live.say("warn", "", "something is odd");
        let gpu = Gpu { index: 0, name: "some".into(), busy: 0.93, used: 12 << 30, total: 80 << 30 };
        for share in 0..8 {
            source.meter.recent.push_back(Load {
                cpu: f64::from(share) / 7.0,
                used: 3 << 30,
                total: 24 << 30,
                gpus: vec![gpu.clone()],
            });
        }
        source
    }

    fn drawn(view: &mut View, source: &Source, columns: u16, rows: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| view.draw(frame, source)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y: u16| {
            let text: String = (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
            format!("{}\n", text.trim_end())
        };
        (0..rows).map(row).collect()
    }

    fn press(view: &mut View, source: &Source, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '↓' => KeyCode::Down,
                '↑' => KeyCode::Up,
                '⎋' => KeyCode::Esc,
                other => KeyCode::Char(other),
            };
            view.key(KeyEvent::new(code, KeyModifiers::NONE), &source.live);
        }
    }

    /// As stored; `HARNESS_BLESS` stores what is drawn now instead, to be looked at.
    fn matches(name: &str, drawn: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testdata").join(name);
        if std::env::var_os("HARNESS_BLESS").is_some() {
            std::fs::write(&path, drawn).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == drawn, "{name} is drawn otherwise:\n{drawn}\nthan it was:\n{stored}");
    }

    #[test]
    fn two_hundred_steps_fit_a_small_screen_and_a_large_one() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let mut view = View::new(false);
        matches("screen-80x24.txt", &drawn(&mut view, &source, 80, 24));
        matches("screen-160x50.txt", &drawn(&mut view, &source, 160, 50));
        // The failure, with what it said.
        press(&mut view, &source, "↓↓");
        let failure = drawn(&mut view, &source, 120, 30);
        assert!(failure.contains("too little memory") && failure.contains("knn, failed"), "{failure}");
        // A family, unfolded.
        press(&mut view, &source, "↓\n");
        let unfolded = drawn(&mut view, &source, 100, 30);
        assert!(unfolded.contains("▾ moco") && unfolded.contains("✓ moco[seed=0]"), "{unfolded}");
        // Filtered.
        press(&mut view, &source, "/seed=39\n");
        let filtered = drawn(&mut view, &source, 100, 30);
        assert!(filtered.contains("moco[seed=39]") && !filtered.contains("moco[seed=0]"), "{filtered}");
        press(&mut view, &source, "⎋l");
        let log = drawn(&mut view, &source, 100, 30);
        assert!(
            log.contains("line 0    of its output") && log.contains("warn: something is odd") && !log.contains("▸"),
            "{log}"
        );
        press(&mut view, &source, "/odd\n");
        let log = drawn(&mut view, &source, 100, 30);
        assert!(log.contains("something is odd") && !log.contains("line 1"), "{log}");
        press(&mut view, &source, "?");
        assert!(drawn(&mut view, &source, 60, 20).contains("the run goes on"));
        press(&mut view, &source, "?q");
        assert!(view.left);
    }

    #[test]
    fn no_size_is_too_small() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let empty = Source::new(dir.path(), Which::Newest);
        for (columns, rows) in [(1, 1), (2, 40), (10, 3), (20, 5), (40, 12), (69, 9), (300, 4), (300, 100)] {
            for keys in ["", "l", "?", "↓↓↓\n↓"] {
                let mut view = View::new(true);
                press(&mut view, &source, keys);
                drawn(&mut view, &source, columns, rows);
                drawn(&mut View::new(true), &empty, columns, rows);
            }
        }
    }
}
