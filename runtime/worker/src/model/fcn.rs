//! Heads that turn a map into scores for every position: the study's FCN and DeepLab's.

use std::sync::Arc;

use harness_protocol::steps::{Deeplab as DeeplabSettings, Fcn as FcnSettings, SegmentHead};
use tch::Tensor;

use crate::error::Result;
use crate::group::Group;
use crate::model::layers::{BatchNorm, Conv, Mode, init_batch_norm};
use crate::model::store::Store;
use crate::seed;

/// A convolution without bias, batch norm, ReLU.
#[derive(Debug)]
struct Layer(Conv, BatchNorm);

impl Layer {
    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.1.forward(&self.0.forward(x), mode).relu_()
    }
}

/// Binds the layers of a head to the tensors `head.*` of a store; with a seed it adds them first, with PyTorch's default
/// initial values.
struct Builder<'a> {
    store: &'a mut Store,
    fresh: Option<u64>,
}

impl Builder<'_> {
    /// Uniform in ±1/√(in · k²), the bias too where there is one.
    fn conv(&mut self, path: &str, [output, input, kernel]: [i64; 3], dilation: i64, bias: bool) -> Result<Conv> {
        let bound = 1.0 / ((input * kernel * kernel) as f64).sqrt();
        let name = format!("{path}.weight");
        if let Some(seed) = self.fresh {
            self.store
                .insert(&name, seed::uniform(seed, seed::NETWORK, &name, &[output, input, kernel, kernel], bound));
        }
        let mut conv = Conv { dilation, ..Conv::bind(self.store, path, 1, dilation * (kernel / 2))? };
        if bias {
            let name = format!("{path}.bias");
            if let Some(seed) = self.fresh {
                self.store.insert(&name, seed::uniform(seed, seed::NETWORK, &name, &[output], bound));
            }
            conv.bias = Some(self.store.get(&name)?);
        }
        Ok(conv)
    }

    fn layer(&mut self, conv: &str, norm: &str, shape: [i64; 3], dilation: i64) -> Result<Layer> {
        let conv = self.conv(conv, shape, dilation, false)?;
        if self.fresh.is_some() {
            init_batch_norm(self.store, norm, shape[0]);
        }
        Ok(Layer(conv, BatchNorm::bind(self.store, norm)?))
    }
}

/// A head bound to a store.
#[derive(Debug)]
pub enum Head {
    /// See [`Fcn`].
    Fcn(Fcn),
    /// See [`Deeplab`].
    Deeplab(Deeplab),
}

impl Head {
    /// Binds the head of a store that turns a map of `input` channels into `classes` scores. With a seed a fresh one is
    /// added to the store first.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn bind(
        store: &mut Store,
        settings: &SegmentHead,
        input: i64,
        classes: i64,
        fresh: Option<u64>,
    ) -> Result<Self> {
        let builder = &mut Builder { store, fresh };
        Ok(match settings {
            SegmentHead::Fcn(settings) => Self::Fcn(Fcn::build(builder, settings, input, classes)?),
            SegmentHead::Deeplab(settings) => Self::Deeplab(Deeplab::build(builder, settings, input, classes)?),
        })
    }

    /// Makes its rows in training some of those of a batch that the ranks of a group share.
    pub fn share(&mut self, group: &Arc<Group>) {
        let layers: Vec<&mut Layer> = match self {
            Self::Fcn(fcn) => fcn.layers.iter_mut().collect(),
            Self::Deeplab(deeplab) => {
                deeplab.group = Some(group.clone());
                let Deeplab { branches, pooled, project, last, .. } = deeplab;
                branches.iter_mut().chain([pooled, project, last]).collect()
            }
        };
        layers.into_iter().for_each(|layer| layer.1.group = Some(group.clone()));
    }

    /// Scores at the map's own resolution: [n, input, h, w] to [n, classes, h, w].
    pub fn forward(&self, map: &Tensor, mode: Mode) -> Tensor {
        match self {
            Self::Fcn(fcn) => fcn.forward(map, mode),
            Self::Deeplab(deeplab) => deeplab.forward(map, mode),
        }
    }
}

/// Two 3 × 3 convolutions with batch norm and ReLU, then 1 × 1; none has a bias. Names are the places of the layers in the
/// study's `nn.Sequential`.
#[derive(Debug)]
pub struct Fcn {
    layers: [Layer; 2],
    classifier: Conv,
}

impl Fcn {
    fn build(builder: &mut Builder, settings: &FcnSettings, input: i64, classes: i64) -> Result<Self> {
        let (channels, dilation) = (settings.channels as i64, settings.dilation as i64);
        let first = builder.layer("head.0", "head.1", [channels, input, 3], dilation)?;
        let second = builder.layer("head.3", "head.4", [channels, channels, 3], dilation)?;
        let classifier = builder.conv("head.6", [classes, channels, 1], 1, false)?;
        Ok(Self { layers: [first, second], classifier })
    }

    fn forward(&self, map: &Tensor, mode: Mode) -> Tensor {
        let [first, second] = &self.layers;
        self.classifier.forward(&second.forward(&first.forward(map, mode), mode))
    }
}

/// DeepLabV3's head (Chen et al. 2017) with torchvision's layers and names: atrous spatial pyramid pooling, a projection
/// with dropout, a 3 × 3 convolution, and a 1 × 1 convolution with bias.
#[derive(Debug)]
pub struct Deeplab {
    /// 1 × 1, then 3 × 3 with each of the rates.
    branches: Vec<Layer>,
    /// 1 × 1 on the map's mean.
    pooled: Layer,
    project: Layer,
    last: Layer,
    classifier: Conv,
    dropout: f64,
    /// Ranks that share a batch in training.
    group: Option<Arc<Group>>,
}

impl Deeplab {
    fn build(builder: &mut Builder, settings: &DeeplabSettings, input: i64, classes: i64) -> Result<Self> {
        let channels = settings.channels as i64;
        let mut branches = vec![builder.layer("head.0.convs.0.0", "head.0.convs.0.1", [channels, input, 1], 1)?];
        for (rate, n) in settings.rates.iter().zip(1..) {
            let path = format!("head.0.convs.{n}");
            let shape = [channels, input, 3];
            branches.push(builder.layer(&format!("{path}.0"), &format!("{path}.1"), shape, *rate as i64)?);
        }
        let path = format!("head.0.convs.{}", branches.len());
        let pooled = builder.layer(&format!("{path}.1"), &format!("{path}.2"), [channels, input, 1], 1)?;
        let parts = branches.len() as i64 + 1;
        let project = builder.layer("head.0.project.0", "head.0.project.1", [channels, parts * channels, 1], 1)?;
        let last = builder.layer("head.1", "head.2", [channels, channels, 3], 1)?;
        let classifier = builder.conv("head.4", [classes, channels, 1], 1, true)?;
        Ok(Self { branches, pooled, project, last, classifier, dropout: settings.dropout, group: None })
    }

    fn forward(&self, map: &Tensor, mode: Mode) -> Tensor {
        let size = map.size();
        let mut parts: Vec<Tensor> = self.branches.iter().map(|branch| branch.forward(map, mode)).collect();
        let mean = self.pooled.forward(&map.mean_dim([2i64, 3].as_slice(), true, None), mode);
        parts.push(mean.upsample_bilinear2d([size[2], size[3]], false, None, None));
        let project = self.project.forward(&Tensor::cat(&parts, 1), mode);
        let project = match &self.group {
            Some(group) if mode != Mode::Eval => dropped(&project, self.dropout, group.rank(), group.size()),
            _ => project.dropout(self.dropout, mode != Mode::Eval),
        };
        self.classifier.forward(&self.last.forward(&project, mode))
    }
}

/// Dropout of one rank's rows of a batch that `ranks` have equal parts of: what libtorch's makes of these rows in the whole
/// batch, if its generator is in the same state. x: [n, …].
pub fn dropped(x: &Tensor, share: f64, rank: usize, ranks: usize) -> Tensor {
    let (mut size, mut stride) = (x.size(), x.stride());
    let rows = size[0];
    // What is drawn depends on how the batch lies in memory.
    (size[0], stride[0]) = (rows * ranks as i64, size[1..].iter().product());
    let kept = Tensor::empty_strided(&size, &stride, (x.kind(), x.device())).fill_(1.0).dropout(share, true);
    x * kept.narrow(0, rank as i64 * rows, rows)
}
