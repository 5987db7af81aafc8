//! Carries labels through given features and says how long that took; `tests/bench/propagate.py` compares.
//!
//! `propagate_speed FEATURES.npy LABELS.npy SOFT.npy RULE CONTEXT RADIUS TOP_K TEMPERATURE THREADS`: features
//! [frames, channels, h, w] and first labels [labels, h, w] in fp32, soft labels [frames, labels, h, w] out. Prints one
//! JSON object: CPU seconds of every frame but the first (what else the machine does is not counted; of one thread they
//! are the time on an idle machine), and the process's peak memory in MiB.

use std::error::Error;

use harness_worker::steps::propagate::vote::{Propagator, Rule, Voting};
use tch::Tensor;

fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is there.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [features, labels, soft, rule, context, radius, top_k, temperature, threads] = arguments.as_slice() else {
        return Err("FEATURES.npy LABELS.npy SOFT.npy RULE CONTEXT RADIUS TOP_K TEMPERATURE THREADS".into());
    };
    let voting = Voting {
        rule: match rule.as_str() {
            "videowalk" => Rule::Videowalk,
            "dino" => Rule::Dino,
            other => return Err(format!("no rule `{other}`").into()),
        },
        context: context.parse()?,
        radius: radius.parse()?,
        top_k: top_k.parse()?,
        temperature: temperature.parse()?,
    };
    let threads: usize = threads.parse()?;
    tch::set_num_threads(threads as i32);
    let (features, labels) = (Tensor::read_npy(features)?, Tensor::read_npy(labels)?);
    let mut propagator = Propagator::new(&features.get(0), &labels, voting, threads)?;
    let (mut maps, mut seconds) = (vec![labels], Vec::new());
    for frame in 1..features.size()[0] {
        let start = cpu_seconds();
        maps.push(propagator.step(&features.get(frame))?);
        seconds.push(cpu_seconds() - start);
    }
    Tensor::stack(&maps, 0).write_npy(soft)?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    println!("{}", serde_json::json!({ "seconds": seconds, "peak_mib": peak.unwrap_or(0.0) / 1024.0 }));
    Ok(())
}
