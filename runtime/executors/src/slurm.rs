//! Slurm, by its own commands: `sbatch` for each array, one `squeue` for everything, `scancel`. Neither `sacct` nor an
//! accounting database is needed.

use crate::scheduler::{Ask, Batch, Entry, PREFIX, Scheduler, Trouble};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Columns of the question, each wide enough for whatever Slurm may say; the last one may have spaces.
const COLUMNS: [(&str, usize); 7] = [
    ("ArrayJobID", 16),
    ("ArrayTaskID", 12),
    ("State", 16),
    ("exit_code", 12),
    ("Name", 40),
    ("NodeList", 64),
    ("Reason", 64),
];

/// What Slurm says when it was not reached or is too busy: nothing is decided by it.
const PASSING: [&str; 10] = [
    "Unable to contact",
    "timed out",
    "Connection refused",
    "Connection reset",
    "communication",
    "temporarily",
    "Zero Bytes were transmitted",
    "AssocMaxSubmitJobLimit",
    "QOSMaxSubmitJobPerUserLimit",
    "Slurm controller not responding",
];

/// The Slurm of this machine.
#[derive(Default)]
pub struct Slurm;

/// Runs one of its commands; its standard output.
fn ask(program: &str, arguments: &[String], input: Option<&str>) -> Result<String, Trouble> {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    // The words are looked for in English, and what this process may have inherited of another job is not for the new one.
    command.env("LC_ALL", "C");
    for name in ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID", "SBATCH_OUTPUT"] {
        command.env_remove(name);
    }
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Trouble::Absent(format!(
            "there is no Slurm here: `{program}` is not on PATH; run this where jobs are submitted (a login node, perhaps after `module load slurm`), or use `--executor local`"
        )),
        _ => Trouble::Unreachable(format!("`{program}` cannot be started: {error}")),
    })?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        // One that ended before it read everything says why.
        let _ = pipe.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| Trouble::Unreachable(format!("`{program}`: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = format!("`{program}` says: {}", said.join("; "));
    if PASSING.iter().any(|words| text.contains(words)) {
        Err(Trouble::Unreachable(text))
    } else {
        Err(Trouble::Refused(text))
    }
}

/// The options of `sbatch` for what a job asks.
fn options(ask: &Ask) -> Vec<String> {
    let mut options = vec![format!("--cpus-per-task={}", ask.cpus.max(1)), "--ntasks=1".into(), "--nodes=1".into()];
    options.extend(ask.partition.iter().map(|partition| format!("--partition={partition}")));
    if ask.gpus > 0 {
        options.push(format!("--gres=gpu:{}", ask.gpus));
    }
    options.extend(ask.memory_mib.map(|mib| format!("--mem={mib}M")));
    if let Some(minutes) = ask.minutes {
        // Long enough before the end for a checkpoint; Slurm itself may be a minute early.
        options.push(format!("--time={minutes}"));
        options.push(format!("--signal=B:USR1@{}", (minutes * 60 / 4).clamp(1, 120)));
    }
    options.extend(ask.options.iter().cloned());
    options
}

/// One line of the answer.
fn entry(line: &str) -> Option<Entry> {
    let mut rest = line;
    let mut cells = COLUMNS.iter().map(|(_, width)| {
        let at = rest.char_indices().nth(*width).map_or(rest.len(), |(at, _)| at);
        let (cell, after) = rest.split_at(at);
        rest = after;
        cell.trim().to_string()
    });
    let array = cells.next()?;
    let index = cells.next()?.parse().ok()?;
    let state = cells.next()?;
    // The status as `wait` gives it: the signal below, the exit status above.
    let status = cells.next()?.parse::<i32>().ok().map(|raw| if raw & 127 == 0 { raw >> 8 } else { 128 + (raw & 127) });
    let (name, node, reason) = (cells.next()?, cells.next()?, cells.next()?);
    let entry = Entry { name, array, index, state, reason, node, status };
    let ended = !entry.is_live();
    Some(Entry { status: entry.status.filter(|_| ended), ..entry })
}

impl Slurm {
    /// The partitions that there are, to put beside one that there is not.
    fn partitions() -> String {
        let asked = ask("sinfo", &["--noheader".into(), "--format=%R".into()], None).unwrap_or_default();
        let mut names: Vec<&str> = asked.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
        names.dedup();
        if names.is_empty() { String::new() } else { format!("; there are the partitions {}", names.join(", ")) }
    }
}

impl Scheduler for Slurm {
    fn name(&self) -> &'static str {
        "slurm"
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<String, Trouble> {
        let mut arguments = vec![
            "--parsable".into(),
            format!("--job-name={}", batch.name),
            format!("--array=0-{}", batch.count.saturating_sub(1)),
            // A job that is preempted or whose node fails is submitted anew, under another number.
            "--no-requeue".into(),
            // The step's own output goes to its folder; a folder that the node does not see must not keep the script from saying so.
            "--output=/dev/null".into(),
        ];
        arguments.extend(options(batch.ask));
        let answer = ask("sbatch", &arguments, Some(batch.script)).map_err(|trouble| match trouble {
            Trouble::Refused(text) if text.to_lowercase().contains("partition") => {
                Trouble::Refused(format!("{text}{}", Self::partitions()))
            }
            Trouble::Refused(text) if batch.ask.gpus > 0 && text.contains("generic resource") => {
                Trouble::Refused(format!(
                    "{text}; the cluster has no GPUs to give where this was asked: `resources = {{ gpus = 0 }}` in the step, \
                     `gpus = 0` under `[slurm]` in harness.toml, or `--device cpu` compute without, and `partition` \
                     names other nodes"
                ))
            }
            other => other,
        })?;
        // `--parsable` gives `number` or `number;cluster`.
        let number = answer.lines().last().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Trouble::Unreachable(format!("`sbatch` answered `{}`, which is no job", answer.trim())));
        }
        Ok(number.into())
    }

    fn queue(&mut self) -> Result<Vec<Entry>, Trouble> {
        let format: Vec<String> = COLUMNS.iter().map(|(name, width)| format!("{name}:{width}")).collect();
        // SAFETY: takes nothing and cannot fail.
        let user = unsafe { libc::geteuid() };
        let arguments = [
            "--noheader".into(),
            "--array".into(),
            "--states=all".into(),
            format!("--user={user}"),
            format!("--Format={}", format.join(",")),
        ];
        let answer = ask("squeue", &arguments, None)?;
        Ok(answer.lines().filter_map(entry).filter(|entry| entry.name.starts_with(PREFIX)).collect())
    }

    fn cancel(&mut self, jobs: &[(String, Vec<usize>)]) -> Result<(), Trouble> {
        let name = |(array, members): &(String, Vec<usize>)| {
            let members: Vec<String> = members.iter().map(usize::to_string).collect();
            format!("{array}_[{}]", members.join(","))
        };
        // Command lines have an end.
        for some in jobs.iter().map(name).collect::<Vec<_>>().chunks(100) {
            match ask("scancel", some, None) {
                // Ended in the meantime.
                Err(Trouble::Refused(text)) if text.contains("Invalid job id") => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_queue_are_read() {
        let line = |cells: [&str; 7]| {
            let cell = |(cell, (_, width)): (&&str, &(&str, usize))| format!("{cell:<width$}");
            cells.iter().zip(&COLUMNS).map(cell).collect::<String>()
        };
        let one = entry(&line(["12", "3", "FAILED", "20736", "harness-a", "n1", "NonZeroExitCode"])).unwrap();
        assert_eq!((one.array.as_str(), one.index, one.status, one.is_live()), ("12", 3, Some(81), false));
        let killed = entry(&line(["12", "3", "TIMEOUT", "15", "harness-a", "n1", "TimeLimit"])).unwrap();
        assert_eq!(killed.status, Some(143));
        let waits =
            entry(&line(["12", "4", "PENDING", "0", "harness-a", "", "Nodes required for job are DOWN"])).unwrap();
        assert_eq!((waits.reason.as_str(), waits.status), ("Nodes required for job are DOWN", None));
        // No member of an array is none of ours.
        assert_eq!(entry(&line(["12", "N/A", "PENDING", "0", "other", "", "None"])), None);
    }

    #[test]
    fn what_is_asked_for_becomes_options() {
        let ask = Ask {
            partition: Some("a100".into()),
            gpus: 2,
            cpus: 8,
            memory_mib: Some(64_000),
            minutes: Some(720),
            options: vec!["--account=vision".into()],
        };
        let options = options(&ask).join(" ");
        for part in ["--partition=a100", "--gres=gpu:2", "--mem=64000M", "--time=720", "USR1@120", "--account=vision"] {
            assert!(options.contains(part), "{part} is not in {options}");
        }
    }
}
