//! How something was computed: written beside every result, never part of a key.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::context::Context;

/// Version of the libtorch that is loaded (which LD_LIBRARY_PATH may have chosen), as its folder says.
pub fn libtorch_version() -> String {
    loaded_version().unwrap_or_else(|| env!("HARNESS_LIBTORCH").into())
}

fn loaded_version() -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    let top = Path::new(&line[line.find('/')?..]).parent()?.parent()?;
    let python = std::fs::read_to_string(top.join("version.py")).unwrap_or_default();
    let quoted = python.lines().find_map(|line| line.strip_prefix("__version__ = '")?.strip_suffix('\''));
    let plain = || std::fs::read_to_string(top.join("build-version")).ok().map(|text| text.trim().to_string());
    quoted.map(str::to_string).or_else(plain)
}

/// Largest resident memory of this process so far, bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// libtorch, device, threads, ranks where there are several, peak memory, and how many pictures a second went through the network.
pub fn provenance(context: &Context, pictures: u64, seconds: f64) -> BTreeMap<String, Value> {
    let mut map = BTreeMap::from([
        ("libtorch".to_string(), json!(libtorch_version())),
        ("device".to_string(), json!(context.job.device)),
        ("threads".to_string(), json!(context.job.threads)),
        ("torch_threads".to_string(), json!(tch::get_num_threads())),
        ("worker".to_string(), json!(env!("CARGO_PKG_VERSION"))),
    ]);
    if pictures > 0 && seconds > 0.0 {
        map.insert("pictures_per_s".into(), json!((pictures as f64 / seconds * 10.0).round() / 10.0));
    }
    if context.team.size() > 1 {
        map.insert("ranks".into(), json!(context.team.size()));
    }
    if let Some(bytes) = peak_memory() {
        map.insert("peak_memory_bytes".into(), json!(bytes));
    }
    map
}
