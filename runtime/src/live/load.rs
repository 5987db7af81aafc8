//! What the machine is busy with: processors, memory, and NVIDIA GPUs where their driver is there.

use nvml_wrapper::Nvml;
use serde::Serialize;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks that are kept: two minutes.
const KEPT: usize = 120;

/// A GPU at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gpu {
    /// Its number, as the driver counts.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Share of the time in which it computed, 0 to 1.
    pub busy: f64,
    /// Bytes of its memory in use.
    pub used: u64,
    /// Bytes of its memory.
    pub total: u64,
}

/// The machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Load {
    /// Share of the time in which its processors computed, all of them together, 0 to 1.
    pub cpu: f64,
    /// Bytes of memory that programs cannot have.
    pub used: u64,
    /// Bytes of memory.
    pub total: u64,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
}

/// Looks at the machine once a second.
pub struct Meter {
    looked: Option<Instant>,
    /// Jiffies that were busy, and all.
    before: Option<(u64, u64)>,
    nvml: Option<Nvml>,
    /// The last looks, oldest first.
    pub recent: VecDeque<Load>,
    /// Looks so far.
    pub looks: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// Without the driver's library no GPU is shown; it is looked for at run time, so nothing needs it to start.
    pub fn new() -> Self {
        let read = std::fs::read_to_string("/proc/stat").ok();
        let before = read.as_deref().and_then(jiffies);
        // What the processors did is known after a while.
        Self { looked: Some(Instant::now()), before, nvml: Nvml::init().ok(), recent: VecDeque::new(), looks: 0 }
    }

    /// Looks if it is time to; whether it did.
    pub fn look(&mut self) -> bool {
        if self.looked.is_some_and(|looked| looked.elapsed() < EVERY) {
            return false;
        }
        self.looked = Some(Instant::now());
        let now = std::fs::read_to_string("/proc/stat").ok().as_deref().and_then(jiffies);
        let cpu = match (self.before, now) {
            (Some((busy, all)), Some((busy_now, all_now))) if all_now > all => {
                busy_now.saturating_sub(busy) as f64 / (all_now - all) as f64
            }
            _ => self.recent.back().map_or(0.0, |load| load.cpu),
        };
        self.before = now.or(self.before);
        let (used, total) = std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(memory).unwrap_or((0, 0));
        self.recent.push_back(Load { cpu, used, total, gpus: self.gpus() });
        if self.recent.len() > KEPT {
            self.recent.pop_front();
        }
        self.looks += 1;
        true
    }

    fn gpus(&self) -> Vec<Gpu> {
        let Some(nvml) = &self.nvml else { return Vec::new() };
        let look = |index: u32| {
            let device = nvml.device_by_index(index).ok()?;
            let memory = device.memory_info().ok()?;
            let busy = device.utilization_rates().map_or(0.0, |rates| f64::from(rates.gpu) / 100.0);
            Some(Gpu { index, name: device.name().unwrap_or_default(), busy, used: memory.used, total: memory.total })
        };
        (0..nvml.device_count().unwrap_or(0)).filter_map(look).collect()
    }
}

/// Busy and all jiffies of the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn jiffies(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let numbers: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).take(8).collect();
    let all: u64 = numbers.iter().sum();
    Some((all - numbers.get(3)? - numbers.get(4)?, all))
}

/// Bytes in use and in all, of `/proc/meminfo`.
fn memory(info: &str) -> Option<(u64, u64)> {
    let of = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let total = of("MemTotal")?;
    Some((total.saturating_sub(of("MemAvailable")?), total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(jiffies("cpu  10 1 5 100 20 2 3 4 0 0\ncpu0 1"), Some((25, 145)));
        assert_eq!(jiffies("something else"), None);
        let info = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n";
        assert_eq!(memory(info), Some((600 * 1024, 1000 * 1024)));
        let mut meter = Meter::new();
        assert!(!meter.look());
        meter.looked = None;
        assert!(meter.look() && !meter.look());
        let load = meter.recent.back().unwrap();
        assert!((0.0..=1.0).contains(&load.cpu) && load.total >= load.used && load.total > 0, "{load:?}");
    }
}
