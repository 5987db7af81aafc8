//! The loop on several ranks, in double precision: what they learn is what one process learns.

use std::sync::atomic::AtomicU64;

use harness_protocol::model::{Architecture, Resnet as Config, Stem};
use harness_protocol::steps::{Fcn, SegmentHead};
use serde_json::json;

use super::*;
use crate::group::tests::together;
use crate::model::{Encoder, Mode};
use crate::steps::segment::tests::{network, plain};
use crate::team::Team;
use crate::testing::Bench;

const PICTURES: usize = 16;
const SIDE: usize = 12;
const CLASSES: i64 = 3;
const SEED: u64 = 5;

/// Pictures of noise by their numbers, in double precision. The first five have classes, in some of their rows; all others
/// are void.
struct Noise;

#[derive(Clone)]
struct Numbers(Vec<usize>);

impl Numbers {
    fn rows(index: usize) -> usize {
        if index < 5 { 2 * index + 1 } else { 0 }
    }
}

impl Batch for Numbers {
    fn known(&self) -> usize {
        self.0.iter().map(|&index| Numbers::rows(index) * SIDE).sum()
    }

    fn side(&self) -> (usize, usize) {
        (SIDE, SIDE)
    }
}

impl Task for Noise {
    type Batch = Numbers;
    type Score = f64;
    const MEASURE: &'static str = "score";

    fn measure(&self, score: &f64) -> f64 {
        *score
    }

    fn better(new: f64, old: f64) -> bool {
        new > old
    }

    fn train(&self) -> usize {
        PICTURES
    }

    fn count(&self, split: Split) -> usize {
        usize::from(split == Split::Test)
    }

    fn source(&self) -> Source<Numbers> {
        Arc::new(|_, indices| Ok(Numbers(indices.to_vec())))
    }

    fn loss(&self, network: &Segmenter, batch: &Numbers, reduction: Reduction) -> Result<Tensor> {
        let side = SIDE as i64;
        let picture =
            |&index: &usize| seed::normal(index as u64, "test", "x", &[3, side, side], 1.0).to_kind(Kind::Double);
        let classes = |&index: &usize| {
            let classes = (seed::normal(index as u64, "test", "y", &[side, side], 9.0).abs().remainder(CLASSES))
                .to_kind(Kind::Int64);
            let _ = classes.narrow(0, Numbers::rows(index) as i64, side - Numbers::rows(index) as i64).fill_(255);
            classes
        };
        let x = Tensor::stack(&batch.0.iter().map(picture).collect::<Vec<_>>(), 0);
        let y = Tensor::stack(&batch.0.iter().map(classes).collect::<Vec<_>>(), 0);
        Ok(network.forward(&x, Mode::TRAIN).f_cross_entropy_loss(&y, None::<&Tensor>, reduction, 255, 0.0)?)
    }

    fn score(&self, network: &Segmenter, _: Split, _: &[usize]) -> Result<(f64, Shown)> {
        Ok((network.store.get("head.6.weight")?.sum(Kind::Double).double_value(&[]), Shown::new()))
    }
}

/// Weights and statistics after two epochs of four steps, losses of the epochs, and the score where one is made.
fn learned(group: Option<Arc<Group>>) -> (BTreeMap<String, Tensor>, Vec<f64>, Option<f64>) {
    let bench = Bench::new();
    let mut job = bench.job_of("a", "segment", json!({}));
    job.peers = vec!["cpu".into(); group.as_ref().map_or(0, |group| group.size() - 1)];
    std::fs::create_dir_all(&job.work_dir).unwrap();
    let never = AtomicU64::new(u64::MAX);
    let folder = job.work_dir.clone();
    // Each rank has a folder of its own here; the leader's work is over before another one asks for it.
    let team = group.clone().map_or_else(Team::alone, |group| Team::of(group, &folder));
    if !team.leads() {
        for epoch in 1..=2 {
            std::fs::write(folder.join(format!("score-{epoch}.done")), []).unwrap();
        }
    }
    let context = Context::new(&job, &|_| (), &never).unwrap().with_team(team).unwrap();
    let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
    let head = SegmentHead::Fcn(Fcn { channels: 6, dilation: 1 });
    let layout = Layout { architecture, head, dilated: 1, classes: CLASSES };
    let encoder = Encoder::random(architecture, [0.5; 3], [0.25; 3], 1).unwrap();
    let settings = Settings {
        layout: &layout,
        optimizer: &serde_json::from_value(json!({ "sgd": { "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3 } }))
            .unwrap(),
        schedule: &serde_json::from_value(json!({ "constant": {} })).unwrap(),
        epochs: 2,
        batch: 4,
        every: 1,
        select: &serde_json::from_value(json!({ "last": {} })).unwrap(),
        seed: SEED,
    };
    let mut run = Run::fresh(&context, &Noise, encoder.need_network("segment").unwrap(), settings).unwrap();
    let mut store = Store::default();
    for (name, tensor) in run.segmenter.store.tensors() {
        let kind = if tensor.is_floating_point() { Kind::Double } else { tensor.kind() };
        store.insert(name, tensor.detach().to_kind(kind));
    }
    store.train(true);
    run.segmenter = Segmenter::bind(store, &layout).unwrap().among(group.as_ref());
    run.optimizer = Finetuner::new(run.segmenter.store.parameters(), settings.optimizer);
    run.train().unwrap();
    let tensors = run.segmenter.store.tensors().iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
    (tensors, run.place.losses.clone(), run.place.last.map(|scored| scored.score))
}

#[test]
fn ranks_learn_what_one_process_learns() {
    // What is dealt: a rank without anything to learn from beside one with something, and a step without anything.
    let mut seen = [false; 2];
    for epoch in 0..2 {
        let order = seed::permutation(SEED, "segment", "order", epoch, 0, PICTURES);
        for batch in order.chunks(4) {
            let known = |rows: &[usize]| rows.iter().any(|&index| Numbers::rows(index) > 0);
            seen[0] |= known(&batch[..2]) != known(&batch[2..]);
            seen[1] |= !known(batch);
        }
    }
    assert_eq!(seen, [true; 2], "another seed would test more");
    let (whole, losses, score) = learned(None);
    assert!(losses[1] < losses[0], "{losses:?}");
    for ranks in [2, 4] {
        let made = together(ranks, |group| learned(Some(group)));
        let mut most = 0.0_f64;
        for (rank, (tensors, own, scored)) in made.iter().enumerate() {
            assert!(own.iter().zip(&losses).all(|(a, b)| (a - b).abs() < 1e-10), "{own:?} {losses:?}");
            assert_eq!(scored.is_some(), rank == 0);
            for (name, tensor) in tensors {
                let other = &whole[name];
                let far = ((tensor - other).abs().max() / other.abs().max().clamp_min(1e-3)).double_value(&[]);
                most = most.max(far);
                assert!(far < 1e-9, "{name} on rank {rank} of {ranks}: {far}");
            }
        }
        println!("{ranks} ranks are {most:.1e} apart from one process");
        assert!((made[0].2.unwrap() - score.unwrap()).abs() < 1e-9);
    }
}

#[test]
fn pictures_of_one_step_have_one_size_on_all_ranks() {
    struct Sized(usize);
    impl Batch for Sized {
        fn known(&self) -> usize {
            1
        }

        fn side(&self) -> (usize, usize) {
            (self.0, 7)
        }
    }
    let said = together(2, |group| match turn(Some(&group), false, &Sized(10 + group.rank())) {
        Err(error) => error.to_string(),
        Ok(_) => "nothing".into(),
    });
    assert!(said[0].contains("some of 10x7 and some of 11x7"), "{said:?}");
    assert!(said[1].contains("some of 10x7 and some of 11x7"), "{said:?}");
    let stopped = together(2, |group| {
        let cancelled = group.rank() == 1;
        matches!(turn(Some(&group), cancelled, &Sized(10)), Ok(Turn::Stop))
    });
    assert_eq!(stopped, [true, true]);
}

#[test]
fn batches_that_cannot_be_dealt_are_refused_with_the_way_out() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let (train, test) = (plain(&mut bench, "train", 8), plain(&mut bench, "test", 2));
    let params =
        json!({ "encoder": encoder, "train": train, "test": test, "size": 24, "batch": 4, "select": { "last": {} } });
    for message in bench.ranks(&bench.job("a", "segment", params), 3, |_| false).into_iter().map(Result::unwrap_err) {
        let message = message.to_string();
        assert!(message.contains("3 devices cannot share a batch of 4 in equal parts; ask for 2"), "{message}");
    }
}
