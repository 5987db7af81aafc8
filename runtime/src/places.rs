//! Who sits where: which step gets which devices of this machine, or a place in the cluster's queue. Pure bookkeeping.
//!
//! A step has its devices to itself. Steps that say how much of a device's memory they need share one, while that fits.
//! A step that wants several devices, or much memory, may be overtaken a few times while it waits; then nothing that
//! came later begins on this machine before it does. So neither the large nor the small ones starve.

use std::collections::BTreeMap;

/// Steps that one GPU takes at a time where they share it.
pub const SHARED: usize = 4;
/// How often a step that does not fit may be overtaken.
const OVERTAKEN: u32 = 8;

/// What a step needs to begin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Need {
    /// Devices of this machine; at least one.
    pub devices: usize,
    /// Memory of the device, in bytes: it may be shared.
    pub device_memory: Option<u64>,
    /// Memory of the machine that it reserves, in bytes.
    pub memory: u64,
    /// Whether it runs on the cluster, and needs nothing of this machine.
    pub cluster: bool,
    /// How often another one was let past it.
    pub overtaken: u32,
}

/// A device.
#[derive(Clone, Debug)]
struct Device {
    /// Its memory in bytes, of a GPU that can be shared.
    memory: Option<u64>,
    /// What its sharers reserve.
    shared: u64,
    /// Steps on it.
    steps: usize,
    /// Whether one has it to itself.
    alone: bool,
}

/// The places of a run. A seat is a number; who sits on it is a thread's business.
pub struct Places {
    /// The device of each seat of this machine; seats from there on are of the cluster.
    seats: Vec<usize>,
    devices: Vec<Device>,
    /// Seats of this machine, the one that was used last at the end: its worker is warm.
    free: Vec<usize>,
    cluster: Vec<usize>,
    /// Memory that running steps may reserve together, and do.
    budget: u64,
    reserved: u64,
    taken: BTreeMap<usize, (Need, Vec<usize>)>,
}

impl Places {
    /// One device for each entry, with its memory where it is a GPU that may be shared and so has more seats; so many
    /// places in the cluster's queue; and a budget of memory in bytes.
    pub fn new(devices: &[Option<u64>], cluster: usize, budget: Option<u64>) -> Self {
        let mut seats: Vec<usize> = (0..devices.len()).collect();
        for (device, _) in devices.iter().enumerate().filter(|(_, memory)| memory.is_some()) {
            seats.extend([device; SHARED - 1]);
        }
        let local = seats.len();
        let device = |memory: &Option<u64>| Device { memory: *memory, shared: 0, steps: 0, alone: false };
        Self {
            devices: devices.iter().map(device).collect(),
            free: (0..local).rev().collect(),
            cluster: (local..local + cluster).rev().collect(),
            seats,
            budget: budget.unwrap_or(u64::MAX),
            reserved: 0,
            taken: BTreeMap::new(),
        }
    }

    /// The device of each seat of this machine.
    pub fn seats(&self) -> &[usize] {
        &self.seats
    }

    /// Whether there may be room for anything at all.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || !self.cluster.is_empty()
    }

    /// The first of the waiting steps that may begin, with its seats: it works on the first one, and the devices of the
    /// others are its own too.
    pub fn next<'n>(&mut self, waiting: impl Iterator<Item = &'n mut Need>) -> Option<(usize, Vec<usize>)> {
        let mut passed: Vec<&mut Need> = Vec::new();
        // Whether something that waits for room here must not be overtaken any more.
        let mut closed = false;
        for (index, need) in waiting.enumerate() {
            let seats = if need.cluster { self.cluster.last().map(|seat| vec![*seat]) } else { self.fit(need, closed) };
            let Some(seats) = seats else {
                closed |= !need.cluster && need.overtaken >= OVERTAKEN;
                if closed && self.cluster.is_empty() {
                    return None;
                }
                if !need.cluster && passed.len() < 64 {
                    passed.push(need);
                }
                continue;
            };
            if !need.cluster {
                passed.into_iter().for_each(|need| need.overtaken += 1);
            }
            let need = need.clone();
            self.take(need, &seats);
            return Some((index, seats));
        }
        None
    }

    fn fit(&self, need: &Need, closed: bool) -> Option<Vec<usize>> {
        // One that asks for more than there is runs alone.
        let alone = self.taken.values().all(|(other, _)| other.cluster);
        if closed || !alone && self.reserved.saturating_add(need.memory) > self.budget {
            return None;
        }
        if let (Some(memory), true) = (need.device_memory, need.devices <= 1) {
            // Beside others first: whole devices stay free for those that need them.
            let beside = |with: bool| {
                self.free.iter().rev().copied().find(|&seat| {
                    let device = &self.devices[self.seats[seat]];
                    let fits = device
                        .memory
                        .is_none_or(|all| device.steps == 0 || device.shared.saturating_add(memory) <= all);
                    !device.alone
                        && fits
                        && (device.steps > 0) == with
                        && (device.memory.is_some() || device.steps == 0)
                })
            };
            return beside(true).or_else(|| beside(false)).map(|seat| vec![seat]);
        }
        let mut seats: Vec<usize> = Vec::new();
        for &seat in self.free.iter().rev() {
            let empty = self.devices[self.seats[seat]].steps == 0;
            if empty && seats.iter().all(|other| self.seats[*other] != self.seats[seat]) {
                seats.push(seat);
                if seats.len() >= need.devices.max(1) {
                    return Some(seats);
                }
            }
        }
        None
    }

    fn take(&mut self, need: Need, seats: &[usize]) {
        if need.cluster {
            self.cluster.retain(|seat| !seats.contains(seat));
        } else {
            self.free.retain(|seat| !seats.contains(seat));
            self.reserved = self.reserved.saturating_add(need.memory);
            for &seat in seats {
                let device = &mut self.devices[self.seats[seat]];
                device.steps += 1;
                match need.device_memory.filter(|_| seats.len() == 1 && device.memory.is_some()) {
                    Some(memory) => device.shared = device.shared.saturating_add(memory),
                    None => device.alone = true,
                }
            }
        }
        self.taken.insert(seats[0], (need, seats.to_vec()));
    }

    /// Gives back what the step on this seat had.
    pub fn free(&mut self, seat: usize) {
        let Some((need, seats)) = self.taken.remove(&seat) else { return };
        if need.cluster {
            self.cluster.push(seat);
            return;
        }
        self.reserved = self.reserved.saturating_sub(need.memory);
        for &seat in seats.iter().rev() {
            let device = &mut self.devices[self.seats[seat]];
            device.steps -= 1;
            if device.alone {
                device.alone = false;
            } else {
                device.shared = device.shared.saturating_sub(need.device_memory.unwrap_or(0));
            }
            self.free.push(seat);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    fn gpus(count: usize) -> Places {
        Places::new(&vec![Some(80 * GB); count], 0, None)
    }

    fn wants(devices: usize) -> Need {
        Need { devices, ..Need::default() }
    }

    fn shares(memory: u64) -> Need {
        Need { devices: 1, device_memory: Some(memory), ..Need::default() }
    }

    /// Seats whatever can sit down, in order; the devices of each by its number.
    fn all(places: &mut Places, waiting: &mut Vec<(usize, Need)>) -> Vec<(usize, usize, Vec<usize>)> {
        let mut begun = Vec::new();
        while let Some((index, seats)) = places.next(waiting.iter_mut().map(|(_, need)| need)) {
            let devices = seats.iter().map(|seat| places.seats().get(*seat).copied().unwrap_or(99)).collect();
            begun.push((waiting.remove(index).0, seats[0], devices));
        }
        begun
    }

    #[test]
    fn devices_are_exclusive_and_every_one_is_used() {
        let mut places = gpus(4);
        let mut waiting: Vec<_> = (0..6).map(|step| (step, wants(1))).collect();
        let begun = all(&mut places, &mut waiting);
        let devices: std::collections::BTreeSet<usize> =
            begun.iter().flat_map(|(_, _, devices)| devices.clone()).collect();
        assert_eq!((begun.len(), devices.len(), waiting.len()), (4, 4, 2));
        places.free(begun[2].1);
        assert_eq!(all(&mut places, &mut waiting)[0].2, begun[2].2);
    }

    #[test]
    fn sharers_sit_together_while_their_memory_fits() {
        let mut places = gpus(2);
        let mut waiting = vec![(0, shares(30 * GB)), (1, shares(30 * GB)), (2, shares(30 * GB)), (3, wants(1))];
        let begun = all(&mut places, &mut waiting);
        // Two on one device; the third takes the other one, and so nothing is left for one that wants a whole device.
        assert_eq!(begun.len(), 3);
        assert_eq!(begun[0].2, begun[1].2);
        assert_ne!(begun[0].2, begun[2].2);
        places.free(begun[2].1);
        assert_eq!(all(&mut places, &mut waiting)[0].0, 3);
        // Small ones go up to the number of seats.
        let mut places = gpus(1);
        let mut waiting: Vec<_> = (0..9).map(|step| (step, shares(GB))).collect();
        assert_eq!(all(&mut places, &mut waiting).len(), SHARED);
    }

    #[test]
    fn one_that_wants_several_devices_is_overtaken_only_so_often() {
        let mut places = gpus(2);
        let mut waiting = vec![(0, wants(1)), (1, wants(2))];
        waiting.extend((2..40).map(|step| (step, wants(1))));
        let mut running = all(&mut places, &mut waiting);
        let mut order: Vec<usize> = running.iter().map(|(step, ..)| *step).collect();
        // One step ends at a time, so that two devices are never free at once by chance.
        while !running.is_empty() {
            let (_, seat, _) = running.remove(0);
            places.free(seat);
            let begun = all(&mut places, &mut waiting);
            order.extend(begun.iter().map(|(step, ..)| *step));
            running.extend(begun);
        }
        let place = order.iter().position(|step| *step == 1).unwrap();
        assert!(place <= OVERTAKEN as usize + 2, "it began as number {place}");
        assert_eq!(order.len(), 40, "the small ones went on");
    }

    #[test]
    fn memory_is_reserved_and_one_that_asks_for_more_than_there_is_runs_alone() {
        let mut places = Places::new(&[None; 4], 0, Some(10 * GB));
        let big = |memory| Need { devices: 1, memory, ..Need::default() };
        let mut waiting = vec![(0, big(6 * GB)), (1, big(6 * GB)), (2, big(4 * GB)), (3, big(99 * GB))];
        let begun = all(&mut places, &mut waiting);
        assert_eq!(begun.iter().map(|(step, ..)| *step).collect::<Vec<_>>(), [0, 2]);
        begun.iter().for_each(|(_, seat, _)| places.free(*seat));
        assert_eq!(all(&mut places, &mut waiting)[0].0, 1);
        places.free(0);
        for seat in 0..4 {
            places.free(seat);
        }
        assert_eq!(all(&mut places, &mut waiting)[0].0, 3);
    }

    #[test]
    fn what_waits_for_this_machine_does_not_keep_the_cluster_waiting() {
        let mut places = Places::new(&[None], 2, None);
        let mut waiting = vec![(0, wants(1)), (1, Need { overtaken: 99, ..wants(1) })];
        waiting.extend((2..5).map(|step| (step, Need { cluster: true, ..wants(1) })));
        let begun: Vec<usize> = all(&mut places, &mut waiting).iter().map(|(step, ..)| *step).collect();
        assert_eq!(begun, [0, 2, 3]);
        assert_eq!(waiting.len(), 2);
    }
}
