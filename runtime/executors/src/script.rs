//! The batch script: what runs on a node around a step. Bash and coreutils are all it needs there.
//!
//! It writes how the step ended into `ends/`, complete or not at all. What it cannot write for want of the folder or of
//! space, its own exit status says, which the scheduler passes on.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// Exit status of a script that does not see the cache's folder.
pub const NO_FOLDER: i32 = 81;
/// Exit status of a script that does not find its job in the folder.
pub const NO_JOB: i32 = 82;
/// Exit status of a script that could not write how its step ended.
pub const NO_SPACE: i32 = 83;
/// Status in an end of a step whose program is not there.
pub const NO_PROGRAM: i32 = 84;

/// How a step ended on its node. Times are the node's, in seconds since 1970; only their difference means something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Exit status of the program; above 128 it died of a signal.
    pub status: i32,
    /// The signal that asked it to stop: `USR1` shortly before its time is over, `TERM` when it is preempted or cancelled.
    pub told: String,
    /// The node.
    pub host: String,
    /// When it began.
    pub began: f64,
    /// When it ended.
    pub ended: f64,
}

/// What the script writes when it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beginning {
    /// The node.
    pub host: String,
    /// When, by the node's clock.
    pub began: f64,
}

/// A word of the shell's that means the text itself.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The script of an array whose members are listed in `batches/NAME/tasks` of the folder `home`: each line a job's
/// folder below `jobs/`, a tab, and the program that must be there.
pub fn script(home: &Path, name: &str) -> String {
    let home = quoted(&home.to_string_lossy());
    format!(
        r#"#!/bin/bash
# {name}: a step of an experiment of harness. How it ends is written to ends/ in the folder below.
home={home}
pid= told=
# From the first moment: a signal that nobody catches ends the script without a word.
trap 'told=USR1; [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null' USR1
trap 'told=TERM; [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null' TERM
[ -d "$home/jobs" ] || {{ echo "harness: the node $(hostname) does not see $home" >&2; exit {NO_FOLDER}; }}
IFS=$'\t' read -r job program < <(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$home/batches/{name}/tasks")
[ -n "$job" ] || exit {NO_JOB}
key=${{job%/*}} attempt=${{job#*/}} folder=$home/jobs/$job
ending=$home/ends/$key.$attempt
now() {{ date +%s.%N; }}
# Another attempt may have taken its place while it waited, or it has run already.
[ "$(cat "$home/jobs/$key/current" 2>/dev/null)" = "$attempt" ] && [ ! -e "$ending" ] || exit 0
began=$(now)
leave() {{
    printf '{{"status":%d,"told":"%s","host":"%s","began":%s,"ended":%s}}\n' \
        "$1" "$told" "$(hostname)" "$began" "$(now)" > "$folder/ending" && mv "$folder/ending" "$ending" || exit {NO_SPACE}
    exit 0
}}
printf '{{"host":"%s","began":%s}}\n' "$(hostname)" "$began" > "$folder/beginning" && mv "$folder/beginning" "$folder/began"
[ -x "$program" ] || leave {NO_PROGRAM}
rm -rf "$folder/out" && mkdir "$folder/out" && cd "$folder" || leave 1
bash ./run > log.txt 2>&1 &
pid=$!
[ -z "$told" ] || kill -TERM "$pid" 2>/dev/null
wait "$pid"; status=$?
# A signal ends the waiting, not the step.
while kill -0 "$pid" 2>/dev/null; do wait "$pid"; status=$?; done
leave "$status"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_for_the_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
