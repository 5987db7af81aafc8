//! Listeners: each takes events and shows or keeps them. One that fails warns and never fails the run.

use crate::events::{Event, Status};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Something that takes events.
pub trait Listener {
    /// Takes one event, in the order they happened.
    fn event(&mut self, event: &Event);

    /// Takes the lines of a run that found everything known, as [`Lines`] wrote them.
    fn known(&mut self, lines: &[u8]) {
        let logs = lines.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"event\":\"log\""));
        logs.filter_map(|line| serde_json::from_slice(line).ok()).for_each(|event| self.event(&event));
    }
}

/// One JSON object a line.
pub struct Lines<W: Write> {
    out: W,
    broken: bool,
    /// When readers got the last line.
    flushed: Instant,
}

/// Known results come by the thousand: their lines may wait so long for one write.
const TOGETHER: Duration = Duration::from_millis(50);

impl<W: Write> Lines<W> {
    /// A closed pipe is the reader's choice; anything else is worth one word.
    fn ended(&mut self, written: std::io::Result<()>) {
        if let Err(error) = written {
            self.broken = true;
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                eprintln!("warning: events can no longer be written: {error}");
            }
        }
    }

    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, broken: false, flushed: Instant::now() }
    }
}

impl<W: Write> Listener for Lines<W> {
    fn event(&mut self, event: &Event) {
        if self.broken {
            return;
        }
        let written = serde_json::to_vec(event).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.out.write_all(&line)?;
            let known = matches!(event, Event::StepFinished { status: Status::Cached, .. });
            if known && self.flushed.elapsed() < TOGETHER {
                return Ok(());
            }
            self.flushed = Instant::now();
            self.out.flush()
        });
        self.ended(written);
    }

    fn known(&mut self, lines: &[u8]) {
        if !self.broken {
            let written = self.out.write_all(lines).and_then(|()| self.out.flush());
            self.ended(written);
        }
    }
}

/// Lines into a file of the run's folder, locked for as long as the run goes on: `runs::Run::is_live` asks.
pub fn file(path: &Path) -> Option<Lines<std::io::BufWriter<std::fs::File>>> {
    let created = std::fs::File::create(path).and_then(|file| file.lock().map(|()| file));
    match created {
        Ok(file) => Some(Lines::new(std::io::BufWriter::new(file))),
        Err(error) => {
            eprintln!("warning: {} cannot be written: {error}", path.display());
            None
        }
    }
}

/// What people see: bars with rate and time left on a terminal, one line for each step's end everywhere.
pub struct Screen {
    bars: MultiProgress,
    total: Option<ProgressBar>,
    file: String,
    running: HashMap<usize, Running>,
    /// Columns that the lines are made for.
    columns: usize,
    /// Steps of which it was said that they are in a cluster's queue.
    queued: HashSet<usize>,
    colour: bool,
    /// Steps that were not tried, by why.
    skipped: BTreeMap<String, Vec<String>>,
}

/// The line of a step that runs.
struct Running {
    bar: ProgressBar,
    label: String,
    /// What it counts, once it does.
    unit: Option<String>,
}

impl Running {
    /// Makes its line fit the terminal.
    fn fit(&self, columns: usize) {
        let name = name_columns(columns);
        self.bar.set_prefix(fit(&self.label, name));
        let Some(unit) = self.unit.clone() else {
            self.bar.set_style(style(&format!("  {{spinner}} {{prefix:{name}!}}  {{elapsed}}")));
            return;
        };
        let rate = if columns < WIDE { "" } else { "  {per_sec}" };
        let stage = if columns < STAGE { "" } else { "  {wide_msg}" };
        let template = format!("  {{prefix:{name}!}} {{bar:10}} {{percent:>3}}%  {{eta}} left{rate}{stage}");
        // The rate counts from the first progress, not from the start of the process.
        self.bar.set_style(style(&template).with_key(
            "per_sec",
            move |state: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = write!(w, "{:.0} {unit}/s", state.per_sec());
            },
        ));
    }
}

/// Names of a list that are shown.
const NAMED: usize = 4;
/// Columns of a terminal that says nothing of its width.
const COLUMNS: usize = 80;
/// Columns from which a step's line has room for its rate.
const WIDE: usize = 110;
/// Columns of a step's name beside its bar, where there is room.
const NAME: usize = 34;
/// Columns of the rest of its line: its bar, its share and the time left.
const REST: usize = 31;
/// Columns from which a step's line has room for what it is at.
const STAGE: usize = NAME + REST + 12;
/// Columns of the line of the whole run beside its name.
const TOTAL: usize = 50;

/// Columns of a step's name on a terminal so wide.
fn name_columns(columns: usize) -> usize {
    columns.saturating_sub(REST).clamp(8, NAME)
}

/// Columns of the terminal at standard error, if it is one.
fn columns() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stderr()).map(|(width, _)| usize::from(width.0))
}

/// A name in so many columns: its beginning and its end, which tell members of a family apart.
pub fn fit(name: &str, columns: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= columns {
        return name.into();
    }
    let head = (columns - 1) / 3;
    let tail = columns - 1 - head;
    letters[..head].iter().chain(&['…']).chain(&letters[letters.len() - tail..]).collect()
}

/// Breaks the lines of a text between words where they are longer than the terminal is wide; what goes on is
/// indented. Colour codes take no room.
fn wrap(text: &str, columns: usize) -> String {
    const INDENT: &str = "          ";
    let width = |word: &str| {
        let mut inside = false;
        let seen = |c: &char| {
            let shown = !inside && *c != '\x1b';
            inside = *c == '\x1b' || inside && *c != 'm';
            shown
        };
        word.chars().filter(seen).count()
    };
    let mut lines = Vec::new();
    for line in text.lines() {
        let (mut current, mut used) = (String::new(), 0);
        for word in line.split_inclusive(' ') {
            let bare = width(word.trim_end());
            if used + bare > columns && used > INDENT.len() {
                lines.push(current.trim_end().to_string());
                (current, used) = (INDENT.into(), INDENT.len());
            }
            current.push_str(word);
            used += width(word);
        }
        lines.push(current);
    }
    lines.join("\n")
}

impl Screen {
    /// For standard error; `bars` and `colour` only where it is a terminal.
    pub fn new(bars: bool, colour: bool) -> Self {
        let target = if bars { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Self {
            bars: MultiProgress::with_draw_target(target),
            total: None,
            file: String::new(),
            running: HashMap::new(),
            columns: columns().unwrap_or(COLUMNS),
            queued: HashSet::new(),
            colour,
            skipped: BTreeMap::new(),
        }
    }

    fn fit_total(&self) {
        if let Some(bar) = &self.total {
            bar.set_prefix(self.paint("1", &fit(&self.file, self.columns.saturating_sub(TOTAL).max(8))));
        }
    }

    fn say(&self, line: &str) {
        // A terminal that is gone is no reason to stop: the events are kept.
        let line = columns().map_or_else(|| line.to_string(), |columns| wrap(line, columns));
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{line}");
        });
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }
}

/// `4.2 s`, `3 min 20 s`, `2 h 5 min`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.0995 => format!("{:.0} ms", s * 1e3),
        s if s < 99.5 => format!("{s:.1} s"),
        s if s < 5_970.0 => format!("{} min {} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {} min", s as u64 / 3600, s as u64 % 3600 / 60),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ")
}

impl Listener for Screen {
    fn event(&mut self, event: &Event) {
        match event {
            Event::RunStarted { file, steps, .. } => {
                let bar = self.bars.add(ProgressBar::new(*steps as u64));
                bar.set_style(style("{prefix} {bar:24} {pos}/{len} steps  {elapsed}"));
                bar.enable_steady_tick(Duration::from_millis(250));
                self.total = Some(bar);
                self.file.clone_from(file);
                self.fit_total();
            }
            Event::StepStarted { step, label, .. } => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                let running = Running { bar, label: label.clone(), unit: None };
                running.fit(self.columns);
                running.bar.enable_steady_tick(Duration::from_millis(250));
                self.running.insert(*step, running);
            }
            Event::Progress { step, stage, done, total, unit, .. } => {
                let columns = columns().unwrap_or(COLUMNS);
                if self.columns != columns {
                    // The terminal was made wider or narrower.
                    self.columns = columns;
                    self.running.values().for_each(|running| running.fit(columns));
                    self.fit_total();
                }
                if let Some(running) = self.running.get_mut(step) {
                    if running.bar.length() != Some(*total) {
                        running.bar.set_length(*total);
                        running.unit = Some(unit.clone());
                        running.fit(columns);
                    }
                    running.bar.set_position(*done);
                    running.bar.set_message(stage.clone());
                }
            }
            Event::Metric { .. } => {}
            Event::StepQueued { step, label, job, state, reason, .. } => {
                // A thousand jobs are no news one by one.
                if state == "PENDING" && self.queued.insert(*step) && self.queued.len() <= NAMED {
                    let more = if self.queued.len() == NAMED { "; of further ones `harness status` tells" } else { "" };
                    let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
                    self.say(&format!("{}  {label}  job {job}{why}{more}", self.paint("2", "queued  ")));
                }
            }
            Event::Log { label, level, text, .. } => {
                let head = if level == "warn" { self.paint("33", "warning") } else { level.clone() };
                let place = label.as_ref().map(|label| format!("{label}: ")).unwrap_or_default();
                self.say(&format!("{head}: {place}{text}"));
            }
            Event::Shared { place, fetched, fetched_bytes, sent, sent_bytes, kept, waiting, ended, problems } => {
                for problem in problems {
                    self.say(&format!("{}: {problem}", self.paint("33", "warning")));
                }
                if !ended && *waiting > 0 && problems.is_empty() {
                    self.say(&format!("sending {} to {place}", crate::words::count(*waiting, "result")));
                }
                let (fetched, sent) = ((*fetched, *fetched_bytes), (*sent, *sent_bytes));
                if let Some(line) = crate::shared::line(place, fetched, sent, *kept).filter(|_| *ended) {
                    self.say(&line);
                }
            }
            Event::StepFinished { step, label, kind, status, wall_s, metrics, error, .. } => {
                if let Some(running) = self.running.remove(step) {
                    running.bar.finish_and_clear();
                    self.bars.remove(&running.bar);
                }
                if let Some(total) = &self.total {
                    total.inc(1);
                }
                match status {
                    // Known results are counted at the end; a line each would bury what is new.
                    Status::Cached => {}
                    Status::Executed => {
                        let mark = self.paint("32", "done");
                        let time = self.paint("2", &seconds(*wall_s));
                        // Nobody wrote an implied step, so its line stays in the background.
                        if label.starts_with("features(") {
                            self.say(&format!(
                                "          {}",
                                self.paint("2", &format!("{label}  {}", seconds(*wall_s)))
                            ));
                        } else {
                            self.say(&format!("    {mark}  {label}  {time}  {}", headline(kind, metrics)));
                        }
                    }
                    Status::Failed => {
                        let mark = self.paint("1;31", "failed");
                        self.say(&format!("  {mark}  {label}: {}", error.as_deref().unwrap_or_default()));
                    }
                    Status::Skipped => {
                        let why = error.clone().unwrap_or_default();
                        self.skipped.entry(why).or_default().push(label.clone());
                    }
                }
            }
            Event::RunFinished { executed, cached, failed, skipped, wall_s, interrupted, claims, summary, .. } => {
                if let Some(total) = self.total.take() {
                    total.finish_and_clear();
                }
                // After Ctrl-C nobody asks why the rest was not run.
                if !*interrupted {
                    for (why, labels) in std::mem::take(&mut self.skipped) {
                        let mark = self.paint("2", "skipped");
                        let named = labels.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
                        let more = labels.len().saturating_sub(NAMED);
                        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                        self.say(&format!(" {mark}  {named}{more}: {why}"));
                    }
                }
                let mut parts = vec![format!("{executed} executed"), format!("{cached} cached")];
                if *failed > 0 {
                    parts.push(self.paint("1;31", &format!("{failed} failed")));
                }
                if *skipped > 0 {
                    parts.push(format!("{skipped} skipped"));
                }
                let head = if *interrupted { "interrupted" } else { "finished" };
                self.say(&format!("{} in {}: {}", self.paint("1", head), seconds(*wall_s), parts.join(", ")));
                for (text, outcome) in claims.iter().filter(|_| !*interrupted) {
                    let mark = match outcome.as_str() {
                        "holds" => self.paint("32", "    holds"),
                        "fails" => self.paint("31", "    fails"),
                        _ => self.paint("33", "undecided"),
                    };
                    self.say(&format!("  {mark}  {text}"));
                }
                if *interrupted {
                    self.say("what was finished is kept; the same command goes on from here");
                }
                if let Some(summary) = summary {
                    self.say(&format!("summary: {summary}"));
                }
            }
        }
    }
}

/// The numbers that a line has room for: what the step is for first, as its kind lists them, each with its floor.
pub fn headline(kind: &str, metrics: &BTreeMap<String, f64>) -> String {
    let Some(info) = harness_protocol::steps::kind(kind).filter(|info| !info.metrics.is_empty()) else {
        let first = metrics.iter().take(2);
        return first.map(|(name, value)| format!("{name} {}", short(*value, false))).collect::<Vec<_>>().join("  ");
    };
    let known = info.metrics.iter().filter(|info| !info.series);
    let known = known.filter_map(|info| metrics.get(info.name).map(|value| (info, *value)));
    known
        .take(2)
        .map(|(info, value)| {
            let floor = info.floor.and_then(|(name, _)| metrics.get(name));
            let floor = floor.map(|floor| format!(" (floor {})", short(*floor, info.percent))).unwrap_or_default();
            format!("{} {}{floor}", info.name, short(value, info.percent))
        })
        .collect::<Vec<_>>()
        .join("  ")
}

/// A number with the digits that matter: shares in percent.
pub fn short(value: f64, percent: bool) -> String {
    match value {
        v if percent => format!("{:.1} %", v * 100.0),
        v if v.fract() == 0.0 && v.abs() < 1e9 => format!("{v}"),
        v if v.abs() >= 1e6 => format!("{v:.3e}"),
        v => format!("{v:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lines_fit_the_terminal() {
        assert_eq!(fit("moco[seed=1]", 34), "moco[seed=1]");
        let long = fit("nearest[seed=3, dataset=scenes, method=recalibrated]", NAME);
        assert_eq!((long.as_str(), long.chars().count()), ("nearest[see…, method=recalibrated]", NAME));
        // A step's line never takes two.
        for columns in [40, 60, 80, 120, 200] {
            assert!(name_columns(columns) + REST <= columns, "{columns}");
        }
        assert_eq!(wrap("one two three", 20), "one two three");
        assert_eq!(
            wrap("  failed  a: what it said there", 18),
            "  failed  a: what\n          it said\n          there"
        );
        assert_eq!(wrap("\x1b[1;31mred\x1b[0m and more", 12), "\x1b[1;31mred\x1b[0m and more");
    }

    #[test]
    fn a_line_shows_what_its_step_is_for() {
        let metrics = |pairs: &[(&str, f64)]| pairs.iter().map(|&(name, value)| (name.to_string(), value)).collect();
        let knn: BTreeMap<String, f64> = metrics(&[("majority_top1", 0.168), ("top1", 0.2625), ("top5", 0.9)]);
        assert_eq!(headline("knn", &knn), "top1 26.2 % (floor 16.8 %)  top5 90.0 %");
        assert_eq!(headline("command", &metrics(&[("a", 2.0), ("b", 0.5), ("c", 1.0)])), "a 2  b 0.500");
        assert_eq!(short(6.6e7, false), "66000000");
        assert_eq!(short(6.63552e9, false), "6.636e9");
    }
}
