//! Which devices there are, and how many slots that makes. Asked of the driver's files, not of libtorch.

use anyhow::{Result, bail};

/// What `CUDA_VISIBLE_DEVICES` would call each device that this process may use: the driver's numbers, or what the
/// variable already allows (a scheduler's choice).
fn cuda_devices() -> Vec<String> {
    let there = std::fs::read_dir("/proc/driver/nvidia/gpus").map(|entries| entries.count()).unwrap_or(0);
    visible(there, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
}

/// CUDA itself stops reading at the first entry that names no device.
fn visible(there: usize, variable: Option<&str>) -> Vec<String> {
    match variable {
        None => (0..there).map(|number| number.to_string()).collect(),
        Some(list) => list
            .split(',')
            .map(str::trim)
            .take_while(|name| match name.parse::<usize>() {
                Ok(number) => number < there,
                Err(_) => there > 0 && (name.starts_with("GPU-") || name.starts_with("MIG-")),
            })
            .map(String::from)
            .collect(),
    }
}

/// How many GPUs this process may use.
pub fn gpus() -> usize {
    cuda_devices().len()
}

/// The number of a slot's CUDA device.
fn cuda(slot: &str) -> Option<usize> {
    slot.strip_prefix("cuda:").and_then(|number| number.parse().ok())
}

/// How a step's processes see its devices: what `CUDA_VISIBLE_DEVICES` is to say, and the first device's name to them. A
/// process on `cuda:2` and `cuda:3` sees these alone, and so as its `cuda:0` and `cuda:1`.
pub fn seen(slots: &[String]) -> (Option<String>, String) {
    let Some(first) = slots.first() else { return (None, "cpu".into()) };
    if cuda(first).is_none() {
        return (None, first.clone());
    }
    let there = cuda_devices();
    let names: Vec<&str> = slots.iter().filter_map(|slot| there.get(cuda(slot)?)).map(String::as_str).collect();
    (Some(names.join(",")), "cuda:0".into())
}

/// Devices of a step's further ranks, as its processes see them: its other GPUs; where there are none, as many shares of the
/// processor as it asks for devices. None of a kind that cannot be shared.
pub fn peers(shared: bool, asked: Option<u32>, slots: &[String]) -> Vec<String> {
    let gpus = slots.iter().filter(|slot| cuda(slot).is_some()).count();
    match (shared, gpus) {
        (false, _) => Vec::new(),
        (true, 0) => vec!["cpu".into(); asked.unwrap_or(1).max(1) as usize - 1],
        (true, gpus) => (1..gpus).map(|number| format!("cuda:{number}")).collect(),
    }
}

/// The memory of each slot's GPU in bytes, as the driver's own program says it; none where it does not, or of a CPU.
pub fn memories(slots: &[String]) -> Vec<Option<u64>> {
    let asked = std::process::Command::new("nvidia-smi")
        .args(["--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"])
        .output();
    let text = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let there = cuda_devices();
    slots.iter().map(|slot| memory_in(&text, there.get(cuda(slot)?)?)).collect()
}

/// The memory of the GPU with this number or the beginning of this name, in a table of the driver's.
fn memory_in(table: &str, name: &str) -> Option<u64> {
    let rows = table.lines().map(|line| line.split(',').map(str::trim).collect::<Vec<_>>());
    let is_it =
        |row: &Vec<&str>| row.len() == 3 && (row[0] == name || name.starts_with("GPU-") && row[1].starts_with(name));
    rows.into_iter().find(is_it).and_then(|row| row[2].parse::<u64>().ok()).map(|mib| mib << 20)
}

/// The device of each slot: for CPUs `jobs` times `cpu`, for GPUs one each unless `jobs` says less.
///
/// # Errors
/// A device that does not exist, or a word that names none.
pub fn slots(device: &str, jobs: Option<usize>, threads: u32) -> Result<Vec<String>> {
    let gpus = cuda_devices().len();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cpus = || vec!["cpu".to_string(); jobs.unwrap_or((cores / threads.max(1) as usize).max(1))];
    let some = |numbers: Vec<usize>| -> Result<Vec<String>> {
        if let Some(missing) = numbers.iter().find(|&&number| number >= gpus) {
            match gpus {
                0 => bail!(
                    "the device cuda:{missing} was asked for and this machine shows no CUDA device; use `--device cpu`"
                ),
                n => bail!("there is no device cuda:{missing}; this machine has cuda:0 to cuda:{}", n - 1),
            }
        }
        let mut slots: Vec<String> = numbers.iter().map(|number| format!("cuda:{number}")).collect();
        slots.truncate(jobs.unwrap_or(usize::MAX).max(1));
        Ok(slots)
    };
    match device {
        "cpu" => Ok(cpus()),
        "auto" if gpus == 0 => Ok(cpus()),
        "auto" => some((0..gpus).collect()),
        "cuda" => some((0..gpus.max(1)).collect()),
        other => match other
            .strip_prefix("cuda:")
            .map(|list| list.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>())
        {
            Some(Ok(numbers)) => some(numbers),
            _ => bail!("unknown device `{other}`; there are `auto`, `cpu`, `cuda` and `cuda:0,1`"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedulers_choice_is_respected() {
        assert_eq!(visible(2, None), ["0", "1"]);
        assert_eq!(visible(4, Some("3,1")), ["3", "1"]);
        assert_eq!(visible(4, Some("1,9,2")), ["1"]);
        assert_eq!(visible(1, Some("GPU-5a")), ["GPU-5a"]);
        for none in ["", "-1", "NoDevFiles"] {
            assert!(visible(4, Some(none)).is_empty(), "{none}");
        }
        assert_eq!(seen(&["cpu".into()]), (None, "cpu".into()));
        let two = ["cuda:2".to_string(), "cuda:5".to_string()];
        assert_eq!(peers(true, Some(2), &two), ["cuda:1"]);
        assert_eq!(peers(true, Some(3), &["cpu".into()]), ["cpu", "cpu"]);
        assert!(peers(true, None, &["cpu".into()]).is_empty() && peers(false, Some(2), &two).is_empty());
        let table = "0, GPU-5a11, 81559\n1, GPU-77bc, 40960\n";
        assert_eq!((memory_in(table, "1"), memory_in(table, "GPU-5a")), (Some(40_960 << 20), Some(81_559 << 20)));
        assert_eq!((memory_in(table, "2"), memory_in("no driver", "0")), (None, None));
    }

    #[test]
    fn words_that_name_no_device_are_refused() {
        assert_eq!(slots("cpu", Some(3), 1).unwrap(), ["cpu"; 3]);
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda:9999", ""] {
            assert!(slots(wrong, None, 1).is_err(), "{wrong}");
        }
    }
}
