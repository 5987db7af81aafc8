//! A group of ranks: processes that learn one thing together through libtorch's c10d (`shim/c10d.cpp`).

use std::ffi::{CString, c_void};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tch::{Device, Kind, Tensor, no_grad};

use crate::error::{Error, Result};
use crate::model::layers::BatchNorm;
use crate::shim::failure;

mod raw {
    use std::ffi::{c_char, c_void};

    /// A tensor's C++ object.
    pub type Pointer = *mut c_void;

    unsafe extern "C" {
        pub fn harness_group_gloo(path: *const c_char, rank: i32, size: i32, timeout: i64) -> *mut c_void;
        pub fn harness_group_of(backend: *mut c_void) -> *mut c_void;
        pub fn harness_group_free(group: *mut c_void);
        pub fn harness_group_lost(group: *mut c_void) -> bool;
        pub fn harness_group_sum(group: *mut c_void, tensor: Pointer) -> i32;
        pub fn harness_group_gather(group: *mut c_void, out: Pointer, tensor: Pointer) -> i32;
        pub fn harness_group_differentiable_sum(group: *mut c_void, tensor: Pointer) -> Pointer;
        pub fn harness_group_batch_norm(
            group: *mut c_void,
            x: Pointer,
            weight: Pointer,
            bias: Pointer,
            running_mean: Pointer,
            running_var: Pointer,
            ranks: i64,
            momentum: f64,
            eps: f64,
        ) -> Pointer;
        pub fn harness_buckets_new(
            group: *mut c_void,
            parameters: *const Pointer,
            count: usize,
            bytes: usize,
        ) -> *mut c_void;
        pub fn harness_buckets_arm(buckets: *mut c_void, earlier: *const Pointer) -> i32;
        pub fn harness_buckets_wait(buckets: *mut c_void, out: *mut Pointer) -> i32;
        #[cfg(test)]
        pub fn harness_buckets_count(buckets: *mut c_void) -> usize;
        pub fn harness_buckets_free(buckets: *mut c_void);
    }
}

fn pointer(tensor: &Tensor) -> raw::Pointer {
    tensor.as_ptr().cast_mut().cast()
}

/// Takes a tensor that the shim made.
///
/// # Safety
/// `made` is an object of the shim that nobody else owns.
unsafe fn taken(made: raw::Pointer) -> Tensor {
    // SAFETY: said by the caller; tch's tensors are pointers to such objects.
    unsafe { Tensor::from_ptr(made.cast()) }
}

/// One rank's place among others. All ranks have to call the same operations in the same order.
#[derive(Debug)]
pub struct Group {
    raw: *mut c_void,
    rank: usize,
    size: usize,
    device: Device,
}

// SAFETY: c10d's backends lock their own state; operations are only started from the thread that runs the job.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Group {
    /// Meets the ranks 0..`size` of this machine in a file that must not exist before. `timeout` bounds the wait for the
    /// others here and in every later operation.
    ///
    /// # Errors
    /// The others did not come in time; on a GPU, there is no NCCL.
    pub fn join(meeting: &Path, rank: usize, size: usize, timeout: Duration, device: Device) -> Result<Self> {
        let path = CString::new(meeting.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
        let limit = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let raw = match device {
            Device::Cuda(index) => {
                let backend = crate::nccl::join(&path, rank, size, limit, index)?;
                // SAFETY: the other half made it; it is copied.
                unsafe { raw::harness_group_of(backend) }
            }
            // SAFETY: the path ends with 0 and lives through the call.
            _ => unsafe { raw::harness_group_gloo(path.as_ptr(), rank as i32, size as i32, limit) },
        };
        if raw.is_null() {
            return Err(Error::Ranks(format!("rank {rank} could not meet the other {}: {}", size - 1, failure())));
        }
        Ok(Self { raw, rank, size, device })
    }

    /// Which one this is, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Where this rank computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Whether an operation failed, after which all do.
    pub fn is_lost(&self) -> bool {
        // SAFETY: a plain read.
        unsafe { raw::harness_group_lost(self.raw) }
    }

    /// What an error of this rank is after the others were lost: that, as it is no cause then.
    pub fn blame(&self, error: Error) -> Error {
        match error {
            Error::Ranks(_) => error,
            _ if self.is_lost() => self.lost_by(&error.to_string()),
            _ => error,
        }
    }

    fn checked(&self, status: i32) -> Result<()> {
        if status == 0 { Ok(()) } else { Err(self.lost()) }
    }

    fn lost(&self) -> Error {
        self.lost_by(&failure())
    }

    fn lost_by(&self, why: &str) -> Error {
        let first = why.lines().next().unwrap_or_default();
        Error::Ranks(format!(
            "rank {} of {} lost the others, one of which ended or hangs: {first}",
            self.rank, self.size
        ))
    }

    /// Replaces a tensor by its sum over all ranks.
    ///
    /// # Errors
    /// Another rank ended, or did not come in time.
    pub fn sum(&self, tensor: &Tensor) -> Result<()> {
        // SAFETY: both objects live through the call, which writes into the tensor's memory alone.
        self.checked(unsafe { raw::harness_group_sum(self.raw, pointer(tensor)) })
    }

    /// A number summed over all ranks.
    ///
    /// # Errors
    /// As [`Group::sum`].
    pub fn total(&self, value: f64) -> Result<f64> {
        let tensor = Tensor::from_slice(&[value]).to_device(self.device);
        self.sum(&tensor)?;
        Ok(tensor.f_double_value(&[0])?)
    }

    /// Rows of all ranks, those of rank 0 first. x: [n, …], as many rows on every rank.
    ///
    /// # Errors
    /// As [`Group::sum`].
    pub fn gather(&self, x: &Tensor) -> Result<Tensor> {
        let x = no_grad(|| x.detach().contiguous());
        let mut shape = x.size();
        shape[0] *= self.size as i64;
        let out = Tensor::f_empty(&shape, (x.kind(), x.device()))?;
        // SAFETY: as above; both are contiguous.
        self.checked(unsafe { raw::harness_group_gather(self.raw, pointer(&out), pointer(&x)) })?;
        Ok(out)
    }

    /// The sum over all ranks, which gradients flow through: each rank's gradient is the sum of what the ranks ask for.
    ///
    /// # Errors
    /// As [`Group::sum`].
    pub fn differentiable_sum(&self, x: &Tensor) -> Result<Tensor> {
        // SAFETY: as above. The group outlives the backward pass: whoever learns owns both.
        let made = unsafe { raw::harness_group_differentiable_sum(self.raw, pointer(x)) };
        if made.is_null() {
            return Err(self.lost());
        }
        // SAFETY: it was just made for us.
        Ok(unsafe { taken(made) })
    }

    /// A batch norm in training over the rows of all ranks, ε = `eps`; its running statistics move by `momentum`, to the same
    /// values on every rank. x: [n, channels, h, w], this rank's rows. Gradients of what it learns are those of these rows.
    ///
    /// # Errors
    /// As [`Group::sum`].
    pub fn batch_norm(&self, x: &Tensor, norm: &BatchNorm, momentum: f64, eps: f64) -> Result<Tensor> {
        let BatchNorm { weight, bias, running_mean, running_var, .. } = norm;
        // SAFETY: all objects live through the call, which writes into the running statistics alone; as above for the
        // backward pass.
        let made = unsafe {
            raw::harness_group_batch_norm(
                self.raw,
                pointer(x),
                pointer(weight),
                pointer(bias),
                pointer(running_mean),
                pointer(running_var),
                self.size as i64,
                momentum,
                eps,
            )
        };
        if made.is_null() {
            return Err(if self.is_lost() { self.lost() } else { failure().into() });
        }
        // SAFETY: it was just made for us.
        Ok(unsafe { taken(made) })
    }

    /// Replaces tensors by their means over all ranks; in one operation for each kind of number.
    ///
    /// # Errors
    /// As [`Group::sum`].
    pub fn average(&self, tensors: &[Tensor]) -> Result<()> {
        no_grad(|| {
            for kind in [Kind::Float, Kind::Double] {
                let ours: Vec<&Tensor> = tensors.iter().filter(|tensor| tensor.kind() == kind).collect();
                if ours.is_empty() {
                    continue;
                }
                let flat = Tensor::f_cat(&ours.iter().map(|tensor| tensor.reshape(-1)).collect::<Vec<_>>(), 0)?;
                self.sum(&flat)?;
                let flat = flat / self.size as f64;
                let mut at = 0;
                for tensor in ours {
                    let count = tensor.numel() as i64;
                    tensor.shallow_clone().f_copy_(&flat.narrow(0, at, count).view_as(tensor))?;
                    at += count;
                }
            }
            Ok(())
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by the shim, owned by us alone.
        unsafe { raw::harness_group_free(self.raw) };
    }
}

/// Size of a bucket of gradients, bytes: PyTorch's default.
const BUCKET: usize = 25 << 20;

/// Gradients that are summed over the ranks in buckets while the backward pass goes on.
#[derive(Debug)]
struct Buckets {
    raw: *mut c_void,
    count: usize,
}

// SAFETY: used by the thread that runs the job alone.
unsafe impl Send for Buckets {}

impl Buckets {
    fn new(group: &Group, parameters: &[&Tensor], bytes: usize) -> Result<Self> {
        let list: Vec<raw::Pointer> = parameters.iter().map(|tensor| pointer(tensor)).collect();
        // SAFETY: the list holds as many live tensors as said; the shim keeps references of its own.
        let raw = unsafe { raw::harness_buckets_new(group.raw, list.as_ptr(), list.len(), bytes) };
        if raw.is_null() {
            return Err(format!("libtorch refused buckets of gradients: {}", failure()).into());
        }
        Ok(Self { raw, count: list.len() })
    }

    /// Number of buckets.
    #[cfg(test)]
    fn len(&self) -> usize {
        // SAFETY: a plain read.
        unsafe { raw::harness_buckets_count(self.raw) }
    }

    /// Fills them by the next backward pass, on top of `earlier` gradients, if there are any.
    fn arm(&self, earlier: &[Tensor]) -> Result<()> {
        let list: Vec<raw::Pointer> = earlier.iter().map(pointer).collect();
        let list = if list.is_empty() { std::ptr::null() } else { list.as_ptr() };
        // SAFETY: none, or as many tensors as there are parameters; the shim keeps references of its own.
        match unsafe { raw::harness_buckets_arm(self.raw, list) } {
            0 => Ok(()),
            _ => Err(failure().into()),
        }
    }

    /// The sums, one for each parameter, in memory that the next pass overwrites.
    fn wait(&self, group: &Group) -> Result<Vec<Tensor>> {
        let mut out = vec![std::ptr::null_mut(); self.count];
        // SAFETY: there is room for as many objects as there are parameters.
        group.checked(unsafe { raw::harness_buckets_wait(self.raw, out.as_mut_ptr()) })?;
        // SAFETY: each was just made for us.
        Ok(out.into_iter().map(|made| unsafe { taken(made) }).collect())
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // SAFETY: made by the shim. What the parameters' hooks point to stays, by intent.
        unsafe { raw::harness_buckets_free(self.raw) };
    }
}

/// Gradients of a batch's loss: part by part, to save memory, and over all ranks, each of which has its own rows.
#[derive(Debug, Default)]
pub struct Gradients {
    group: Option<Arc<Group>>,
    buckets: Option<Buckets>,
    bytes: Option<usize>,
}

impl Gradients {
    /// Of one rank, or of all in a group.
    pub fn new(group: Option<Arc<Group>>) -> Self {
        Self { group, ..Self::default() }
    }

    /// The group, where there is one.
    pub fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    /// Ranks that the batch is dealt to.
    pub fn ranks(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.size())
    }

    fn blame(&self, error: Error) -> Error {
        match &self.group {
            Some(group) => group.blame(error),
            None => error,
        }
    }

    /// The gradient of the mean of all parts' losses on all ranks, and that mean, nats, the same on every rank. `loss` gives
    /// the mean loss of this rank's rows of a part.
    ///
    /// # Errors
    /// libtorch's; another rank ended or hangs.
    pub fn of(
        &mut self,
        weights: &[&Tensor],
        parts: usize,
        mut loss: impl FnMut(usize) -> Result<Tensor>,
    ) -> Result<(Vec<Tensor>, f64)> {
        if let (Some(group), None) = (&self.group, &self.buckets) {
            self.buckets = Some(Buckets::new(group, weights, self.bytes.unwrap_or(BUCKET))?);
        }
        let share = (parts * self.ranks()) as f64;
        let mut gradients: Vec<Tensor> = Vec::new();
        let mut total: Option<Tensor> = None;
        for part in 0..parts {
            let loss = loss(part)? / share;
            if let (Some(buckets), true) = (&self.buckets, part + 1 == parts) {
                buckets.arm(&gradients)?;
            }
            let more =
                Tensor::f_run_backward(&[&loss], weights, false, false).map_err(|error| self.blame(error.into()))?;
            if gradients.is_empty() {
                gradients = more;
            } else {
                no_grad(|| gradients.iter_mut().zip(&more).for_each(|(sum, one)| *sum += one));
            }
            let loss = loss.detach();
            total = Some(match total {
                Some(sum) => sum + loss,
                None => loss,
            });
        }
        let mean = total.ok_or("a batch has at least one part")?.f_double_value(&[])?;
        match (&self.group, &self.buckets) {
            (Some(group), Some(buckets)) => {
                let gradients = buckets.wait(group)?;
                Ok((gradients, group.total(mean)?))
            }
            _ => Ok((gradients, mean)),
        }
    }
}

#[cfg(test)]
#[allow(missing_docs, reason = "tests of other modules use what is here")]
pub mod tests {
    use super::*;
    use crate::seed::normal;

    /// Runs `work` on as many threads as ranks, each with its place in a group.
    pub fn together<T: Send>(size: usize, work: impl Fn(Arc<Group>) -> T + Sync) -> Vec<T> {
        let folder = tempfile::tempdir().unwrap();
        let meeting = folder.path().join("meeting");
        std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..size)
                .map(|rank| {
                    let (meeting, work) = (&meeting, &work);
                    scope.spawn(move || {
                        tch::set_num_threads(1);
                        let limit = Duration::from_secs(60);
                        work(Arc::new(Group::join(meeting, rank, size, limit, Device::Cpu).unwrap()))
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_and_rows_of_all_ranks() {
        let made = together(3, |group| {
            let rank = group.rank() as f64;
            let rows = Tensor::from_slice(&[rank, rank + 0.5]).view([2, 1]);
            let gathered = Vec::<f64>::try_from(group.gather(&rows).unwrap().view(-1)).unwrap();
            let means = [Tensor::from_slice(&[rank]), Tensor::from_slice(&[rank as f32, 1.0])];
            group.average(&means).unwrap();
            let means: Vec<f64> = means.iter().map(|mean| mean.double_value(&[0])).collect();
            (group.total(rank).unwrap(), gathered, means)
        });
        for (total, gathered, means) in made {
            assert_eq!((total, means), (3.0, vec![1.0, 1.0]));
            assert_eq!(gathered, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        }
    }

    #[test]
    fn gradients_flow_through_a_sum() {
        // Each rank's loss is (rank + 1) · (x₀ + x₁)², so dx on every rank is the sum of the ranks' 2 (rank + 1)(x₀ + x₁).
        let made = together(2, |group| {
            let x = Tensor::from_slice(&[1.0 + group.rank() as f64]).set_requires_grad(true);
            let loss = group.differentiable_sum(&x).unwrap().square() * (group.rank() as f64 + 1.0);
            loss.sum(Kind::Double).backward();
            x.grad().double_value(&[0])
        });
        assert_eq!(made, [18.0, 18.0]);
    }

    /// Gradients of a small network on one process are those of two ranks with half the rows each, in several buckets and
    /// several parts.
    #[test]
    fn gradients_of_ranks_are_those_of_the_whole_batch() {
        let rows = || normal(1, "test", "x", &[8, 5], 1.0).to_kind(Kind::Double);
        let network = || -> Vec<Tensor> {
            let weight =
                |name, shape: &[i64]| normal(2, "test", name, shape, 0.5).to_kind(Kind::Double).set_requires_grad(true);
            vec![weight("a", &[5, 7]), weight("b", &[7, 3]), weight("c", &[3, 1])]
        };
        let loss = |weights: &[Tensor], x: &Tensor| {
            let y = x.matmul(&weights[0]).tanh().matmul(&weights[1]).tanh().matmul(&weights[2]);
            y.square().mean(Kind::Double)
        };
        let of = |group: Option<Arc<Group>>, x: &Tensor, parts: usize| {
            let weights = network();
            let mut gradients = Gradients { bytes: Some(200), ..Gradients::new(group) };
            let each = x.size()[0] / parts as i64;
            let list: Vec<&Tensor> = weights.iter().collect();
            let mut last = None;
            // Twice: buckets are used again.
            for _ in 0..2 {
                let part = |part: usize| Ok(loss(&weights, &x.narrow(0, part as i64 * each, each)));
                last = Some(gradients.of(&list, parts, part).unwrap());
            }
            if let Some(buckets) = &gradients.buckets {
                assert_eq!(buckets.len(), 3);
            }
            let (made, value) = last.unwrap();
            (made.iter().map(Tensor::copy).collect::<Vec<_>>(), value)
        };
        let (whole, value) = of(None, &rows(), 1);
        for parts in [1, 2] {
            let made = together(2, |group| {
                let mine = rows().narrow(0, 4 * group.rank() as i64, 4);
                of(Some(group), &mine, parts)
            });
            for (gradients, mean) in made {
                assert!((mean - value).abs() < 1e-12, "{mean} {value}");
                for (one, other) in gradients.iter().zip(&whole) {
                    assert!((one - other).abs().max().double_value(&[]) < 1e-12);
                }
            }
        }
    }

    #[test]
    fn a_rank_that_ends_is_noticed() {
        let said = together(2, |group| {
            // Both are there; then one goes.
            group.total(1.0).unwrap();
            if group.rank() == 1 {
                return String::new();
            }
            std::thread::sleep(Duration::from_millis(200));
            (0..3).find_map(|_| group.total(1.0).err()).map_or(String::new(), |error| error.to_string())
        });
        assert!(said[0].starts_with("rank 0 of 2 lost the others"), "{}", said[0]);
    }
}
