//! Claims decided from numbers.

use crate::catalog::program;
use harness_dsl::{Outcome, Pick, Verdict, evaluate_claim, summarise};

/// Decides `condition` over `a` and `b`, which have these numbers by seed.
fn decide(condition: &str, a: &[f64], b: &[Option<f64>]) -> Verdict {
    let seeds = |n: usize| (1..=n).map(|seed| seed.to_string()).collect::<Vec<_>>().join(", ");
    let program = program(&format!(
        "scenes world {{}}
        replicate seed in [{}] {{ pretrain a {{ data = world }} }}
        replicate seed in [{}] {{ pretrain b {{ data = world }} }}
        claim \"c\" {{ {condition} }}",
        seeds(a.len()),
        seeds(b.len())
    ));
    evaluate_claim(
        &program.claims[0],
        &|step, metric, pick| {
            assert_eq!((metric, pick), ("loss", Pick::Last));
            let step = &program.steps[step];
            let seed: usize = step.axes[0].value.parse().unwrap();
            if step.name == "a" { Some(a[seed - 1]) } else { b[seed - 1] }
        },
        &|_| None,
    )
}

fn some(values: &[f64]) -> Vec<Option<f64>> {
    values.iter().copied().map(Some).collect()
}

#[test]
fn the_interval_of_paired_differences_decides() {
    let above = decide("a.loss.last > b.loss.last", &[11.0, 12.0, 13.0], &some(&[1.0, 2.0, 2.0]));
    assert_eq!(above.outcome, Outcome::Holds);
    // Differences 10, 10, 11: mean 31/3, sd 1/sqrt 3, t(0.975, 2) = 4.30265272975 (tables of Student's t).
    let interval = above.difference.unwrap();
    let half = 4.302_652_729_75 / 3.0;
    assert!((interval.mean - 31.0 / 3.0).abs() < 1e-9);
    assert!((interval.low - (31.0 / 3.0 - half)).abs() < 1e-6, "{interval:?}");
    assert!((interval.high - (31.0 / 3.0 + half)).abs() < 1e-6, "{interval:?}");
    assert_eq!((interval.n, above.single), (3, false));
    assert_eq!(above.detail, "3 seeds, difference 10.3 ± 1.4 (95 % interval 8.899 to 11.77)");

    let below = decide("a.loss.last < b.loss.last", &[11.0, 12.0, 13.0], &some(&[1.0, 2.0, 2.0]));
    assert_eq!(below.outcome, Outcome::Fails);
    let spread = decide("a.loss.last > b.loss.last", &[1.0, 5.0, 9.0], &some(&[0.0, 6.0, 3.0]));
    assert_eq!(spread.outcome, Outcome::Undecided);
    // The same numbers, unpaired, would be far from deciding anything.
    let paired = decide("a.loss.last > b.loss.last", &[1.1, 50.2, 99.1], &some(&[0.0, 49.0, 98.0]));
    assert_eq!(paired.outcome, Outcome::Holds);
}

#[test]
fn equal_differences_have_a_point_for_an_interval() {
    let equal = decide("a.loss.last >= b.loss.last + 1", &[2.0, 3.0], &some(&[1.0, 2.0]));
    assert_eq!((equal.outcome, equal.difference.unwrap().mean), (Outcome::Holds, 0.0));
    let strict = decide("a.loss.last > b.loss.last + 1", &[2.0, 3.0], &some(&[1.0, 2.0]));
    assert_eq!(strict.outcome, Outcome::Fails);
}

#[test]
fn a_single_pair_never_holds() {
    let won = decide("a.loss.last > b.loss.last", &[2.0], &some(&[1.0]));
    assert_eq!((won.outcome, won.single, won.difference), (Outcome::Undecided, true, None));
    let lost = decide("a.loss.last < b.loss.last", &[2.0], &some(&[1.0]));
    assert_eq!((lost.outcome, lost.single), (Outcome::Fails, true));
}

/// Decides a claim about 2 x 2 replicates, whose trainings `training` names by place on the outer and the inner axis.
fn nested(training: impl Fn(&str, &str) -> String) -> Verdict {
    let text = "scenes world {}
        replicate a in [1, 2] { replicate b in [1, 2] {
            pretrain r { data = world }
            knn nn { encoder = r, train = world.holdout, test = world.test }
        } }
        encoder px { source = pixels, seed = 0 }
        knn floor { encoder = px, train = world.holdout, test = world.test }
        claim \"c\" { nn.top1 > floor.top1 + 10 }";
    let program = crate::catalog::check_with(text, &[], &[]).program.unwrap();
    let place = |step: usize, axis: usize| program.steps[step].axes.get(axis).map_or("", |axis| axis.value.as_str());
    let value = |step: usize, _: &str, _: Pick| {
        // The inner axis alone makes a difference of 2, the outer one of 4.
        let number = |axis: usize| place(step, axis).parse::<f64>().unwrap_or(0.0);
        Some(if program.steps[step].name == "nn" { 40.0 + 4.0 * number(0) + 2.0 * number(1) } else { 25.0 })
    };
    evaluate_claim(&program.claims[0], &value, &|step| Some(training(place(step, 0), place(step, 1))))
}

#[test]
fn evaluations_of_one_training_are_no_replicates() {
    // Every place has a training of its own: the outermost axis is independent, what lies inside is averaged.
    let all = nested(|a, b| format!("{a} {b}"));
    assert_eq!(all.difference.unwrap().n, 2);
    assert!(all.detail.starts_with("2 as, difference 14 "), "{}", all.detail);
    // The outer axis trains nothing anew.
    let inner = nested(|_, b| b.to_owned());
    assert_eq!((inner.difference.unwrap().n, inner.pairs.clone()), (2, vec![13.0, 15.0]));
    assert!(inner.detail.starts_with("2 bs, ") && inner.detail.ends_with(", evaluations along a averaged first"));
    // One training, evaluated again and again.
    let one = nested(|_, _| "one".to_owned());
    assert_eq!((one.outcome, one.single, one.pairs), (Outcome::Undecided, true, vec![14.0]));
    assert_eq!(one.detail, "difference 14, one training evaluated 4 times: satisfied, but one training proves nothing");
}

#[test]
fn missing_numbers_are_named() {
    let verdict = decide("a.loss.last > b.loss.last", &[2.0, 3.0], &[Some(1.0), None]);
    assert_eq!(verdict.outcome, Outcome::Undecided);
    assert_eq!(verdict.missing, ["b.loss.last (seed=2)"]);
    let nan = decide("a.loss.last > b.loss.last", &[2.0, f64::NAN], &some(&[1.0, 1.0]));
    assert_eq!(nan.outcome, Outcome::Undecided);
    let zero = decide("a.loss.last / b.loss.last > 1", &[2.0, 3.0], &some(&[0.0, 0.0]));
    assert_eq!(zero.outcome, Outcome::Undecided);
}

#[test]
fn common_replicates_are_paired_and_said() {
    let verdict = decide("a.loss.last > b.loss.last", &[2.0, 3.0, 4.0], &some(&[1.0, 1.5]));
    assert_eq!(verdict.difference.unwrap().n, 2);
    assert!(verdict.detail.ends_with("paired on the 2 common replicates only (seed=1; seed=2)"), "{}", verdict.detail);
}

#[test]
fn every_comparison_must_hold() {
    let both = "a.loss.last > b.loss.last and a.loss.last > 100";
    assert_eq!(decide(both, &[2.0, 2.1], &some(&[1.0, 1.1])).outcome, Outcome::Fails);
    let one = decide("mean(a.loss.last, 4) > max(b.loss.last, 1)", &[2.0, 2.0], &some(&[1.0, 1.5]));
    assert_eq!(one.difference.unwrap().mean, 1.75);
}

#[test]
fn percentages_are_points() {
    for text in ["a.loss.last > 30", "a.loss.last > 30%"] {
        assert_eq!(decide(text, &[31.0, 31.5, 32.0], &some(&[0.0; 3])).outcome, Outcome::Holds, "{text}");
        assert_eq!(decide(text, &[0.5, 0.5, 0.6], &some(&[0.0; 3])).outcome, Outcome::Fails, "{text}");
    }
}

#[test]
fn replicates_in_short() {
    let three = summarise(&[1.0, 2.0, 4.0]);
    assert_eq!((three.n, three.mean), (3, 7.0 / 3.0));
    assert!((three.sd.unwrap() - (7.0f64 / 3.0).sqrt()).abs() < 1e-12);
    assert_eq!(summarise(&[5.0]).sd, None);
    assert!(summarise(&[]).mean.is_nan());
}

#[test]
fn intervals_of_pairs_and_of_independent_samples() {
    // scipy.stats.t.interval(0.95, 2, loc=mean, scale=sem) and ttest_ind(b, a, equal_var=False).confidence_interval().
    let pairs = harness_dsl::paired_interval(&[1.0, 2.5, 0.5]).unwrap();
    assert!((pairs.low + 1.252_239_172_937_798_4).abs() < 1e-9 && (pairs.high - 3.918_905_839_604_464_7).abs() < 1e-9);
    let welch = harness_dsl::welch_interval(&[26.1, 25.4, 27.0, 26.2], &[28.0, 29.5, 27.1]).unwrap();
    assert!((welch.mean - 2.025).abs() < 1e-12 && welch.n == 7);
    assert!((welch.low + 0.493_705_451_975_516_4).abs() < 1e-6, "{welch:?}");
    assert!((welch.high - 4.543_705_451_975_514).abs() < 1e-6, "{welch:?}");
    assert_eq!(harness_dsl::paired_interval(&[1.0]), None);
    assert_eq!(harness_dsl::welch_interval(&[1.0], &[1.0, 2.0]), None);
    assert_eq!(harness_dsl::welch_interval(&[1.0, 1.0], &[2.0, 2.0]).map(|i| (i.low, i.high)), Some((1.0, 1.0)));
}
