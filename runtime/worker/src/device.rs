//! Devices by name.

use harness_protocol::optimise::Precision;
use tch::{Cuda, Device, Kind, Tensor, no_grad};

use crate::error::Result;
use crate::shim::Autocast;

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

/// The arithmetic that a request for `precision` really gets on a device, found out by computing: what a product of numbers
/// that need more bits than each arithmetic has comes to.
///
/// # Errors
/// libtorch's.
pub fn achieved(precision: Precision, device: Device) -> Result<&'static str> {
    no_grad(|| {
        // 1 + 2⁻¹² needs 12 bits of mantissa: fp32 has 23, TF32 10, bfloat16 7.
        let x = Tensor::f_full([64, 64], 1.0 + 2f64.powi(-12), (Kind::Float, device))?;
        let one = Tensor::f_eye(64, (Kind::Float, device))?;
        let product = if precision == Precision::Bf16 {
            let _on = Autocast::bf16(device)?;
            x.f_matmul(&one)?
        } else {
            x.f_matmul(&one)?
        };
        let exact = product.f_double_value(&[0, 0])? > 1.0;
        Ok(match (product.kind(), exact) {
            (Kind::BFloat16, _) => "bf16",
            (_, true) => "fp32",
            (_, false) => "tf32",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_has_bf16_and_no_tf32() {
        let achieved = [Precision::Fp32, Precision::Tf32, Precision::Bf16].map(|p| achieved(p, Device::Cpu).unwrap());
        assert_eq!(achieved, ["fp32", "fp32", "bf16"]);
    }

    #[test]
    fn unknown_devices_are_named() {
        assert_eq!(parse("cpu").unwrap(), Device::Cpu);
        assert!(parse("gpu").unwrap_err().to_string().contains("`gpu` is no device"));
        assert!(parse("cuda:99").unwrap_err().to_string().contains("no device `cuda:99`"));
    }
}
