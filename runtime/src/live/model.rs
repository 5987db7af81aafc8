//! What a run's events amount to so far. Whatever changed carries the number of the change, so that a reader that comes
//! back takes what is newer than its last look and nothing else.

use crate::events::{Event, Status};
use crate::listen::headline;
use crate::runs::{self, Asked, End};
use harness_dsl::Program;
use harness_protocol::steps;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Points of a curve that are kept; above, neighbours are folded into the extremes among them.
const MOST_POINTS: usize = 4_000;
/// Lines of the log that are kept.
const MOST_LINES: usize = 2_000;
/// Bytes of a line of the log, or of a message, that are kept.
const MOST_TEXT: usize = 2_000;
/// Curves that are kept; ten thousand of them nobody looks at.
const MOST_CURVES: usize = 400;

/// How a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// It is being computed.
    Running,
    /// It was computed in this run.
    Executed,
    /// Its result was known.
    Cached,
    /// It could not be computed.
    Failed,
    /// It was not tried.
    Skipped,
}

impl Standing {
    /// Every one, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Executed, Self::Cached, Self::Running, Self::Waiting, Self::Failed, Self::Skipped];

    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Executed => "done",
            Self::Cached => "known",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether nothing more comes of it.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is counted.
    pub stage: String,
    /// Done so far.
    pub done: u64,
    /// In the whole step.
    pub total: u64,
    /// Name of a unit.
    pub unit: String,
    /// Seconds since the step began, as it said.
    pub elapsed_s: f64,
    /// When it was said, or the first of many that were read at once.
    pub said: Instant,
}

impl Progress {
    /// Of the whole, 0 to 1.
    pub fn share(&self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.done as f64 / self.total as f64).clamp(0.0, 1.0) }
    }

    /// Seconds left at the pace so far, where there is one.
    pub fn left_s(&self) -> Option<f64> {
        let share = self.share();
        (share > 0.0).then(|| self.elapsed_s * (1.0 - share) / share)
    }
}

/// A step.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Its name and place on the axes.
    pub label: String,
    /// Its kind.
    pub kind: String,
    /// Its family: an index.
    pub family: usize,
    /// How it stands.
    pub standing: Standing,
    /// The slot that computes it, `cpu#0`.
    pub slot: String,
    /// Seconds it took in this run.
    pub wall_s: f64,
    /// Its numbers.
    pub metrics: BTreeMap<String, f64>,
    /// Why it has no result.
    pub error: Option<String>,
    /// The last that it said of how far it is.
    pub progress: Option<Progress>,
    /// Number of its last change.
    pub changed: u64,
}

impl Step {
    /// The numbers that a line has room for.
    pub fn headline(&self) -> String {
        headline(&self.kind, &self.metrics)
    }

    /// The number of the slot.
    pub fn slot_number(&self) -> Option<usize> {
        self.slot.rsplit_once('#')?.1.parse().ok()
    }
}

/// The steps of one name, a node of the graph.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// Their name.
    pub name: String,
    /// Their kind.
    pub kind: String,
    /// The steps: indices.
    pub members: Vec<usize>,
    /// Families that they take something from: indices.
    pub inputs: Vec<usize>,
    /// Column of the graph: the most steps that must end before one of them.
    pub layer: usize,
    /// Number of the last change of one of them.
    pub changed: u64,
}

/// A curve while it grows.
#[derive(Clone, Debug)]
pub struct Curve {
    /// The step.
    pub step: usize,
    /// What is drawn.
    pub name: String,
    /// Abscissae.
    pub x: Vec<f64>,
    /// Ordinates.
    pub y: Vec<f64>,
    /// Points that came in all.
    pub seen: u64,
    /// Number of the change that folded it last: earlier readers need all of it again.
    pub folded: u64,
    /// Number of its last change.
    pub changed: u64,
    /// Number of each point's change.
    pub at: Vec<u64>,
}

/// A line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its number, counted from 1.
    pub number: u64,
    /// `info`, `warn`, `error`, or `out` for what a program printed.
    pub level: String,
    /// The step that it is about.
    pub label: String,
    /// What it says.
    pub text: String,
}

/// A run as it stands.
#[derive(Debug, Default)]
pub struct Live {
    /// Number of the last change.
    pub version: u64,
    /// The run.
    pub id: String,
    /// What was asked.
    pub asked: Asked,
    /// Steps that are wanted.
    pub total: usize,
    /// The steps by their index.
    pub steps: Vec<Step>,
    /// Whether a step is wanted, by its index.
    pub wanted: Vec<bool>,
    /// The families.
    pub families: Vec<Family>,
    /// The curves, in order of appearance.
    pub curves: Vec<Curve>,
    /// The newest lines.
    pub log: VecDeque<Line>,
    /// Lines in all.
    pub lines: u64,
    /// How it ended.
    pub end: Option<End>,
    /// Whether its process is gone although it has no end.
    pub killed: bool,
    /// When it said its last word, if it was killed.
    pub last_word: Option<SystemTime>,
    /// Whether the head changed, and when.
    pub head_changed: u64,
    by_name: HashMap<(String, bool), usize>,
    by_curve: HashMap<(usize, String), usize>,
    places: Vec<(String, String)>,
}

/// A text that a screen has room for.
fn bounded(text: &str) -> String {
    if text.len() <= MOST_TEXT {
        return text.into();
    }
    let mut end = MOST_TEXT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

impl Live {
    /// A run whose events were not read yet.
    pub fn new(run: &runs::Run) -> Self {
        let mut live =
            Self { version: 1, head_changed: 1, id: run.id.clone(), asked: run.asked.clone(), ..Self::default() };
        if let Some(program) = run.program() {
            live.plan(&program);
        }
        live
    }

    fn plan(&mut self, program: &Program) {
        let wanted = crate::text::select(program, &self.asked.targets);
        self.wanted = wanted.unwrap_or_else(|_| vec![true; program.steps.len()]);
        let mut layers: Vec<usize> = Vec::with_capacity(program.steps.len());
        for step in &program.steps {
            layers.push(
                step.inputs.iter().filter_map(|&input| layers.get(input)).map(|layer| layer + 1).max().unwrap_or(0),
            );
            // What evaluations imply has a name each; nobody wrote them, so they are one family.
            let name = if step.implied { "features" } else { step.name.as_str() };
            let family = self.family(name, &step.kind, step.implied);
            self.steps.push(Step {
                label: step.label.clone(),
                kind: step.kind.clone(),
                family,
                changed: 1,
                ..Step::default()
            });
            self.places.push(place(step));
            if !self.wanted[step.id] {
                continue;
            }
            self.families[family].members.push(step.id);
            self.families[family].layer = self.families[family].layer.max(layers[step.id]);
            for &input in &step.inputs {
                let Some(from) = self.steps.get(input).map(|input| input.family) else { continue };
                if from != family && !self.families[family].inputs.contains(&from) {
                    self.families[family].inputs.push(from);
                }
            }
        }
    }

    fn family(&mut self, name: &str, kind: &str, implied: bool) -> usize {
        *self.by_name.entry((name.into(), implied)).or_insert_with(|| {
            self.families.push(Family { name: name.into(), kind: kind.into(), changed: 1, ..Family::default() });
            self.families.len() - 1
        })
    }

    /// The step of an event. A run recorded without its program tells its steps one by one.
    fn step(&mut self, index: usize, label: &str, kind: &str) -> Option<&mut Step> {
        // No program has so many; an event that says so is broken.
        if index > 1_000_000 {
            return None;
        }
        while self.steps.len() <= index {
            self.steps.push(Step { family: usize::MAX, ..Step::default() });
            self.places.push((String::new(), String::new()));
            self.wanted.push(true);
        }
        if self.steps[index].family == usize::MAX {
            let name = label.split(['[', '(']).next().unwrap_or(label).to_string();
            let family = self.family(&name, kind, false);
            self.families[family].members.push(index);
            self.steps[index].family = family;
            self.steps[index].label = label.into();
            self.places[index] = (label.into(), String::new());
        }
        self.version += 1;
        let version = self.version;
        let family = self.steps[index].family;
        self.families[family].changed = version;
        if self.families[family].kind.is_empty() {
            self.families[family].kind = kind.into();
        }
        let step = &mut self.steps[index];
        step.changed = version;
        if !kind.is_empty() {
            step.kind = kind.into();
        }
        Some(step)
    }

    /// Takes a line of the events; one that cannot be read (cut off by a crash, of a later version) is passed over.
    pub fn line(&mut self, line: &str) {
        if let Ok(event) = serde_json::from_str::<Event>(line) {
            self.event(event);
        }
    }

    /// Takes an event.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::RunStarted { steps, file, run, .. } => {
                self.version += 1;
                self.head_changed = self.version;
                self.total = steps;
                if self.asked.file.is_empty() {
                    self.asked.file = file;
                }
                if self.id.is_empty() {
                    self.id = run;
                }
            }
            Event::StepStarted { step, label, kind, slot, .. } => {
                if let Some(step) = self.step(step, &label, &kind) {
                    step.standing = Standing::Running;
                    step.slot = slot;
                    step.progress = None;
                    step.error = None;
                }
            }
            Event::StepQueued { step, label, kind, job, state, reason, node, .. } => {
                if self.step(step, &label, &kind).is_some() {
                    let place =
                        [reason, node].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ");
                    self.say("info", &label, format!("job {job}: {state} {place}").trim_end());
                }
            }
            Event::Progress { step, label, stage, done, total, unit, elapsed_s } => {
                if let Some(step) = self.step(step, &label, "") {
                    step.progress = Some(Progress { stage, done, total, unit, elapsed_s, said: Instant::now() });
                }
            }
            Event::Metric { step, label, name, x, y } => {
                if self.step(step, &label, "").is_some() {
                    self.point(step, name, x, y);
                }
            }
            Event::Log { label, level, text, .. } => self.say(&level, label.as_deref().unwrap_or_default(), &text),
            Event::Shared { place, fetched, fetched_bytes, sent, sent_bytes, kept, ended, problems, .. } => {
                problems.iter().for_each(|problem| self.say("warn", "", problem));
                let line = crate::shared::line(&place, (fetched, fetched_bytes), (sent, sent_bytes), kept);
                if let Some(line) = line.filter(|_| ended) {
                    self.say("info", "", &line);
                }
            }
            Event::StepFinished { step, label, kind, status, wall_s, metrics, error, .. } => {
                let Some(found) = self.step(step, &label, &kind) else { return };
                found.standing = match status {
                    Status::Executed => Standing::Executed,
                    Status::Cached => Standing::Cached,
                    Status::Failed => Standing::Failed,
                    Status::Skipped => Standing::Skipped,
                };
                found.wall_s = wall_s;
                found.metrics = metrics;
                found.progress = None;
                found.error = error.as_deref().map(bounded);
                let headline = found.headline();
                match status {
                    Status::Executed => {
                        let took = crate::listen::seconds(wall_s);
                        self.say("info", &label, format!("done in {took}  {headline}").trim_end());
                    }
                    Status::Failed => self.say("error", &label, &error.unwrap_or_default()),
                    Status::Cached | Status::Skipped => {}
                }
                self.head_changed = self.version;
            }
            Event::RunFinished { executed, cached, failed, skipped, wall_s, interrupted, claims, summary, .. } => {
                self.version += 1;
                self.head_changed = self.version;
                let [executed, cached, failed, skipped] = [executed, cached, failed, skipped].map(|n| n as u64);
                self.end = Some(End { executed, cached, failed, skipped, wall_s, interrupted, claims, summary });
                self.killed = false;
            }
        }
    }

    /// Adds a line to the log, or several.
    pub fn say(&mut self, level: &str, label: &str, text: &str) {
        for part in text.lines().take(200) {
            self.lines += 1;
            self.version += 1;
            // What a program prints may move the cursor or ring the bell; a screen that shows it must not.
            let text: String = bounded(part).chars().filter(|c| !c.is_control() || *c == '\t').collect();
            let number = self.lines;
            self.log.push_back(Line { number, level: level.into(), label: label.into(), text });
        }
        while self.log.len() > MOST_LINES {
            self.log.pop_front();
        }
    }

    /// The process is gone, and the events, which were written `last` time then, have no end.
    pub fn kill(&mut self, last: Option<SystemTime>) {
        if self.end.is_none() && !self.killed {
            self.last_word = last;
            self.version += 1;
            self.killed = true;
            self.head_changed = self.version;
            let (version, mut touched) = (self.version, Vec::new());
            for step in self.steps.iter_mut().filter(|step| step.standing == Standing::Running) {
                step.standing = Standing::Skipped;
                step.error = Some("the run's process was killed".into());
                step.progress = None;
                step.changed = version;
                touched.push(step.family);
            }
            touched.into_iter().for_each(|family| self.families[family].changed = version);
        }
    }

    fn point(&mut self, step: usize, name: String, x: f64, y: f64) {
        let known = self.by_curve.get(&(step, name.clone())).copied();
        if known.is_none() && self.curves.len() >= MOST_CURVES {
            return;
        }
        let version = self.version;
        let index = known.unwrap_or_else(|| {
            self.by_curve.insert((step, name.clone()), self.curves.len());
            self.curves.push(Curve {
                step,
                name,
                x: Vec::new(),
                y: Vec::new(),
                seen: 0,
                folded: version,
                changed: version,
                at: Vec::new(),
            });
            self.curves.len() - 1
        });
        let curve = &mut self.curves[index];
        // A step that was tried again begins its curve again; one that resumed goes on from its checkpoint.
        if curve.x.last().is_some_and(|last| *last >= x)
            && let Some(back) = curve.x.iter().position(|known| *known >= x)
        {
            curve.x.truncate(back);
            curve.y.truncate(back);
            curve.at.truncate(back);
            curve.folded = version;
        }
        curve.x.push(x);
        curve.y.push(y);
        curve.at.push(version);
        curve.seen += 1;
        curve.changed = version;
        if curve.x.len() >= MOST_POINTS {
            let kept = fold(&curve.y, MOST_POINTS / 2);
            curve.x = kept.iter().map(|&at| curve.x[at]).collect();
            curve.y = kept.iter().map(|&at| curve.y[at]).collect();
            curve.at = kept.iter().map(|&at| curve.at[at]).collect();
            curve.folded = version;
        }
    }

    /// Wanted steps that stand so.
    pub fn count(&self, standing: Standing) -> usize {
        self.shown().filter(|(_, step)| step.standing == standing).count()
    }

    /// The wanted steps with their indices.
    pub fn shown(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().filter(|(index, _)| self.wanted.get(*index).copied().unwrap_or(true))
    }

    /// The place of a step on the axes to compare along, `nn[moco]`, and on those to average over, `seed=2`.
    pub fn place(&self, step: usize) -> (&str, &str) {
        self.places.get(step).map_or(("", ""), |(compared, averaged)| (compared, averaged))
    }

    /// Members of a family that stand so.
    pub fn members(&self, family: &Family, standing: Standing) -> usize {
        family.members.iter().filter(|&&member| self.steps[member].standing == standing).count()
    }

    /// In a word: `running`, `finished`, `failed`, `interrupted` or `killed`.
    pub fn word(&self) -> &'static str {
        match &self.end {
            Some(end) if end.interrupted => "interrupted",
            Some(end) if end.failed > 0 => "failed",
            Some(_) => "finished",
            None if self.killed => "killed",
            None => "running",
        }
    }

    /// Seconds since it began, or that it took.
    pub fn elapsed_s(&self) -> f64 {
        match &self.end {
            Some(end) => end.wall_s,
            None => {
                let now = self.last_word.unwrap_or_else(SystemTime::now);
                let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                (now - self.asked.started_unix_ms as f64 / 1e3).max(0.0)
            }
        }
    }
}

/// Whether a metric's values are shares.
pub fn is_percent(kind: &str, name: &str) -> bool {
    steps::kind(kind).and_then(|kind| kind.metrics.iter().find(|metric| metric.name == name)).is_some_and(|m| m.percent)
}

/// The places of at most `most` points that show what all of them do: of each part the first of its lowest and of its
/// highest, in order, and the last point. What is no number is kept where a part has nothing else.
pub fn fold(y: &[f64], most: usize) -> Vec<usize> {
    if y.len() <= most || most < 4 {
        return (0..y.len()).collect();
    }
    let parts = (most - 1) / 2;
    let mut kept = Vec::with_capacity(most);
    for part in 0..parts {
        let (from, to) = (part * y.len() / parts, (part + 1) * y.len() / parts);
        let numbers = || (from..to).filter(|&at| !y[at].is_nan());
        let low = numbers().min_by(|&a, &b| y[a].total_cmp(&y[b])).unwrap_or(from);
        let high = numbers().min_by(|&a, &b| y[b].total_cmp(&y[a])).unwrap_or(from);
        kept.push(low.min(high));
        if low != high {
            kept.push(low.max(high));
        }
    }
    if kept.last() != Some(&(y.len() - 1)) {
        kept.push(y.len() - 1);
    }
    kept
}

fn place(step: &harness_dsl::Step) -> (String, String) {
    let compared: Vec<&str> = step.axes.iter().filter(|axis| !axis.replicate).map(|axis| axis.value.as_str()).collect();
    let averaged: Vec<String> =
        step.axes.iter().filter(|axis| axis.replicate).map(|axis| format!("{}={}", axis.name, axis.value)).collect();
    let label = if compared.is_empty() { step.name.clone() } else { format!("{}[{}]", step.name, compared.join(", ")) };
    (label, averaged.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Live {
        let mut live = Live::default();
        lines.iter().for_each(|line| live.line(line));
        live
    }

    #[test]
    fn events_amount_to_states_curves_and_lines() {
        let live = told(&[
            r#"{"event":"run_started","run":"1-a","file":"a.exp","steps":3,"cache":"c"}"#,
            r#"{"event":"step_started","step":0,"label":"moco[seed=1]","kind":"pretrain","key":"00","slot":"cpu#1"}"#,
            r#"{"event":"progress","step":0,"label":"moco[seed=1]","stage":"epoch 1/2","done":5,"total":20,"unit":"pictures","elapsed_s":2.0}"#,
            r#"{"event":"metric","step":0,"label":"moco[seed=1]","name":"loss","x":1.0,"y":7.0}"#,
            r#"{"event":"metric","step":0,"label":"moco[seed=1]","name":"loss","x":2.0,"y":null}"#,
            r#"{"event":"step_finished","step":1,"label":"moco[seed=2]","kind":"pretrain","key":null,"status":"failed","wall_s":1.0,"metrics":{},"error":"one\u001b[31m\ntwo"}"#,
            r#"{"event":"step_fin"#,
        ]);
        assert_eq!((live.total, live.families.len(), live.families[0].members.len()), (3, 1, 2));
        let step = &live.steps[0];
        let progress = step.progress.as_ref().unwrap();
        assert_eq!((step.standing, step.slot_number(), progress.share()), (Standing::Running, Some(1), 0.25));
        assert_eq!(progress.left_s(), Some(6.0));
        assert_eq!((live.curves[0].x.as_slice(), live.curves[0].y[1].is_nan()), ([1.0, 2.0].as_slice(), true));
        let lines: Vec<&str> = live.log.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(lines, ["one[31m", "two"], "nothing that a terminal would obey");
        assert_eq!(live.word(), "running");
    }

    #[test]
    fn a_killed_run_leaves_nothing_running() {
        let mut live =
            told(&[r#"{"event":"step_started","step":0,"label":"a","kind":"command","key":"00","slot":"cpu#0"}"#]);
        live.kill(None);
        assert_eq!((live.word(), live.count(Standing::Running), live.count(Standing::Skipped)), ("killed", 0, 1));
    }

    #[test]
    fn curves_fold_to_their_extremes_and_begin_again() {
        let y: Vec<f64> = (0..1000).map(|at| if at == 500 { 9.0 } else { (at % 3) as f64 }).collect();
        let kept = fold(&y, 100);
        assert!(kept.len() <= 100 && kept.contains(&500) && kept.contains(&999), "{kept:?}");
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(fold(&[f64::NAN; 10], 4).len(), 2);
        let mut live = Live::default();
        let point = |x: f64| Event::Metric { step: 0, label: "a".into(), name: "loss".into(), x, y: x };
        (0..10 * MOST_POINTS).for_each(|x| live.event(point(x as f64)));
        assert!(live.curves[0].x.len() < MOST_POINTS && live.curves[0].seen == 10 * MOST_POINTS as u64);
        live.event(point(3.0));
        assert_eq!(live.curves[0].x.last(), Some(&3.0));
    }
}
