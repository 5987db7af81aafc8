//! Scores predicted masks against DAVIS annotations and says how long that took; `tests/bench/davis_score.py` compares.
//!
//! `score_speed ANNOTATIONS PREDICTIONS THREADS ROUNDS`: folders `<sequence>/<frame>.png`; annotations count above 127,
//! predictions above 0, as one object. Reads and scores every inner frame ROUNDS times. Prints one JSON object: seconds and
//! CPU seconds of a round, frames in it, and J and F of every frame.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use harness_views::{IndexMask, decode_index};
use harness_worker::metric::davis::Judge;
use rayon::prelude::*;

fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is there.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// A mask as the step `score_video` reads it.
fn mask(path: &Path, inside: impl Fn(u8) -> bool) -> Result<IndexMask, Box<dyn Error + Send + Sync>> {
    let mut mask = decode_index(&std::fs::read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    mask.data.iter_mut().for_each(|value| *value = u8::from(inside(*value)));
    Ok(mask)
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [annotations, predictions, threads, rounds] = arguments.as_slice() else {
        return Err("ANNOTATIONS PREDICTIONS THREADS ROUNDS".into());
    };
    let (annotations, predictions) = (PathBuf::from(annotations), PathBuf::from(predictions));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build()?;
    let rounds: u32 = rounds.parse()?;
    let mut scores = Vec::new();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for _ in 0..rounds {
        scores.clear();
        for sequence in names(&annotations)? {
            let frames = names(&annotations.join(&sequence))?;
            let truth = |frame: &str| mask(&annotations.join(&sequence).join(frame), |value| value > 127);
            let first = truth(&frames[0])?;
            let judge = Judge::new(&sequence, first.width, &first.data, frames.len())?;
            let one = |frame: &String| -> Result<[f64; 2], Box<dyn Error + Send + Sync>> {
                let predicted = mask(&predictions.join(&sequence).join(frame), |value| value > 0)?;
                Ok(judge.frame(frame, &predicted.data, &truth(frame)?.data)?.predicted[0])
            };
            let inner = &frames[1..frames.len() - 1];
            let found: Vec<_> = pool.install(|| inner.par_iter().map(one).collect());
            for scored in found {
                scores.push(scored?);
            }
        }
    }
    let rounds = f64::from(rounds);
    println!(
        "{}",
        serde_json::json!({
            "seconds": start.elapsed().as_secs_f64() / rounds, "cpu_seconds": (cpu_seconds() - cpu) / rounds,
            "frames": scores.len(), "scores": scores,
        })
    );
    Ok(())
}
