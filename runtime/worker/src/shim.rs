//! What libtorch has and tch lacks, through `shim/shim.cpp`.

use std::marker::PhantomData;

use tch::{Device, Tensor};

use crate::error::{Result, readable};

mod raw {
    use std::ffi::{c_char, c_void};

    /// A tensor's C++ object.
    pub type Pointer = *mut c_void;

    unsafe extern "C" {
        pub fn harness_last_failure(out: *mut c_char, room: usize);
        pub fn harness_autocast_begin(cuda: i32) -> i32;
        pub fn harness_autocast_end(cuda: i32) -> i32;
        pub fn harness_arithmetic(tf32: i32) -> i32;
        pub fn harness_peak_memory(index: i32, bytes: *mut i64) -> i32;
        pub fn harness_reset_memory(index: i32) -> i32;
        pub fn harness_release_memory() -> i32;
        pub fn harness_sgd(
            parameters: *const Pointer,
            gradients: *const Pointer,
            momenta: *const Pointer,
            count: usize,
            rate: f64,
            momentum: f64,
            decay: f64,
            first: i32,
        ) -> i32;
        pub fn harness_follow(a: *const Pointer, b: *const Pointer, count: usize, keep: f64) -> i32;
    }
}

/// What the last failed call of this thread said.
pub fn failure() -> String {
    let mut text = [0u8; 2048];
    // SAFETY: writes at most as much as there is room for, and ends it with 0.
    unsafe { raw::harness_last_failure(text.as_mut_ptr().cast(), text.len()) };
    std::ffi::CStr::from_bytes_until_nul(&text).unwrap_or(c"").to_string_lossy().into_owned()
}

fn checked(status: i32, what: &str) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(format!("libtorch refused {what}: {}", readable(&failure())).into()) }
}

fn pointers<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<raw::Pointer> {
    tensors.into_iter().map(|tensor| tensor.as_ptr().cast_mut().cast()).collect()
}

/// While it lives, the operations of this thread that profit from it (convolutions, matrix products) compute in bfloat16
/// and give bfloat16; weights stay as they are, and batch norm's sums and statistics are made in fp32. Not nested.
#[derive(Debug)]
pub struct Autocast {
    cuda: i32,
    /// libtorch keeps the switch for each thread.
    thread: PhantomData<*const ()>,
}

impl Autocast {
    /// Switches it on.
    ///
    /// # Errors
    /// libtorch's.
    pub fn bf16(device: Device) -> Result<Self> {
        let cuda = i32::from(device.is_cuda());
        // SAFETY: takes a plain number.
        checked(unsafe { raw::harness_autocast_begin(cuda) }, "mixed precision")?;
        Ok(Self { cuda, thread: PhantomData })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: takes a plain number; was begun on this thread, which the type cannot leave.
        let _ = unsafe { raw::harness_autocast_end(self.cuda) };
    }
}

/// How every job starts: no TF32 unless it asks for it (libtorch would use it in convolutions), and cuDNN's deterministic
/// algorithms alone.
///
/// # Errors
/// libtorch's.
pub fn arithmetic(tf32: bool) -> Result<()> {
    // SAFETY: takes a plain number.
    checked(unsafe { raw::harness_arithmetic(i32::from(tf32)) }, "a switch of precision")
}

/// Starts measuring [`peak_memory`] anew.
pub fn reset_memory(device: Device) {
    if let Device::Cuda(index) = device {
        // SAFETY: takes a plain number. Statistics are for people: without them a job runs as well.
        let _ = unsafe { raw::harness_reset_memory(index as i32) };
    }
}

/// Largest memory that tensors took on a GPU since [`reset_memory`], bytes; none on the CPU.
pub fn peak_memory(device: Device) -> Option<u64> {
    let Device::Cuda(index) = device else { return None };
    let mut bytes = 0;
    // SAFETY: writes one number to where it is told.
    let status = unsafe { raw::harness_peak_memory(index as i32, &mut bytes) };
    (status == 0).then_some(bytes.max(0) as u64)
}

/// Gives GPU memory that no tensor uses back, so that a job that ran out of it leaves none behind.
pub fn release_memory(device: Device) {
    if device.is_cuda() {
        // SAFETY: takes nothing.
        let _ = unsafe { raw::harness_release_memory() };
    }
}

/// One step of stochastic gradient descent on all tensors at once, PyTorch's fused one. `momenta` are read and written where
/// `momentum` is not 0; at the `first` step they are only written. The gradients may be overwritten.
///
/// # Errors
/// libtorch's: tensors that do not fit each other.
pub fn sgd(
    parameters: &[&Tensor],
    gradients: &[Tensor],
    momenta: &[&Tensor],
    rate: f64,
    momentum: f64,
    decay: f64,
    first: bool,
) -> Result<()> {
    assert!(parameters.len() == gradients.len() && (momentum == 0.0 || momenta.len() == parameters.len()));
    let (p, g, v) = (pointers(parameters.iter().copied()), pointers(gradients), pointers(momenta.iter().copied()));
    // SAFETY: the lists hold as many live tensors as said; the callee writes into their storage alone.
    let status = tch::no_grad(|| unsafe {
        raw::harness_sgd(p.as_ptr(), g.as_ptr(), v.as_ptr(), p.len(), rate, momentum, decay, i32::from(first))
    });
    checked(status, "a step of the optimiser")
}

/// a ← keep·a + (1 − keep)·b for every pair of tensors.
///
/// # Errors
/// libtorch's: tensors that do not fit each other.
pub fn follow(a: &[Tensor], b: &[Tensor], keep: f64) -> Result<()> {
    assert_eq!(a.len(), b.len());
    let (mine, theirs) = (pointers(a), pointers(b));
    // SAFETY: as above.
    let status = tch::no_grad(|| unsafe { raw::harness_follow(mine.as_ptr(), theirs.as_ptr(), mine.len(), keep) });
    checked(status, "a step of the key encoder")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::normal;
    use tch::Kind;

    #[test]
    fn autocast_ends_with_its_guard() {
        let (x, w) = (normal(0, "test", "x", &[4, 3, 8, 8], 1.0), normal(0, "test", "w", &[2, 3, 3, 3], 1.0));
        let conv = || x.conv2d(&w, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
        let exact = conv();
        let rough = {
            let _on = Autocast::bf16(Device::Cpu).unwrap();
            conv()
        };
        assert_eq!((exact.kind(), rough.kind(), conv().kind()), (Kind::Float, Kind::BFloat16, Kind::Float));
        let far = ((rough.to_kind(Kind::Float) - &exact).abs().max() / exact.abs().max()).double_value(&[]);
        assert!(far > 0.0 && far < 0.02, "{far}");
    }

    #[test]
    fn following_is_a_weighted_mean() {
        let (a, b) = (
            [normal(0, "test", "a", &[5], 1.0), normal(0, "test", "a2", &[2, 3], 1.0)],
            [normal(0, "test", "b", &[5], 1.0), normal(0, "test", "b2", &[2, 3], 1.0)],
        );
        let before = [a[0].copy(), a[1].copy()];
        follow(&a, &b, 0.75).unwrap();
        for i in 0..2 {
            let expected = &before[i] * 0.75 + &b[i] * 0.25;
            assert!((expected - &a[i]).abs().max().double_value(&[]) < 1e-6);
        }
    }

    #[test]
    fn switches_can_be_set_without_a_gpu() {
        arithmetic(true).unwrap();
        arithmetic(false).unwrap();
        assert_eq!(peak_memory(Device::Cpu), None);
    }
}
