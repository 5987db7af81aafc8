//! `name@epoch`: what a step gave after an epoch that it keeps.

use crate::catalog::{codes, program, shown, step};

const PRETRAINED: &str = "scenes w {}\npretrain moco { data = w.train, epochs = 9, keep = [3, 6] }\n";

#[test]
fn a_kept_epoch_is_an_output() {
    let program = program(&format!("{PRETRAINED}knn nn {{ encoder = moco@3, train = w.train, test = w.test }}"));
    let nn = step(&program, "nn");
    assert_eq!(nn.params["encoder"]["$ref"]["output"], "encoder@3");
    assert_eq!(nn.inputs.len(), 2);
}

#[test]
fn epochs_lie_along_axes_and_replicates() {
    let text = "scenes w {}
        replicate seed in [1, 2] { pretrain moco { data = w.train, keep = [3, 6] } }
        replicate seed in [1, 2] {
            for at in [moco@3, moco@6, moco] { knn nn { encoder = at, train = w.train, test = w.test } }
        }
        knn one { encoder = moco[seed = 2]@6, train = w.train, test = w.test }
        table t { rows = at, columns = [nn.top1] }
        claim \"later is better\" { nn[moco@6].top1 > nn[moco@3].top1 }";
    let program = program(text);
    let output = |label: &str| step(&program, label).params["encoder"]["$ref"]["output"].clone();
    assert_eq!(output("nn[seed=1, at=moco@3]"), "encoder@3");
    assert_eq!(output("nn[seed=2, at=moco]"), "encoder");
    assert_eq!(output("one"), "encoder@6");
    let rows: Vec<&str> = program.tables[0].rows.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(rows, ["moco@3", "moco@6", "moco"]);
}

#[test]
fn what_is_not_kept_cannot_be_taken() {
    let used = |encoder: &str| format!("{PRETRAINED}knn nn {{ encoder = {encoder}, train = w.train, test = w.test }}");
    let said = shown(&used("moco@4"));
    for word in ["E0110", "`moco` does not keep what it was after epoch 4", "kept are @3, @6", "add 4 to `keep`"] {
        assert!(said.contains(word), "{word} is missing:\n{said}");
    }
    assert!(
        shown("scenes w {}\npretrain m { data = w }\nknn n { encoder = m@4, train = w, test = w.test }")
            .contains("write `keep = [4]` in `m`")
    );
    assert!(shown(&used("w@4")).contains("this kind of step keeps none"));
    // Along a `from`, the base's list counts.
    assert_eq!(
        codes(&format!("{PRETRAINED}pretrain b from moco {{}}\nknn n {{ encoder = b@6, train = w, test = w.test }}")),
        Vec::<&str>::new()
    );
    assert_eq!(codes(&used("moco@late")), ["E0013"]);
    assert_eq!(codes(&used("moco@3/x")), ["E0013"]);
}

#[test]
fn a_text_with_epochs_is_laid_out_and_stays() {
    let text = "knn a {\n    encoder = moco@50\n    other   = moco[seed = 1]@50\n}\n";
    assert_eq!(harness_dsl::format("a.exp", text).unwrap(), text);
}
