//! A fuzz target for stable Rust: texts are changed at random and read, checked, shown, laid out and asked about, for as
//! long as one likes.
//!
//! `cargo run --release -p harness-dsl --example fuzz -- SECONDS [SEED]`; `make fuzz` does it.
//!
//! It starts from the texts in `tests/language/` and `tests/corpus/`. A change that makes the checker say something new
//! joins the texts that are changed further. What breaks a promise is written to `tests/corpus/`, where a test reads it
//! from then on; a crash that ends the process leaves its text in `target/fuzz-last.exp`.

#![allow(clippy::disallowed_methods, reason = "it reads a corpus and the clock; the crate itself does neither")]
#![allow(clippy::disallowed_types, reason = "how long to go on is a matter of time")]

#[path = "../tests/language/catalog.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod catalog;

#[path = "../tests/language/promises.rs"]
mod promises;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest text that is tried.
const LONGEST: usize = 6000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let seed: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let last = here.join("../target/fuzz-last.exp");
    let mut corpus = texts(here);
    let words: Vec<String> = words(&corpus);
    println!("{} texts to begin with, seed {seed}, {seconds} s", corpus.len());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut said: HashSet<Vec<&'static str>> = HashSet::new();
    let begin = Instant::now();
    let (mut tried, mut told, mut broken) = (0u64, Instant::now(), 0u64);
    // Broken promises are panics; their traces are not wanted a thousand times.
    std::panic::set_hook(Box::new(|_| ()));
    while begin.elapsed() < Duration::from_secs(seconds) {
        let text = change(&corpus, &words, &mut random);
        // Where a crash ends the process, this tells by which text.
        let _ = std::fs::write(&last, &text);
        match std::panic::catch_unwind(|| promises::kept(&text)) {
            Ok(mut codes) => {
                codes.dedup();
                if said.insert(codes) && corpus.len() < 5000 {
                    corpus.push(text);
                }
            }
            Err(why) => {
                broken += 1;
                let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
                let place = here.join(format!("tests/corpus/broken-{seed:x}-{tried}.exp"));
                let _ = std::fs::write(&place, &text);
                println!("broken: {}\n  {}", place.display(), why.lines().next().unwrap_or_default());
                if broken >= 20 {
                    break;
                }
            }
        }
        tried += 1;
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!("{} s: {tried} texts, {} kinds of answers", begin.elapsed().as_secs(), said.len());
        }
    }
    println!("{tried} texts, {} kinds of answers, {broken} broken promises", said.len());
    std::process::exit(i32::from(broken > 0));
}

/// The texts to begin with.
fn texts(here: &Path) -> Vec<String> {
    let mut folders: Vec<PathBuf> = vec![here.join("tests"), here.join("../experiments")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "exp") {
                found.extend(std::fs::read_to_string(path));
            }
        }
    }
    found.sort();
    found
}

/// The words and signs of the texts, each once.
fn words(texts: &[String]) -> Vec<String> {
    let mut found: Vec<String> = texts
        .iter()
        .flat_map(|text| text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .map(|word| word.to_owned())
        .chain(
            ["best(", "by =", "@50", "10%", "9999999999999999999", "\u{feff}", "é", "\u{0}", "..", "#! "]
                .map(String::from),
        )
        .collect();
    found.sort();
    found.dedup();
    found
}

fn change(corpus: &[String], words: &[String], random: &mut fastrand::Rng) -> String {
    let mut text = corpus[random.usize(..corpus.len())].clone();
    for _ in 0..random.usize(1..6) {
        let boundary = |text: &str, mut at: usize| {
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let at = boundary(&text, random.usize(..=text.len()));
        let end = boundary(&text, (at + random.usize(..40)).min(text.len())).max(at);
        match random.u8(..8) {
            0 => text.replace_range(at..end, ""),
            1 => text.insert_str(at, &words[random.usize(..words.len())]),
            2 => text.replace_range(at..end, &words[random.usize(..words.len())]),
            3 => {
                let copy = text[at..end].to_owned();
                text.insert_str(at, &copy.repeat(random.usize(1..20)));
            }
            4 => {
                // The head of one text and the tail of another.
                let other = &corpus[random.usize(..corpus.len())];
                let from = boundary(other, random.usize(..=other.len()));
                text.truncate(at);
                text.push_str(&other[from..]);
            }
            5 => text.insert(at, char::from(random.u8(..128))),
            6 => {
                let line = text[..at].rfind('\n').map_or(0, |line| line + 1);
                let below = text[at..].find('\n').map_or(text.len(), |line| at + line);
                let moved = text[line..below].to_owned();
                text.replace_range(line..below, "");
                let to = boundary(&text, random.usize(..=text.len()));
                text.insert_str(to, &moved);
            }
            _ => text.insert(at, random.char(..)),
        }
        text.truncate(boundary(&text, text.len().min(LONGEST)));
    }
    text
}
