//! Which devices there are, and how many slots that makes. Asked of the driver's files, not of libtorch.

use anyhow::{Result, bail};

/// CUDA devices the driver knows.
fn cuda_devices() -> usize {
    std::fs::read_dir("/proc/driver/nvidia/gpus").map(|entries| entries.count()).unwrap_or(0)
}

/// The device of each slot: for CPUs `jobs` times `cpu`, for GPUs one each unless `jobs` says less.
///
/// # Errors
/// A device that does not exist, or a word that names none.
pub fn slots(device: &str, jobs: Option<usize>, threads: u32) -> Result<Vec<String>> {
    let gpus = cuda_devices();
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
    fn words_that_name_no_device_are_refused() {
        assert_eq!(slots("cpu", Some(3), 1).unwrap(), ["cpu"; 3]);
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda:9999", ""] {
            assert!(slots(wrong, None, 1).is_err(), "{wrong}");
        }
    }
}
