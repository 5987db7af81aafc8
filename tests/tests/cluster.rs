//! Steps as jobs of a real Slurm on loopback: what users of a cluster do, and what goes wrong there.

use harness_tests::slurm::Slurm;
use harness_tests::{Ran, Test};
use serde_json::Value;
use std::process::Output;
use std::time::{Duration, Instant};

/// Three small steps over two seeds and one that needs them all.
const TEXT: &str = r#"
param word = "a"
param wait = "0"
replicate seed in [1, 2, 3] {
    command draw { run = ["sh", "-c", "sleep $WAIT; echo {seed} $WORD > out; echo drawing; printf '{\"v\": {seed}}' > metrics.json"], env = { WORD = word, WAIT = wait }, outputs = { out = { kind = file, path = "out" } }, metrics = ["v"] }
}
command sum { run = ["sh", "-c", "cat inputs/a > all; printf '{\"n\": 1}' > metrics.json"], inputs = { a = draw[seed = 1].out }, outputs = { all = { kind = file, path = "all" } }, metrics = ["n"], resources = { time = 5min, memory = 100MB } }
"#;

fn run(test: &Test, slurm: &Slurm, arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } =
        test.command(arguments).env("SLURM_CONF", slurm.configuration()).output().expect("harness starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
}

const SLURM: [&str; 6] = ["run", "a.exp", "--executor", "slurm", "--json", "--keep-going"];

#[test]
fn an_experiment_runs_through_a_real_slurm() {
    let Some(slurm) = Slurm::start() else { return };
    let test = Test::new().file("a.exp", TEXT);
    let ran = run(&test, &slurm, &SLURM).code(0);
    assert_eq!(ran.counts(), [4, 0, 0, 0], "{}", ran.stdout);
    let events = ran.events();
    let queued: Vec<&Value> = events.iter().filter(|event| event["event"] == "step_queued").collect();
    assert!(queued.iter().any(|event| event["job"].as_str().is_some_and(|job| job.contains('_'))));
    let started = events.iter().find(|event| event["event"] == "step_started").expect("a step started");
    assert!(started["slot"].as_str().is_some_and(|slot| slot.starts_with("slurm:")), "{started}");
    // The same results as on this machine, and their place is known.
    let again = test.harness(&["run", "a.exp", "--json"]).code(0);
    assert_eq!(again.counts(), [0, 4, 0, 0]);
    let shown = test.harness(&["show", "a.exp", "draw[seed=2]", "--json"]);
    assert!(shown.stdout.contains("slurm, job "), "{}{}", shown.stdout, shown.stderr);
    // Nothing is left in the cluster's folder.
    let left = |name: &str| std::fs::read_dir(test.path().join(".harness/cluster").join(name)).unwrap().count();
    assert_eq!([left("jobs"), left("ends"), left("batches")], [0; 3]);

    // A partition that is not there, memory that no node has, a program that fails: each said, the others go on.
    let bad = TEXT
        .replace("time = 5min, memory = 100MB", "partition = \"nope\"")
        .replace("echo drawing", "test {seed} = 3 || exit $((3 - {seed}))");
    test.write("b.exp", bad);
    let ran = run(&test, &slurm, &["run", "b.exp", "--executor", "slurm", "--json", "--keep-going"]).code(1);
    assert_eq!(ran.status("draw[seed=3]"), "executed");
    let error = |label: &str| {
        let end = ran.events().into_iter().find(|e| e["event"] == "step_finished" && e["label"] == label);
        end.unwrap_or_default()["error"].as_str().unwrap_or_default().to_string()
    };
    assert!(error("draw[seed=1]").contains("ended with status 2"), "{}", error("draw[seed=1]"));
    test.write(
        "c.exp",
        TEXT.replace("time = 5min, memory = 100MB", "partition = \"nope\"").replace("> all", "| cat > all"),
    );
    let ran = run(&test, &slurm, &["run", "c.exp", "--json"]).code(1);
    assert!(ran.stdout.contains("Invalid partition name") && ran.stdout.contains("main, spare"), "{}", ran.stdout);
    test.write(
        "d.exp",
        TEXT.replace("memory = 100MB", "memory = 900GB, executor = slurm").replace("> all", "| cat > all"),
    );
    let ran = run(&test, &slurm, &["run", "d.exp", "--json"]).code(1);
    assert!(ran.stdout.contains("Memory specification"), "{}", ran.stdout);
}

#[test]
fn the_quickstart_runs_through_a_real_slurm() {
    let Some(slurm) = Slurm::start() else { return };
    let text = std::fs::read_to_string("../experiments/quickstart.exp").expect("the quickstart");
    let test = Test::new().file("quickstart.exp", &text);
    // One seed and one epoch of it: every kind of step as a job, with its worker.
    let short = ["run", "quickstart.exp", "-p", "seeds=[1]", "-p", "epochs=1", "--json"];
    let ran = run(&test, &slurm, &[&short[..], &["--executor", "slurm"]].concat()).code(1);
    assert!(ran.stdout.contains("no GPUs to give") && ran.stdout.contains("--device cpu"), "{}", ran.stdout);
    let ran = run(&test, &slurm, &[&short[..], &["--executor", "slurm", "--device", "cpu"]].concat()).code(0);
    let [executed, _, failed, skipped] = ran.counts();
    assert!(executed > 20 && failed == 0 && skipped == 0, "{}", ran.stdout);
    let events = ran.events();
    let started = |event: &&Value| event["event"] == "step_started" && event["kind"] != "scenes";
    for event in events.iter().filter(started) {
        assert!(event["slot"].as_str().is_some_and(|slot| slot.starts_with("slurm:")), "{event}");
    }
    // The summary says where, how long it took, and how long it waited.
    let summaries = test.path().join(".harness/summaries/quickstart");
    assert!(summaries.join("summary.html").is_file());
    let summary = std::fs::read_to_string(summaries.join("summary.md")).expect("a summary");
    assert!(summary.contains(" h on cpu") && summary.contains(" in a cluster's queue; "), "{summary}");
    assert!(summary.contains("slurm, job "), "{summary}");
    // What the cluster computed is what this machine would have: nothing is left to do.
    let again = test.harness(&short).code(0);
    assert_eq!(again.counts()[0], 0, "{}", again.stdout);
}

#[test]
fn a_killed_run_finds_its_jobs_and_a_cancelled_one_leaves_none() {
    let Some(slurm) = Slurm::start() else { return };
    let test = Test::new().file("a.exp", TEXT);
    let start = |wait: &str, word: &str| {
        let mut command = test.command(&SLURM);
        command.args(["-p", &format!("wait={wait}"), "-p", &format!("word={word}")]);
        command.env("SLURM_CONF", slurm.configuration()).spawn().expect("harness starts")
    };
    let running = || slurm.ask("squeue", &["-h", "-r", "-t", "RUNNING,PENDING", "-o", "%i"]).lines().count();
    let until = |what: &str, there: &dyn Fn() -> bool| {
        let since = Instant::now();
        while !there() {
            assert!(since.elapsed() < Duration::from_secs(60), "{what} never came");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let mut child = start("8", "k");
    until("the jobs", &|| running() == 3);
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let plan = test.harness(&["plan", "a.exp", "-p", "wait=8", "-p", "word=k"]).code(0);
    assert!(plan.stdout.contains("in the queue: "), "{}", plan.stdout);
    let before = slurm.ask("squeue", &["-h", "-r", "-t", "all", "-o", "%i"]).lines().count();
    let mut arguments = SLURM.to_vec();
    arguments.extend(["-p", "wait=8", "-p", "word=k"]);
    let ran = run(&test, &slurm, &arguments).code(0);
    assert_eq!(ran.counts(), [4, 0, 0, 0], "{}", ran.stdout);
    assert!(ran.stdout.contains("its job is there already"), "{}", ran.stdout);
    let after = slurm.ask("squeue", &["-h", "-r", "-t", "all", "-o", "%i"]).lines().count();
    assert_eq!(after, before + 1, "only the last step was submitted again");

    let child = start("100", "c");
    until("the jobs", &|| running() == 3);
    // SAFETY: the process is ours and not waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    until("the end of all jobs", &|| running() == 0);

    // What a killed run left in the queue is not computed there and here.
    let mut child = start("100", "d");
    until("the jobs", &|| running() == 3);
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let mut local = test.command(&["run", "a.exp", "--json", "-p", "wait=100", "-p", "word=d", "draw[seed=2]"]);
    let mut local = local.env("SLURM_CONF", slurm.configuration()).spawn().expect("harness starts");
    until("the end of one job", &|| running() == 2);
    // SAFETY: the process is ours and not waited for.
    unsafe { libc::kill(local.id() as i32, libc::SIGINT) };
    assert_eq!(local.wait().expect("it ends").code(), Some(130));
    slurm.ask("scancel", &["--user=root"]);
}

#[test]
fn without_slurm_it_is_said_what_to_do() {
    let test = Test::new().file("a.exp", TEXT);
    // The programs that the steps need, and nothing else.
    for name in ["sh", "sleep", "cat"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
            .expect("a usual program");
        std::fs::create_dir_all(test.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(found, test.path().join("bin").join(name)).unwrap();
    }
    let output = test.command(&SLURM).env("PATH", test.path().join("bin")).output().expect("harness starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("`sbatch` is not on PATH") && said.contains("--executor local"), "{said}");
}
