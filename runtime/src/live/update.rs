//! What changed since a reader's last look, as JSON: the messages of the live page.

use crate::live::model::{Live, Standing, fold, is_percent};
use crate::live::source::Source;
use serde_json::{Map, Value, json};

/// Points of a curve that a new reader gets.
const POINTS: usize = 800;
/// Lines of the log that a new reader gets.
const LINES: u64 = 400;

/// How far a reader has read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// The run, by the source's count.
    generation: u64,
    /// The last change.
    version: u64,
    /// The last line of the log.
    line: u64,
    /// The last look at the machine.
    looks: u64,
    /// Whether anything was read yet.
    began: bool,
}

/// What is new to a reader, who has read it then; nothing when nothing is.
pub fn update(source: &Source, cursor: &mut Cursor) -> Option<Value> {
    let live = &source.live;
    let reset = !cursor.began || cursor.generation != source.generation;
    if !reset && cursor.version == live.version && cursor.looks == source.meter.looks {
        return None;
    }
    let since = if reset { 0 } else { cursor.version };
    let mut out = Map::new();
    if reset {
        out.insert("reset".into(), true.into());
        out.insert("steps_in_all".into(), live.shown().count().into());
    }
    if reset || live.version > since {
        if reset || live.head_changed > since {
            out.insert("head".into(), head(source));
        }
        let families: Vec<Value> = live
            .families
            .iter()
            .enumerate()
            .filter(|(_, family)| family.changed > since && !family.members.is_empty())
            .map(|(index, family)| {
                let counts: Map<String, Value> = Standing::ALL
                    .iter()
                    .map(|&standing| (standing.word().to_string(), live.members(family, standing).into()))
                    .collect();
                json!({
                    "id": index, "name": family.name, "kind": family.kind, "inputs": family.inputs,
                    "layer": family.layer, "members": family.members.len(), "counts": counts,
                })
            })
            .collect();
        let steps: Vec<Value> =
            live.shown().filter(|(_, step)| step.changed > since).map(|(index, _)| step(live, index)).collect();
        let curves: Vec<Value> = live
            .curves
            .iter()
            .enumerate()
            .filter(|(_, curve)| curve.changed > since)
            .map(|(index, curve)| {
                let whole = reset || curve.folded > since;
                let from = if whole { 0 } else { curve.at.partition_point(|&at| at <= since) };
                let kept = fold(&curve.y[from..], POINTS);
                let kind = live.steps.get(curve.step).map_or("", |step| step.kind.as_str());
                let (label, replicate) = live.place(curve.step);
                let point =
                    |values: &[f64]| -> Vec<Value> { kept.iter().map(|&at| json!(values[from + at])).collect() };
                json!({
                    "id": index, "step": curve.step, "kind": kind, "name": curve.name, "label": label,
                    "replicate": replicate, "percent": is_percent(kind, &curve.name), "whole": whole,
                    "x": point(&curve.x), "y": point(&curve.y),
                })
            })
            .collect();
        for (name, part) in [("families", families), ("steps", steps), ("curves", curves)] {
            if !part.is_empty() {
                out.insert(name.into(), part.into());
            }
        }
        let line = if reset { live.lines.saturating_sub(LINES) } else { cursor.line };
        if live.lines > line {
            let new = live.log.iter().filter(|found| found.number > line);
            let new: Vec<Value> =
                new.map(|line| json!({ "level": line.level, "label": line.label, "text": line.text })).collect();
            out.insert("log".into(), new.into());
        }
    }
    if source.here && source.meter.looks > 0 && (reset || source.meter.looks > cursor.looks) {
        // A new reader gets the last minutes.
        let new = if reset { usize::MAX } else { (source.meter.looks - cursor.looks) as usize };
        let skip = source.meter.recent.len().saturating_sub(new);
        out.insert("load".into(), json!(source.meter.recent.iter().skip(skip).collect::<Vec<_>>()));
    }
    *cursor = Cursor {
        generation: source.generation,
        version: live.version,
        line: live.lines,
        looks: source.meter.looks,
        began: true,
    };
    (!out.is_empty()).then_some(Value::Object(out))
}

fn head(source: &Source) -> Value {
    let live = &source.live;
    if source.generation == 0 {
        return json!({ "standing": "awaited" });
    }
    json!({
        "run": live.id, "file": live.asked.file, "host": live.asked.host, "process": live.asked.pid,
        "params": live.asked.params, "standing": live.word(), "total": live.shown().count(),
        "over": live.shown().filter(|(_, step)| step.standing.is_over()).count(),
        "began_unix_ms": live.asked.started_unix_ms, "elapsed_s": live.elapsed_s(), "end": live.end,
        "summary": live.end.is_some() && source.dir.as_ref().is_some_and(|dir| dir.join("summary.html").is_file()),
    })
}

fn step(live: &Live, index: usize) -> Value {
    let step = &live.steps[index];
    let mut out = json!({
        "id": index, "label": step.label, "family": step.family, "standing": step.standing.word(),
    });
    if step.standing == Standing::Running {
        out["slot"] = step.slot.clone().into();
    }
    if step.standing == Standing::Executed {
        out["took"] = crate::listen::seconds(step.wall_s).into();
    }
    if !step.metrics.is_empty() {
        out["numbers"] = step.headline().into();
    }
    if let Some(error) = &step.error {
        out["error"] = error.clone().into();
    }
    if let Some(progress) = &step.progress {
        out["progress"] = json!({
            "stage": progress.stage, "done": progress.done, "total": progress.total, "unit": progress.unit,
            "elapsed_s": progress.elapsed_s, "left_s": progress.left_s(),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::source::Which;

    #[test]
    fn a_reader_gets_what_is_new_and_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = Source::new(dir.path(), Which::Newest);
        let mut cursor = Cursor::default();
        let first = update(&source, &mut cursor).unwrap();
        assert_eq!((first["reset"].as_bool(), first["head"]["standing"].as_str()), (Some(true), Some("awaited")));
        assert!(update(&source, &mut cursor).is_none());
        source.generation = 1;
        let point = |x: u32| format!(r#"{{"event":"metric","step":0,"label":"a[1]","name":"loss","x":{x},"y":0.5}}"#);
        source.live.line(&point(1));
        let second = update(&source, &mut cursor).unwrap();
        assert_eq!(second["curves"][0]["x"], json!([1.0]));
        source.live.line(&point(2));
        source.live.say("warn", "a[1]", "careful");
        let third = update(&source, &mut cursor).unwrap();
        assert_eq!((&third["curves"][0]["x"], &third["curves"][0]["whole"]), (&json!([2.0]), &json!(false)));
        assert_eq!((third["log"].as_array().unwrap().len(), &third["log"][0]["text"]), (1, &json!("careful")));
        assert!(third.get("reset").is_none());
        // Another reader, later, gets it all.
        let all = update(&source, &mut Cursor::default()).unwrap();
        assert_eq!((&all["curves"][0]["x"], &all["steps"][0]["label"]), (&json!([1.0, 2.0]), &json!("a[1]")));
        // What is no number is null, as in the record.
        source.live.line(r#"{"event":"metric","step":0,"label":"a[1]","name":"loss","x":3,"y":null}"#);
        assert_eq!(update(&source, &mut cursor).unwrap()["curves"][0]["y"], json!([null]));
    }
}
