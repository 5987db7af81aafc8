//! Harm done to running experiments, and what became of their results. For the tests that kill, damage and starve.

use crate::{Ran, Test};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Members of each family of the experiment.
const WIDTH: u64 = 4;
/// Steps of the experiment.
pub const STEPS: u64 = 3 * WIDTH + 1;

/// Numbers that look random and are the same in every run of a test.
pub struct Dice(u64);

impl Dice {
    /// Another seed, other numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: u64) -> u64 {
        // Xorshift (Marsaglia 2003), its upper half.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) % limit
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// An experiment of small steps whose right numbers are known, and what its runs reported.
pub struct Trial {
    /// Its folder.
    pub test: Test,
    /// Keys that were reported as executed, with their round and label.
    kept: BTreeMap<String, (u64, String)>,
    /// Numbers that were reported and are not the right ones.
    pub wrong: Vec<String>,
    /// Results that were reported as kept and had to be computed again.
    pub lost: Vec<String>,
    /// Runs whose exit status or message nobody should see.
    pub odd: Vec<String>,
}

impl Default for Trial {
    fn default() -> Self {
        Self::new()
    }
}

impl Trial {
    /// An experiment with an empty cache.
    pub fn new() -> Self {
        let test = Test::new();
        let mut text = String::from("param round = \"n0\"\n");
        let mut step = |name: String, inputs: &[String], formula: String| {
            let reads: String = (0..inputs.len()).map(|n| format!("x{n}=$(cat inputs/x{n}); ")).collect();
            let staged: Vec<String> = inputs.iter().enumerate().map(|(n, from)| format!("x{n} = {from}.out")).collect();
            text += &format!(
                "command {name} {{ run = [\"sh\", \"-c\", \"{reads}r=${{ROUND#n}}; v=$(({formula})); echo $v > out; printf '{{\\\"v\\\": %d}}' $v > metrics.json\"], env = {{ ROUND = round }}, inputs = {{ {} }}, outputs = {{ out = {{ kind = file, path = \"out\" }} }}, metrics = [\"v\"] }}\n",
                staged.join(", ")
            );
        };
        for n in 0..WIDTH {
            step(format!("a{n}"), &[], format!("r * 31 + {n}"));
            step(format!("b{n}"), &[format!("a{n}")], format!("x0 * 7 + {n}"));
        }
        for n in 0..WIDTH {
            let from = if n == 0 { "b0".into() } else { format!("c{}", n - 1) };
            step(format!("c{n}"), &[from], format!("x0 * 3 + {n} + r * 0"));
        }
        let all: Vec<String> = (0..WIDTH).map(|n| format!("b{n}")).collect();
        step("sum".into(), &all, "x0 + x1 + x2 + x3".into());
        test.write("a.exp", text);
        Self { test, kept: BTreeMap::new(), wrong: Vec::new(), lost: Vec::new(), odd: Vec::new() }
    }

    /// The right number of a step.
    fn right(round: u64, label: &str) -> u64 {
        let n: u64 = label[1..].parse().unwrap_or_default();
        match &label[..1] {
            "a" => round * 31 + n,
            "b" => Self::right(round, &format!("a{n}")) * 7 + n,
            "c" if n == 0 => Self::right(round, "b0") * 3,
            "c" => Self::right(round, &format!("c{}", n - 1)) * 3 + n,
            _ => (0..WIDTH).map(|n| Self::right(round, &format!("b{n}"))).sum(),
        }
    }

    /// Starts a run of a round.
    ///
    /// # Panics
    /// `harness` cannot be started.
    pub fn start(&self, round: u64, environment: &[(&str, String)]) -> Child {
        let round = format!("round=n{round}");
        let mut command = self.test.command(&["run", "a.exp", "-j", "2", "--json", "--keep-going", "-p", &round]);
        command.envs(environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command.spawn().expect("harness starts")
    }

    /// Takes note of what a run of `round`, ended or killed, reported. `excused` are labels whose results were damaged
    /// on purpose since they were reported; they may be computed again.
    ///
    /// # Panics
    /// The child cannot be waited for.
    pub fn note(&mut self, round: u64, child: Child, excused: &BTreeSet<String>) -> Ran {
        let output = child.wait_with_output().expect("the child ends");
        let ran = Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        for line in ran.stdout.lines() {
            // The last line of a killed run may be cut.
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            if event["event"] != "step_finished" {
                continue;
            }
            let (label, status) = (event["label"].as_str().unwrap_or_default(), event["status"].as_str());
            if !matches!(status, Some("executed" | "cached")) {
                continue;
            }
            let (found, right) = (event["metrics"]["v"].as_f64(), Self::right(round, label));
            if found != Some(right as f64) {
                self.wrong.push(format!("round {round}, {label}: {found:?} instead of {right}"));
            }
            let key = event["key"].as_str().unwrap_or_default().to_string();
            if status == Some("executed")
                && self.kept.insert(key, (round, label.into())).is_some()
                && !excused.contains(label)
            {
                self.lost.push(format!("round {round}, {label}: computed again"));
            }
        }
        if ran.stderr.contains("panicked") {
            self.odd.push(format!("round {round}: a panic: {}", ran.stderr));
        }
        ran
    }

    /// Kills a run of `round` after `delay`, and takes note of what it reported.
    ///
    /// # Panics
    /// The child cannot be killed.
    pub fn kill(&mut self, round: u64, delay: Duration, environment: &[(&str, String)]) -> Ran {
        let mut child = self.start(round, environment);
        std::thread::sleep(delay);
        child.kill().expect("the child can be killed");
        self.note(round, child, &BTreeSet::new())
    }

    /// Runs a round to its end, which must be a good one.
    pub fn finish(&mut self, round: u64, excused: &BTreeSet<String>) -> Ran {
        let child = self.start(round, &[]);
        let ran = self.note(round, child, excused);
        if ran.code != 0 || ran.counts()[..2].iter().sum::<u64>() != STEPS {
            self.odd.push(format!("round {round}: status {}: {}", ran.code, ran.stderr));
        }
        ran
    }

    /// Labels of all steps.
    pub fn labels(&self) -> BTreeSet<String> {
        let families = (0..WIDTH).flat_map(|n| ["a", "b", "c"].map(|family| format!("{family}{n}")));
        families.chain(["sum".to_string()]).collect()
    }

    /// Files below a folder of the cache.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        fn below(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { below(&entry.path(), found) } else { found.push(entry.path()) }
            }
        }
        let mut found = Vec::new();
        below(&self.test.path().join(".harness").join(folder), &mut found);
        found.sort();
        found
    }

    /// Ends with nothing wrong, lost or odd.
    ///
    /// # Panics
    /// Otherwise, saying what.
    pub fn is_fine(&self) {
        let none: [&String; 0] = [];
        for (what, found) in [("wrong", &self.wrong), ("lost", &self.lost), ("odd", &self.odd)] {
            assert_eq!(found.iter().take(3).collect::<Vec<_>>(), none, "{what}: {} in all", found.len());
        }
    }
}

/// Flips a byte of a file, cuts it, or empties it, whatever its mode says.
///
/// # Panics
/// The file cannot be written.
pub fn damage(path: &Path, dice: &mut Dice) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut bytes = std::fs::read(path).expect("the file can be read");
    match dice.below(3) {
        0 if !bytes.is_empty() => {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << dice.below(8);
        }
        1 => bytes.truncate(dice.below(bytes.len() as u64 + 1) as usize),
        _ => bytes.clear(),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("the mode can be set");
    std::fs::write(path, bytes).expect("the file can be written");
}
