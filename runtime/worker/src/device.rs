//! Devices by name.

use tch::{Cuda, Device};

use crate::error::Result;

/// The device called `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// There is no such device; says which ones there are.
pub fn parse(name: &str) -> Result<Device> {
    let count = Cuda::device_count();
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|n| n.parse::<i64>().ok()),
    };
    match index {
        Some(index) if index >= 0 && index < count => Ok(Device::Cuda(index as usize)),
        Some(_) if count == 0 => {
            let why = if tch::utils::has_cudart() {
                "libtorch finds no CUDA device here"
            } else {
                "this libtorch was built without CUDA; name another one with LIBTORCH or LD_LIBRARY_PATH"
            };
            Err(format!("there is no device `{name}`: {why}; use `cpu`").into())
        }
        Some(_) => {
            let there: Vec<String> = (0..count).map(|n| format!("`cuda:{n}`")).collect();
            Err(format!("there is no device `{name}`; there are `cpu`, {}", there.join(", ")).into())
        }
        None => Err(format!("`{name}` is no device; devices are `cpu` and `cuda:0`, `cuda:1`, …").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_devices_are_named() {
        assert_eq!(parse("cpu").unwrap(), Device::Cpu);
        assert!(parse("gpu").unwrap_err().to_string().contains("`gpu` is no device"));
        assert!(parse("cuda:99").unwrap_err().to_string().contains("no device `cuda:99`"));
    }
}
