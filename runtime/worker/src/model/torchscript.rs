//! Any network as an encoder: a module exported with torch.jit, kept as its bytes and run in eval mode.

use std::fmt;

use harness_datasets::hash::digest as sha256;
use tch::{CModule, Device, Kind, Tensor};

use crate::error::{Error, Result};

/// An exported module, its own bytes beside it.
pub struct Torchscript {
    /// The file it came from; what is stored and what the key knows.
    pub bytes: Vec<u8>,
    /// Mean that its input is normalised by.
    pub mean: [f64; 3],
    /// Standard deviation.
    pub std: [f64; 3],
    module: CModule,
}

impl fmt::Debug for Torchscript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Torchscript").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Torchscript {
    /// Loads a module and puts it into eval mode.
    ///
    /// # Errors
    /// The bytes are no module that this libtorch can load.
    pub fn load(bytes: Vec<u8>, mean: [f64; 3], std: [f64; 3], device: Device, place: &str) -> Result<Self> {
        let loaded = CModule::load_data_on_device(&mut bytes.as_slice(), device);
        let mut module = loaded.map_err(|error| {
            let said = Error::from(error).to_string();
            Error::from(format!(
                "{place} is no TorchScript module that libtorch can load ({said}); export it with torch.jit.script or \
                 torch.jit.trace and save it with torch.jit.save"
            ))
        })?;
        module.f_set_eval()?;
        Ok(Self { bytes, mean, std, module })
    }

    /// Number of weights.
    ///
    /// # Errors
    /// libtorch's.
    pub fn parameter_count(&self) -> Result<u64> {
        Ok(self.module.named_parameters()?.iter().map(|(_, tensor)| tensor.numel() as u64).sum())
    }

    /// Digest of everything the module holds at present, buffers included: of the bytes it would be saved as.
    ///
    /// # Errors
    /// It cannot be saved, for want of room in the folder for temporary files.
    pub fn state(&self) -> Result<String> {
        let path = std::env::temp_dir().join(format!("harness-module-{}-{:p}.pt", std::process::id(), self));
        let saved = self.module.save(&path).map_err(Error::from);
        let bytes = saved.and_then(|()| std::fs::read(&path).map_err(Error::io("read", &path)));
        let _ = std::fs::remove_file(&path);
        Ok(sha256(&bytes?))
    }

    /// Features of pictures x: [n, 3, h, w]; [n, d], fp32. Maps [n, d, h, w] are averaged over positions.
    ///
    /// # Errors
    /// The module's own, or an output that is no feature vector per picture.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let output = tch::no_grad(|| self.module.forward_ts(&[x])).map_err(|error| {
            format!(
                "the module cannot take pictures of {:?} ({}); look at `transform`, and export it for any number of pictures",
                x.size(),
                Error::from(error)
            )
        })?;
        let count = x.size()[0];
        let output = match output.size()[..] {
            [n, _] if n == count => output,
            [n, _, _, _] if n == count => output.f_mean_dim([2i64, 3].as_slice(), false, Kind::Float)?,
            ref other => {
                return Err(format!(
                    "the module gives {other:?} for {count} pictures and not one vector for each ([{count}, features]); \
                     export a module whose forward gives the features, such as a ViT's class token"
                )
                .into());
            }
        };
        Ok(output.f_to_kind(Kind::Float)?)
    }
}
