//! The jobs of a run on a simulated cluster, its clock included: everything that a scheduler does to its users.

use harness_executors::simulated::{Body, Faults, Simulated};
use harness_executors::{Ask, Clock, End, Jobs, Note, Order, Runner, Settings};
use harness_protocol::{FromWorker, Job, Outcome};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A clock that stands still until it is told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Duration>>);

impl Told {
    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for Told {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn unix(&self) -> f64 {
        1.7e9 + self.now().as_secs_f64()
    }
}

fn finishes() -> Body {
    Box::new(|job| {
        let metrics = BTreeMap::from([("v".to_string(), job.params["n"].as_f64().unwrap())]);
        std::fs::write(job.out_dir.join("out"), job.key.as_bytes()).unwrap();
        FromWorker::Finished { id: job.id, outcome: Outcome { metrics, ..Outcome::default() } }
    })
}

fn order(cache: &Path, number: usize) -> Order {
    let job = Job {
        id: 1,
        kind: "command".into(),
        version: 1,
        key: format!("{number:064x}"),
        label: format!("step[{number}]"),
        params: serde_json::json!({ "n": number }),
        inputs: BTreeMap::new(),
        out_dir: "unset".into(),
        work_dir: cache.join("work").join(number.to_string()),
        peers: Vec::new(),
        device: "cpu".into(),
        threads: 1,
    };
    let ask = Ask { cpus: 1, gpus: u32::from(number.is_multiple_of(3)), ..Ask::default() };
    Order { job, runner: Runner { program: "/bin/true".into(), words: Vec::new() }, ask, inputs: "as they are".into() }
}

/// Lets a run of so many jobs pass; how each ended, what was warned of, and the scheduler.
struct Ran {
    ends: BTreeMap<String, Vec<End>>,
    warned: Vec<String>,
    cluster: Simulated<Told>,
    took: Duration,
}

fn run(cache: &Path, count: usize, faults: Faults, seed: u64, body: Body, stop: Option<Duration>) -> Ran {
    let clock = Told::default();
    let cluster = Simulated::new(clock.clone(), faults, seed, 300, body);
    let mut jobs = Jobs::new(cache, Box::new(cluster.clone()), Box::new(clock.clone()), Settings::default()).unwrap();
    let (mut ends, mut warned) = (BTreeMap::<String, Vec<End>>::new(), Vec::new());
    for number in 0..count {
        assert!(!jobs.add(order(cache, number)).unwrap());
    }
    let mut forget = Vec::new();
    while !jobs.is_empty() {
        clock.pass(Duration::from_secs(1));
        cluster.advance();
        let mut on = |note| match note {
            Note::Ended(key, end, place) => {
                if let End::Done(_) = &end {
                    assert_eq!(std::fs::read_to_string(place.out.join("out")).unwrap(), key);
                    assert!(place.host.starts_with("node") && place.ran_s > 0.0 && place.waited_s >= 0.0);
                }
                ends.entry(key.clone()).or_default().push(end);
                forget.push(key);
            }
            Note::Warned(_, text) => warned.push(text),
            _ => {}
        };
        jobs.tick(&mut on);
        if stop.is_some_and(|stop| clock.now() >= stop) {
            jobs.cancel(&mut on);
        }
        forget.drain(..).for_each(|key| jobs.forget(&key));
        assert!(clock.now() < Duration::from_secs(200_000), "{} jobs never end", jobs.len());
    }
    Ran { ends, warned, cluster, took: clock.now() }
}

fn once_each_and_rarely_asked(ran: &Ran, count: usize) {
    assert_eq!(ran.ends.len(), count);
    assert!(ran.ends.values().all(|ends| ends.len() == 1));
    let counted = ran.cluster.counted();
    let asked = &counted.asked;
    assert!(asked.len() > 1 && asked.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(10)));
    eprintln!(
        "{count} jobs in {} s of the cluster's: {} arrays, asked {} times, {} faults, {} warnings, {} computed more than once",
        ran.took.as_secs(),
        counted.arrays,
        asked.len(),
        counted.faults,
        ran.warned.len(),
        counted.ran.values().filter(|times| **times > 1).count()
    );
}

fn all_done(count: usize, seed: u64) {
    let cache = tempfile::tempdir().unwrap();
    let ran = run(cache.path(), count, Faults::MANY, seed, finishes(), None);
    once_each_and_rarely_asked(&ran, count);
    let mut unlucky = 0;
    for (key, ends) in &ran.ends {
        let number = usize::from_str_radix(key, 16).unwrap();
        match &ends[0] {
            End::Done(outcome) => assert_eq!(outcome.metrics["v"], number as f64),
            // Among thousands there is one that the scheduler loses as often as is tried; that it says so is its end.
            End::Died(why) if why.contains("vanished 4 times") => unlucky += 1,
            other => panic!("{key}: {other:?}"),
        }
    }
    eprintln!("{unlucky} were lost by the scheduler four times and given up");
    assert!(unlucky * 2_000 <= count);
    assert!(count < 100 || ran.cluster.counted().faults > count / 10);
    // Nothing is left behind.
    for folder in ["jobs", "ends"] {
        let left = std::fs::read_dir(cache.path().join("cluster").join(folder)).unwrap().count();
        assert_eq!(left, 0, "{folder}");
    }
}

#[test]
fn a_thousand_jobs_end_once_each_whatever_the_cluster_does() {
    all_done(1_000, 1);
}

#[test]
#[ignore = "ten thousand jobs, by hand"]
fn ten_thousand_jobs_end_once_each() {
    all_done(10_000, 2);
}

#[test]
fn small_runs_of_many_seeds_end() {
    for seed in 10..18 {
        all_done(20, seed);
    }
}

#[test]
fn failures_are_reported_as_the_program_said_them() {
    let cache = tempfile::tempdir().unwrap();
    let body: Body = Box::new(|job| FromWorker::Failed { id: job.id, message: format!("no {}", job.label) });
    let ran = run(cache.path(), 10, Faults::default(), 3, body, None);
    once_each_and_rarely_asked(&ran, 10);
    for (number, ends) in ran.ends.values().enumerate() {
        assert!(matches!(&ends[0], End::Failed(text) if *text == format!("no step[{number}]")), "{ends:?}");
    }
    assert!(ran.warned.is_empty(), "{:?}", ran.warned);
}

#[test]
fn what_is_cancelled_ends_soon_and_what_was_done_stays_done() {
    let cache = tempfile::tempdir().unwrap();
    let ran = run(cache.path(), 200, Faults::default(), 4, finishes(), Some(Duration::from_secs(120)));
    assert_eq!(ran.ends.len(), 200);
    let of = |wanted: fn(&End) -> bool| ran.ends.values().filter(|ends| ends.len() == 1 && wanted(&ends[0])).count();
    let (done, cancelled) = (of(|end| matches!(end, End::Done(_))), of(|end| matches!(end, End::Cancelled)));
    assert!(done > 0 && cancelled > 100 && done + cancelled == 200, "{done} done, {cancelled} cancelled");
    assert!(ran.took < Duration::from_secs(170), "{:?}", ran.took);
}

#[test]
fn a_job_that_always_vanishes_fails_in_the_end() {
    let cache = tempfile::tempdir().unwrap();
    let faults = Faults { lost: 100, ..Faults::default() };
    let ran = run(cache.path(), 2, faults, 5, finishes(), None);
    for ends in ran.ends.values() {
        assert!(matches!(&ends[0], End::Died(text) if text.contains("vanished 4 times")), "{ends:?}");
    }
}

/// A coordinator of the jobs in this cache.
fn coordinator(cache: &Path, cluster: &Simulated<Told>, clock: &Told) -> Jobs {
    Jobs::new(cache, Box::new(cluster.clone()), Box::new(clock.clone()), Settings::default()).unwrap()
}

/// Follows jobs for so many seconds.
fn follow(jobs: &mut Jobs, clock: &Told, seconds: u64) {
    for _ in 0..seconds {
        clock.pass(Duration::from_secs(1));
        jobs.tick(&mut |note| drop(note));
    }
}

/// Follows jobs until all have ended; how many were done.
fn until_ended(jobs: &mut Jobs, clock: &Told, cluster: &Simulated<Told>) -> usize {
    let mut ended = 0;
    while !jobs.is_empty() {
        clock.pass(Duration::from_secs(1));
        cluster.advance();
        jobs.tick(&mut |note| ended += usize::from(matches!(note, Note::Ended(_, End::Done(_), _))));
        assert!(clock.now() < Duration::from_secs(20_000));
    }
    ended
}

#[test]
fn a_job_of_other_inputs_is_called_off_and_not_followed() {
    let cache = tempfile::tempdir().unwrap();
    let clock = Told::default();
    let cluster = Simulated::new(clock.clone(), Faults::default(), 6, 300, finishes());
    let start = || coordinator(cache.path(), &cluster, &clock);
    let mut jobs = start();
    (0..3).for_each(|number| _ = jobs.add(order(cache.path(), number)).unwrap());
    follow(&mut jobs, &clock, 20);
    drop(jobs);
    let mut jobs = start();
    let changed = |number| Order { inputs: "written to".into(), ..order(cache.path(), number) };
    assert!(jobs.add(order(cache.path(), 0)).unwrap());
    assert!(!jobs.add(changed(1)).unwrap());
    // Somebody computes it elsewhere.
    assert!(jobs.call_off(&format!("{:064x}", 2)) && !jobs.call_off(&format!("{:064x}", 2)));
    assert_eq!(cluster.counted().cancelled, 2);
    let ended = until_ended(&mut jobs, &clock, &cluster);
    assert_eq!(ended, 2);
}

#[test]
fn a_coordinator_that_was_killed_finds_its_jobs() {
    let cache = tempfile::tempdir().unwrap();
    let clock = Told::default();
    let cluster = Simulated::new(clock.clone(), Faults::default(), 6, 300, finishes());
    let start = || coordinator(cache.path(), &cluster, &clock);
    let mut jobs = start();
    (0..50).for_each(|number| _ = jobs.add(order(cache.path(), number)).unwrap());
    follow(&mut jobs, &clock, 150);
    // Killed: nothing is written down at the end. What ended meanwhile was not taken.
    let before = 50 - jobs.len();
    drop(jobs);
    clock.pass(Duration::from_secs(60));
    let mut jobs = start();
    let adopted = (0..50).filter(|number| jobs.add(order(cache.path(), *number)).unwrap()).count();
    assert!(before > 0 && adopted == 50, "{before} had ended, {adopted} were found");
    let ended = until_ended(&mut jobs, &clock, &cluster);
    let counted = cluster.counted();
    assert_eq!((ended, counted.arrays), (50, 2), "nothing was submitted again");
    assert!(counted.ran.len() == 50 && counted.ran.values().all(|times| *times == 1));
}
