//! The shim's other half, for GPUs: `libharness_nccl.so`, which is loaded where a job on several GPUs asks for it.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Its file name; it lies beside the worker.
pub const FILE: &str = "libharness_nccl.so";

type Join = unsafe extern "C" fn(*const c_char, i32, i32, i64, i32, *mut c_char, usize) -> *mut c_void;

fn beside_us() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().map(|folder| folder.join(FILE)).unwrap_or_else(|| FILE.into())
}

/// A backend of NCCL that has met the other ranks in the file `path`, on the GPU with this index.
///
/// # Errors
/// The library is not there or cannot be loaded; the others did not come in time.
pub fn join(path: &CString, rank: usize, size: usize, timeout: i64, index: usize) -> Result<*mut c_void> {
    let library = beside_us();
    let name = CString::new(library.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: plain calls of the loader; the library stays loaded.
    let function = unsafe {
        let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
        if handle.is_null() {
            let why = CStr::from_ptr(libc::dlerror()).to_string_lossy().into_owned();
            return Err(Error::Step(format!(
                "several GPUs need `{}`, which cannot be loaded ({why}); build it (docs/parallel.md), or ask for one GPU",
                library.display()
            )));
        }
        libc::dlsym(handle, c"harness_nccl_join".as_ptr())
    };
    if function.is_null() {
        return Err(Error::Step(format!("`{}` is of another version; build it anew", library.display())));
    }
    let mut said = [0u8; 1024];
    // SAFETY: the library of this version has that function, and everything lives through the call.
    let backend = unsafe {
        let join: Join = std::mem::transmute(function);
        join(path.as_ptr(), rank as i32, size as i32, timeout, index as i32, said.as_mut_ptr().cast(), said.len())
    };
    if backend.is_null() {
        let said = CStr::from_bytes_until_nul(&said).unwrap_or(c"").to_string_lossy();
        return Err(Error::Ranks(format!("rank {rank} could not meet the other {} through NCCL: {said}", size - 1)));
    }
    Ok(backend)
}
