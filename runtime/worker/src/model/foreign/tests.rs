//! Files that PyTorch wrote (`tests/foreign`), read here, and the same files damaged.

use std::path::{Path, PathBuf};

use harness_protocol::model::Architecture;
use harness_views::Stream;
use tch::{Device, Kind, Tensor};

use super::{Checkpoint, Fit, Format, checkpoint, fit};
use crate::error::Result;
use crate::guard::eval_guard;
use crate::model::{Encoder, Torchscript};

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(name)
}

fn golden(name: &str) -> Vec<f32> {
    let text = std::fs::read_to_string(place("golden.json")).unwrap();
    serde_json::from_value(serde_json::from_str::<serde_json::Value>(&text).unwrap()[name].clone()).unwrap()
}

/// The pictures of `make.py`: [2, 3, 32, 32].
fn pictures() -> Vec<f32> {
    (0..2 * 3 * 32 * 32).map(|i| (0.37 * f64::from(i)).sin() as f32).collect()
}

fn select(checkpoint: &Checkpoint, prefix: Option<&str>) -> Result<Fit> {
    fit::select(checkpoint, None, prefix, "`file`")
}

fn features(fit: Fit) -> Vec<f32> {
    let encoder = Encoder::network(fit.architecture, [0.0; 3], [1.0; 3], fit.store).unwrap();
    let x = encoder.forward(&pictures(), 2, 32, Device::Cpu).unwrap();
    Vec::try_from(x.reshape([-1])).unwrap()
}

fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{found:?}\n{expected:?}");
    }
}

#[test]
fn a_file_of_moco_gives_its_query_encoder() {
    let checkpoint = checkpoint::read(&place("moco.pth.tar")).unwrap();
    assert_eq!(checkpoint.format, Format::Zip);
    let fit = select(&checkpoint, None).unwrap();
    assert_eq!(fit.prefix, "state_dict.module.encoder_q.");
    assert!(matches!(fit.architecture, Architecture::Resnet18(varied) if varied.width == 1.0 / 64.0));
    assert!(fit.missing.is_empty());
    let account = fit.account();
    for part in [
        "resnet18 { width = 0.015625 }: 124 tensors matched under `state_dict.module.encoder_q.`",
        "missing: nothing",
        "`state_dict.module.encoder_k.` (3)",
        "`state_dict.module.queue`",
        "`epoch`",
    ] {
        assert!(account.contains(part), "{part}\n{account}");
    }
    // The head came along.
    assert_eq!(fit.store.get("fc.2.weight").unwrap().size(), [4, 8]);
    assert_near(&features(fit), &golden("moco.pth.tar"));
    // The other one is not whole, and says so when it is asked for.
    let message = select(&checkpoint, Some("module.encoder_k.")).unwrap_err().to_string();
    assert!(message.contains("not those of resnet18"), "{message}");
    let message = select(&checkpoint, Some("teacher.")).unwrap_err().to_string();
    assert!(message.contains("starts with `teacher.`") && message.contains("encoder_q"), "{message}");
    let wrong = Architecture::Resnet50(Default::default());
    let message = fit::select(&checkpoint, Some(wrong), None, "`file`").unwrap_err().to_string();
    assert!(message.contains("missing: layer1.0.bn3.bias") && message.contains("of another shape"), "{message}");
}

#[test]
fn a_file_of_torchvision_in_the_older_format() {
    let checkpoint = checkpoint::read(&place("torchvision.pth")).unwrap();
    assert_eq!(checkpoint.format, Format::Legacy);
    // Views: a row of a larger storage, and columns of a shared one.
    assert_eq!(checkpoint.tensors["fc.weight"].size(), [5, 8]);
    let fit = select(&checkpoint, None).unwrap();
    assert_eq!(fit.prefix, "");
    assert!(fit.account().contains("missing: 20 × `num_batches_tracked`"), "{}", fit.account());
    assert!(fit.account().ends_with("left over: nothing"), "{}", fit.account());
    assert_near(&features(fit), &golden("torchvision.pth"));
}

#[test]
fn tensors_that_are_not_this_networks_are_not_ignored() {
    let mut checkpoint = checkpoint::read(&place("torchvision.pth")).unwrap();
    checkpoint.tensors.insert("projector.0.weight".into(), Tensor::from_slice(&[1.0f32]));
    let fit = select(&checkpoint, None).unwrap();
    assert!(fit.account().contains("left over: `projector.0.weight`"), "{}", fit.account());
    checkpoint.tensors.insert("layer1.0.se.weight".into(), Tensor::from_slice(&[1.0f32]));
    let message = select(&checkpoint, None).unwrap_err().to_string();
    assert!(message.contains("unexpected: layer1.0.se.weight"), "{message}");
    // Two networks, neither preferred.
    let copies: Vec<_> =
        checkpoint.tensors.iter().map(|(name, tensor)| (format!("other.{name}"), tensor.shallow_clone())).collect();
    checkpoint.tensors.extend(copies);
    let message = select(&checkpoint, None).unwrap_err().to_string();
    assert!(message.contains("2 networks") && message.contains("\"\", \"other.\""), "{message}");
}

#[test]
fn what_is_no_checkpoint_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let of = |bytes: &[u8]| {
        let path = folder.path().join("x.pth");
        std::fs::write(&path, bytes).unwrap();
        checkpoint::read(&path).unwrap_err().to_string()
    };
    let hostile = checkpoint::read(&place("hostile.pth")).unwrap_err().to_string();
    assert!(hostile.contains("`posix.system`") && hostile.contains("nothing of it was run"), "{hostile}");
    let module = checkpoint::read(&place("module.pt")).unwrap_err().to_string();
    assert!(module.contains("TorchScript") && module.contains("`torchscript`"), "{module}");
    assert!(of(b"").contains("neither a PyTorch checkpoint"));
    assert!(of(b"torn").contains("neither a PyTorch checkpoint"));
    assert!(of(b"\x80\x03}.").contains("torch.save did not write"));
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(of(&tar).contains("before version 0.4"));
    let empty = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    assert!(of(&[b"PK\x03\x04".as_slice(), empty].concat()).contains("no PyTorch checkpoint"));
}

/// Cut anywhere or with some bytes changed, a file is read or refused: no panic, no memory beyond its size.
#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.pth");
    for name in ["moco.pth.tar", "torchvision.pth"] {
        let whole = std::fs::read(place(name)).unwrap();
        let mut stream = Stream::new(2, "test", "damage", 0, 0, 0);
        for _ in 0..30 {
            let end = stream.below(whole.len() as u64) as usize;
            std::fs::write(&path, &whole[..end]).unwrap();
            let message = checkpoint::read(&path).unwrap_err().to_string();
            assert!(message.contains("damaged.pth"), "{message}");
        }
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..=stream.below(4) {
                // The beginnings and ends hold what is parsed; the middle holds numbers.
                let reach = stream.below(2) * (whole.len() as u64 - 6000) + stream.below(6000);
                bytes[reach as usize] ^= 1 << stream.below(8);
            }
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(checkpoint) = checkpoint::read(&path) {
                let _ = select(&checkpoint, None);
            }
        }
    }
}

#[test]
fn an_exported_module_is_an_encoder_in_eval_mode() {
    let load = |name: &str| {
        let bytes = std::fs::read(place(name)).unwrap();
        Encoder::Torchscript(Box::new(Torchscript::load(bytes, [0.0; 3], [1.0; 3], Device::Cpu, "`file`").unwrap()))
    };
    // Saved in train mode, where its dropout and batch norm would give other numbers.
    let encoder = load("module.pt");
    let forward = |encoder: &Encoder| encoder.forward(&pictures(), 2, 32, Device::Cpu);
    let x = eval_guard(&encoder, || forward(&encoder)).unwrap();
    assert_eq!((x.size(), x.kind()), (vec![2, 6], Kind::Float));
    assert_near(&Vec::try_from(x.reshape([-1])).unwrap(), &golden("module.pt"));
    // From its own file again.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("encoder.safetensors");
    std::fs::write(&path, encoder.encode().unwrap()).unwrap();
    let again = Encoder::load(&path, Device::Cpu).unwrap();
    assert_eq!(again.config(), encoder.config());
    assert!(forward(&again).unwrap().equal(&forward(&encoder).unwrap()));
    // A buffer that moves makes the numbers void.
    let counting = load("counting.pt");
    let message = eval_guard(&counting, || forward(&counting)).unwrap_err().to_string();
    assert!(message.contains("updates a buffer also in eval mode"), "{message}");
    let message = encoder.forward(&[0.0; 12], 1, 2, Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("[1, 3, 2, 2]") && message.contains("transform"), "{message}");
    let message =
        Torchscript::load(b"torn".to_vec(), [0.0; 3], [1.0; 3], Device::Cpu, "`x.pt`").unwrap_err().to_string();
    assert!(message.contains("`x.pt` is no TorchScript module"), "{message}");
}
