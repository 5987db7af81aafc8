//! Encoders: a network with what is needed to feed it, or a trivial one; their safetensors form.

use std::path::Path;

use harness_protocol::model::{Architecture, EncoderConfig};
use harness_protocol::transform::{Centre, Interpolation};
use harness_views::{Filter, Picture, centre_crop, resize, resize_shorter};
use tch::{Device, Tensor};

use crate::error::Result;
use crate::model::layers::Mode;
use crate::model::resnet::Resnet;
use crate::model::store::{self, Store};
use crate::model::torchscript::Torchscript;

/// The tensor that an exported module's bytes are stored as.
const MODULE: &str = "torchscript";

/// A network as an encoder.
#[derive(Debug)]
pub struct Network {
    /// Its architecture.
    pub architecture: Architecture,
    /// Mean that its input is normalised by.
    pub mean: [f64; 3],
    /// Standard deviation.
    pub std: [f64; 3],
    /// Its tensors, `fc.*` of the head included where there is one.
    pub store: Store,
    /// The network, sharing those tensors.
    pub resnet: Resnet,
}

/// What turns pictures into feature vectors.
#[derive(Debug)]
pub enum Encoder {
    /// A network.
    Network(Box<Network>),
    /// The picture itself at this side, as a vector of 3·side² numbers.
    Pixels(usize),
    /// The joint RGB histogram with this many bins per channel, as shares.
    Histogram(usize),
    /// An exported module.
    Torchscript(Box<Torchscript>),
}

/// The fixed transform of evaluations: short side, then centre crop.
pub fn centred(picture: &Picture, transform: &Centre) -> Picture {
    let filter = match transform.interpolation {
        Interpolation::Bilinear => Filter::Bilinear,
        Interpolation::Bicubic => Filter::Bicubic,
    };
    centre_crop(&resize_shorter(picture, transform.resize as usize, filter), transform.crop as usize)
}

/// What an encoder needs to know of itself to prepare a picture: plain data for the loading threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prepare {
    /// Normalised, channel by channel.
    Normalise([f64; 3], [f64; 3]),
    /// See [`Encoder::Pixels`].
    Pixels(usize),
    /// See [`Encoder::Histogram`].
    Histogram(usize),
}

impl Prepare {
    /// A transformed picture as the numbers that [`Encoder::forward`] takes.
    pub fn numbers(&self, picture: &Picture) -> Vec<f32> {
        match *self {
            Self::Normalise(mean, std) => {
                let mut out = vec![0.0; picture.data.len()];
                picture.write_normalised(mean, std, &mut out);
                out
            }
            Self::Pixels(side) => {
                let small = resize(picture, side, side, Filter::Bilinear);
                small.data.iter().map(|&value| f32::from(value) / 255.0).collect()
            }
            Self::Histogram(bins) => {
                let mut counts = vec![0u32; bins * bins * bins];
                for pixel in picture.data.chunks_exact(3) {
                    let cell = pixel.iter().fold(0, |cell, &value| cell * bins + usize::from(value) * bins / 256);
                    counts[cell] += 1;
                }
                let total = (picture.width * picture.height).max(1) as f32;
                counts.into_iter().map(|count| count as f32 / total).collect()
            }
        }
    }
}

impl Encoder {
    /// An untrained network.
    pub fn random(architecture: Architecture, mean: [f64; 3], std: [f64; 3], seed: u64) -> Result<Self> {
        let mut store = Store::default();
        Resnet::init(&mut store, seed, &architecture);
        Self::network(architecture, mean, std, store)
    }

    /// A network with these tensors.
    ///
    /// # Errors
    /// Some are missing.
    pub fn network(architecture: Architecture, mean: [f64; 3], std: [f64; 3], store: Store) -> Result<Self> {
        let resnet = Resnet::bind(&store, &architecture)?;
        Ok(Self::Network(Box::new(Network { architecture, mean, std, store, resnet })))
    }

    /// Reads an encoder that harness wrote, for inference: no tensor of it collects gradients.
    ///
    /// # Errors
    /// It is not such a file, or its tensors do not fit its architecture.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let (tensors, header) = store::read(path)?;
        let header = header.ok_or_else(|| {
            format!(
                "`{}` says nothing of its architecture; read foreign weights with `encoder` and `file`",
                path.display()
            )
        })?;
        let config: EncoderConfig = serde_json::from_str(&header)
            .map_err(|error| format!("`{}`: what it says of itself cannot be read: {error}", path.display()))?;
        match config {
            EncoderConfig::Pixels { size } => Ok(Self::Pixels(size as usize)),
            EncoderConfig::Histogram { bins } => Ok(Self::Histogram(bins as usize)),
            EncoderConfig::Torchscript { mean, std } => {
                let bytes =
                    tensors.get(MODULE).map(store::bytes).ok_or("the encoder's module is gone from its file")?;
                let module = Torchscript::load(bytes, mean, std, device, &format!("`{}`", path.display()))?;
                Ok(Self::Torchscript(Box::new(module)))
            }
            EncoderConfig::Network { architecture, mean, std } => {
                let mut store = Store::default();
                tensors.into_iter().for_each(|(name, tensor)| store.insert(name, tensor));
                check_fit(&store, &architecture, &format!("`{}`", path.display()))?;
                Self::network(architecture, mean, std, store.to_device(device))
            }
        }
    }

    /// What the file says of it.
    pub fn config(&self) -> EncoderConfig {
        match self {
            Self::Network(network) => {
                let Network { architecture, mean, std, .. } = **network;
                EncoderConfig::Network { architecture, mean, std }
            }
            Self::Pixels(size) => EncoderConfig::Pixels { size: *size as u32 },
            Self::Histogram(bins) => EncoderConfig::Histogram { bins: *bins as u32 },
            Self::Torchscript(module) => EncoderConfig::Torchscript { mean: module.mean, std: module.std },
        }
    }

    /// Its bytes; the same encoder always gives the same.
    ///
    /// # Errors
    /// A tensor that cannot be stored.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let header = serde_json::to_string(&self.config()).map_err(|error| error.to_string())?;
        match self {
            Self::Network(network) => store::encode(network.store.tensors(), Some(&header)),
            Self::Torchscript(module) => {
                let bytes = Tensor::f_from_slice(&module.bytes)?;
                store::encode(&[(MODULE.to_string(), bytes)].into(), Some(&header))
            }
            Self::Pixels(_) | Self::Histogram(_) => store::encode(&Default::default(), Some(&header)),
        }
    }

    /// The network in it.
    ///
    /// # Errors
    /// It has none, so `step` cannot use it.
    pub fn need_network(&self, step: &str) -> Result<&Network> {
        match self {
            Self::Network(network) => Ok(network),
            Self::Pixels(_) => Err(format!("`{step}` needs a network, and this encoder is raw pixels").into()),
            Self::Histogram(_) => Err(format!("`{step}` needs a network, and this encoder is a histogram").into()),
            Self::Torchscript(_) => Err(format!(
                "`{step}` needs a network whose layers it knows, and this encoder is an exported module, of which only the \
                 output is known"
            )
            .into()),
        }
    }

    /// How the loading threads prepare pictures for it.
    pub fn prepare(&self) -> Prepare {
        match self {
            Self::Network(network) => Prepare::Normalise(network.mean, network.std),
            Self::Pixels(size) => Prepare::Pixels(*size),
            Self::Histogram(bins) => Prepare::Histogram(*bins),
            Self::Torchscript(module) => Prepare::Normalise(module.mean, module.std),
        }
    }

    /// Features of `count` pictures of side `side`, prepared one after the other: [count, features], fp32, in eval mode
    /// and without gradients.
    ///
    /// # Errors
    /// libtorch's, such as too little memory.
    pub fn forward(&self, numbers: &[f32], count: i64, side: i64, device: Device) -> Result<Tensor> {
        let flat = Tensor::f_from_slice(numbers)?;
        match self {
            Self::Network(network) => tch::no_grad(|| {
                let x = flat.f_view([count, 3, side, side])?.f_to_device(device)?;
                // Channels last in memory, which convolutions are faster with.
                let x = x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?;
                Ok(network.resnet.forward(&x, Mode::Eval))
            }),
            Self::Torchscript(module) => module.forward(&flat.f_view([count, 3, side, side])?.f_to_device(device)?),
            Self::Pixels(_) | Self::Histogram(_) => Ok(flat.f_view([count, -1])?.f_to_device(device)?),
        }
    }
}

/// Compares tensors with those an architecture has; a head `fc.*` may be there or not.
///
/// # Errors
/// Names what is missing, unexpected or of another shape, ten at most of each.
pub fn check_fit(store: &Store, architecture: &Architecture, place: &str) -> Result<()> {
    let expected = Resnet::shapes(architecture);
    let missing: Vec<String> = expected.keys().filter(|&n| !store.tensors().contains_key(n)).cloned().collect();
    let (mut unexpected, mut different) = (Vec::new(), Vec::new());
    for (name, tensor) in store.tensors() {
        match expected.get(name) {
            Some((shape, _)) if *shape != tensor.size() => {
                different.push(format!("{name} {:?} instead of {shape:?}", tensor.size()));
            }
            Some((_, kind)) if *kind != tensor.kind() => {
                different.push(format!("{name} {:?} instead of {kind:?}", tensor.kind()));
            }
            Some(_) => {}
            None if name.starts_with("fc.") => {}
            None => unexpected.push(name.clone()),
        }
    }
    let parts: Vec<String> = [("missing", missing), ("unexpected", unexpected), ("of another shape", different)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| {
            let more = if names.len() > 10 { format!(" and {} more", names.len() - 10) } else { String::new() };
            format!("{what}: {}{more}", names[..names.len().min(10)].join(", "))
        })
        .collect();
    if parts.is_empty() {
        return Ok(());
    }
    Err(format!("the tensors in {place} do not fit {architecture:?}: {}", parts.join("; ")).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_protocol::model::{Resnet as Config, Stem};

    fn tiny() -> Encoder {
        let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
        Encoder::random(architecture, [0.5; 3], [0.25; 3], 3).unwrap()
    }

    #[test]
    fn a_file_gives_the_same_encoder_and_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encoder.safetensors");
        for encoder in [tiny(), Encoder::Pixels(4), Encoder::Histogram(3)] {
            let bytes = encoder.encode().unwrap();
            std::fs::write(&path, &bytes).unwrap();
            let again = Encoder::load(&path, Device::Cpu).unwrap();
            assert_eq!(again.config(), encoder.config());
            assert_eq!(again.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn misfits_are_listed() {
        let Encoder::Network(network) = tiny() else { unreachable!() };
        let wider = Architecture::Resnet50(Config { stem: Stem::Small, width: 0.0625 });
        let message = check_fit(&network.store, &wider, "`x`").unwrap_err().to_string();
        assert!(message.contains("missing: layer1.0.bn3.bias"), "{message}");
        assert!(message.contains("more"), "{message}");
        assert!(message.contains("of another shape: "), "{message}");
    }

    #[test]
    fn floors_are_what_they_say() {
        let picture = Picture { width: 2, height: 1, data: vec![255, 0, 0, 0, 0, 255] };
        let cells = Encoder::Histogram(2).prepare().numbers(&picture);
        assert_eq!(cells, [0.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!(Encoder::Pixels(1).prepare().numbers(&Picture::filled(3, 3, [51, 102, 255])), [0.2, 0.4, 1.0]);
    }
}
