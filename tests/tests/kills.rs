//! Runs that are killed at any moment, fifty times. No torch. The long version is in soak.rs.

use harness_tests::trial::{Dice, STEPS, Trial};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[test]
fn fifty_kills_lose_nothing_and_leave_nothing_to_repair() {
    let (mut trial, mut dice) = (Trial::new(), Dice::new(50));
    let start = Instant::now();
    trial.finish(0, &BTreeSet::new());
    // Within a run or just behind it, however fast this machine is.
    let whole = start.elapsed().as_micros() as u64;
    let mut round = 1;
    for kill in 0..50 {
        trial.kill(round, Duration::from_micros(dice.below(whole * 5 / 4)), &[]);
        // Three kills to a round, the fourth run of it ends.
        if kill % 3 == 2 {
            trial.finish(round, &BTreeSet::new());
            round += 1;
        }
    }
    let last = round;
    for round in 0..=last {
        let ran = trial.finish(round, &BTreeSet::new());
        // The last round is new.
        assert!(round == last || ran.counts() == [0, STEPS, 0, 0], "round {round}: {:?}", ran.counts());
    }
    trial.is_fine();
    trial.test.harness(&["cache", "verify"]).code(0);
}
