//! ResNets with finer maps: stages that no longer halve them.

use harness_protocol::model::Architecture;

use crate::error::Result;
use crate::model::resnet::{Block, Resnet};
use crate::model::store::Store;

/// The number of stages of a ResNet.
const STAGES: usize = 4;

/// The ResNet of a store for dense prediction: the 3 × 3 convolutions of every block of the last stage have stride 1,
/// dilation 2 and padding 2, its shortcut stride 1. The last map has stride 16 with the ImageNet stem, 4 with the small
/// one; weights are shared with the store. (The study's segmentation transfer; Yu et al. 2017.)
///
/// # Errors
/// A tensor is missing.
pub fn dilated(store: &Store, architecture: &Architecture) -> Result<Resnet> {
    let mut resnet = Resnet::bind(store, architecture)?;
    for block in &mut resnet.stages[STAGES - 1] {
        keep_size(block);
        for (conv, _) in &mut block.convs {
            if conv.weight.size()[2] == 3 {
                (conv.dilation, conv.padding) = (2, 2);
            }
        }
    }
    Ok(resnet)
}

/// The ResNet of a store whose last `stages` stages (0 to 2) keep the size of their input: none, the last one as in
/// [`dilated`], or the last two. With two, the 3 × 3 convolutions of stage 3 have dilation 2 and those of stage 4 have 4,
/// except that the first one of each stage, which had the stride, still has the dilation of the stage before
/// (torchvision's `replace_stride_with_dilation`). The last map then has stride 8 with the ImageNet stem, 2 with the small
/// one.
///
/// # Errors
/// A tensor is missing, or there are more than two stages.
pub fn keeping(store: &Store, architecture: &Architecture, stages: u64) -> Result<Resnet> {
    match stages {
        0 => Resnet::bind(store, architecture),
        1 => dilated(store, architecture),
        2 => {
            let mut resnet = Resnet::bind(store, architecture)?;
            let mut before = 1;
            for (stage, dilation) in [(STAGES - 2, 2), (STAGES - 1, 4)] {
                let blocks = &mut resnet.stages[stage];
                blocks.iter_mut().for_each(keep_size);
                let convs = blocks.iter_mut().flat_map(|block| &mut block.convs);
                let wide = convs.map(|(conv, _)| conv).filter(|conv| conv.weight.size()[2] == 3);
                for (index, conv) in wide.enumerate() {
                    let rate = if index == 0 { before } else { dilation };
                    (conv.dilation, conv.padding) = (rate, rate);
                }
                before = dilation;
            }
            Ok(resnet)
        }
        more => Err(format!("{more} stages cannot keep their size; 0, 1 or 2 of the last ones can").into()),
    }
}

/// The ResNet of a store whose stage `stage` (counted from 1) has all its convolutions at stride 1, nothing dilated.
/// With the ImageNet stem the map after stage 3 then has stride 8, with the small one 2; weights are shared with the
/// store. (videowalk, Jabri et al. 2020.)
///
/// # Errors
/// A tensor is missing, or there is no such stage.
pub fn undecimated(store: &Store, architecture: &Architecture, stage: usize) -> Result<Resnet> {
    let mut resnet = Resnet::bind(store, architecture)?;
    let blocks = stage.checked_sub(1).and_then(|index| resnet.stages.get_mut(index));
    blocks.ok_or_else(|| format!("a ResNet has stages 1 to {STAGES}, not {stage}"))?.iter_mut().for_each(keep_size);
    Ok(resnet)
}

fn keep_size(block: &mut Block) {
    for (conv, _) in block.convs.iter_mut().chain(&mut block.downsample) {
        conv.stride = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;
    use harness_protocol::model::{Resnet as Config, Stem};
    use tch::{Device, Kind, Tensor, no_grad};

    fn store(architecture: &Architecture) -> Store {
        let mut store = Store::default();
        Resnet::init(&mut store, 0, architecture);
        store
    }

    #[test]
    fn the_dilated_network_keeps_the_third_stages_size() {
        for (stem, side) in [(Stem::Imagenet, 4), (Stem::Small, 16)] {
            for make in [Architecture::Resnet18, Architecture::Resnet50] {
                let architecture = make(Config { stem, width: 0.0625 });
                let resnet = dilated(&store(&architecture), &architecture).unwrap();
                let x = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
                let map = no_grad(|| resnet.map(&x, Mode::Eval, 4));
                assert_eq!(map.size(), [1, architecture.features(), side, side]);
            }
        }
    }

    #[test]
    fn only_three_by_three_convolutions_are_dilated() {
        let architecture = Architecture::Resnet50(Config { stem: Stem::Imagenet, width: 0.0625 });
        let resnet = dilated(&store(&architecture), &architecture).unwrap();
        for block in &resnet.stages[3] {
            let settings: Vec<_> = block.convs.iter().map(|(c, _)| (c.stride, c.padding, c.dilation)).collect();
            assert_eq!(settings, [(1, 0, 1), (1, 2, 2), (1, 0, 1)]);
        }
        assert_eq!(resnet.stages[3][0].downsample.as_ref().unwrap().0.stride, 1);
        assert_eq!(resnet.stages[2][0].convs[1].0.stride, 2);
    }

    #[test]
    fn two_stages_keep_their_size() {
        for (stem, sides) in [(Stem::Imagenet, [2, 4, 8]), (Stem::Small, [8, 16, 32])] {
            let architecture = Architecture::Resnet50(Config { stem, width: 0.0625 });
            let store = store(&architecture);
            let x = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
            for (stages, side) in sides.into_iter().enumerate() {
                let resnet = keeping(&store, &architecture, stages as u64).unwrap();
                assert_eq!(no_grad(|| resnet.map(&x, Mode::Eval, 4)).size()[2..], [side, side]);
            }
        }
        let architecture = Architecture::default();
        assert!(keeping(&Store::default(), &architecture, 3).unwrap_err().to_string().contains("3 stages"));
    }

    /// The first convolution of the stage sees what the strided one sees, at every position instead of every second.
    #[test]
    fn an_undecimated_stage_has_the_strided_one_at_every_second_position() {
        let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
        let store = store(&architecture);
        let (fine, coarse) =
            (undecimated(&store, &architecture, 3).unwrap(), Resnet::bind(&store, &architecture).unwrap());
        let x = crate::seed::normal(1, "test", "x", &[1, 3, 32, 32], 1.0);
        no_grad(|| {
            let before = coarse.map(&x, Mode::Eval, 2);
            let (conv, _) = &fine.stages[2][0].convs[0];
            let (strided, _) = &coarse.stages[2][0].convs[0];
            let every_second = conv.forward(&before).slice(2, 0, None, 2).slice(3, 0, None, 2);
            assert!((every_second - strided.forward(&before)).abs().max().double_value(&[]) < 1e-5);
            assert_eq!(fine.map(&x, Mode::Eval, 3).size(), [1, 16, 16, 16]);
        });
    }

    #[test]
    fn propagation_maps_have_stride_eight() {
        for (stage, stride) in [(3, 8), (2, 4)] {
            let architecture = Architecture::Resnet50(Config { stem: Stem::Imagenet, width: 0.0625 });
            let resnet = undecimated(&store(&architecture), &architecture, stage).unwrap();
            let x = Tensor::zeros([1, 3, 50, 70], (Kind::Float, Device::Cpu));
            let size = no_grad(|| resnet.map(&x, Mode::Eval, stage)).size();
            assert_eq!(size[2..], [50_i64.div_euclid(stride) + 1, 70_i64.div_euclid(stride) + 1]);
        }
        let architecture = Architecture::default();
        assert!(undecimated(&Store::default(), &architecture, 3).is_err());
        let small = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
        assert!(undecimated(&store(&small), &small, 5).unwrap_err().to_string().contains("not 5"));
    }
}
