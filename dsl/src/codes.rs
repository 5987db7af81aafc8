//! Every code that a diagnostic may carry, explained with one example.

/// Codes with their explanations, ascending.
pub const EXPLANATIONS: &[(&str, &str)] = &[
    (
        "E0001",
        "A character that the language does not use.\n\n    param lr = 0.3 $\n\nOutside quotes and comments there are names, numbers, texts, paths and the signs\n= { } [ ] ( ) , . .. + - * / < <= > >= == !=.",
    ),
    (
        "E0002",
        "A text is not closed.\n\n    claim \"better { … }\n\nA text ends on its line with a second quote; \\\" is a quote inside it.",
    ),
    ("E0003", "An unknown escape in a text.\n\n    \"a\\qb\"\n\nThere are \\\" \\\\ \\n and \\t."),
    (
        "E0004",
        "A number that cannot be read.\n\n    lr = .3        # write 0.3\n    lr = 3.        # write 3.0\n\nA number has digits on both sides of its point; units are s, min, h, GB, GiB and so on.",
    ),
    ("E0005", "A path that cannot be read.\n\n    path = @\n\nWrite `@root/folder`, or `@\"root/with space\"`."),
    ("E0010", "Something else was expected here.\n\n    pretrain moco { epochs 5 }     # write epochs = 5"),
    ("E0011", "A bracket is not closed.\n\n    for seed in [1, 2 { … }"),
    ("E0012", "The text is nested too deep. Give a part of it a name with `let`."),
    (
        "E0013",
        "Behind a step, `@` stands before an epoch.\n\n    encoder = moco@last     # write moco@50, and `keep = [50]` in `moco`\n\nA path stands apart from what is before it: `path = @coco/train2017`.",
    ),
    (
        "E0015",
        "Comparisons do not chain.\n\n    claim \"between\" { 1 < nn.top1 < 3 }      # write 1 < nn.top1 and nn.top1 < 3",
    ),
    (
        "E0016",
        "What cannot be a name: a word of the language, or more than 128 letters.\n\n    param if = 3\n\nNever names are if, then, else, and, or, not, true, false, none and in.",
    ),
    (
        "E0101",
        "There is no such kind of step.\n\n    pretain moco { … }      # did you mean `pretrain`?\n\n`harness describe` lists the kinds.",
    ),
    (
        "E0102",
        "A name is declared twice.\n\n    knn nn { … }\n    knn nn { … }\n\nSteps, params and tables each have a name of their own in the whole program.",
    ),
    ("E0103", "Nothing has this name here.\n\n    encoder = mocoo         # did you mean `moco`?"),
    (
        "E0104",
        "There is no such field.\n\n    contrast = moco { temprature = 0.2 }   # did you mean `temperature`?\n\n`harness describe KIND` lists the fields.",
    ),
    (
        "E0105",
        "A field that has no default is missing.\n\n    knn nn { encoder = moco }              # needs `train` and `test`",
    ),
    ("E0106", "A value of another type was expected.\n\n    epochs = \"ten\"          # an integer"),
    ("E0107", "The number is out of range.\n\n    momentum = 1.5          # from 0 to 1"),
    ("E0108", "The field does not know this word.\n\n    schedule = cosin        # did you mean `cosine`?"),
    (
        "E0109",
        "The step gives something else than the field takes.\n\n    knn nn { train = moco, … }   # `train` takes pictures, and `moco` gives an encoder",
    ),
    ("E0110", "The step has no such output.\n\n    train = world.trian     # did you mean `train`?"),
    (
        "E0111",
        "The step measures no such number, or a curve stands where one number is needed.\n\n    claim \"…\" { moco.knn_top1 > 0.5 }       # write moco.knn_top1.last",
    ),
    (
        "E0112",
        "A family has several members here, and one is needed.\n\n    claim \"…\" { nn.top1 > 0.5 }             # write nn[moco].top1\n\nInside a block references line up with the block's axis by themselves.",
    ),
    ("E0113", "The family has no such member.\n\n    nn[mocoo].top1"),
    (
        "E0114",
        "An axis cannot run over this.\n\n    replicate seed in [\"a\"] { … }   # seeds are integers from 0\n\nValues of an axis are numbers, texts or steps, each once.",
    ),
    ("E0115", "Something is defined by itself.\n\n    let a = b\n    let b = a"),
    ("E0116", "A file cannot be imported: it cannot be read, or the imports form a circle."),
    (
        "E0117",
        "A param on the command line that does not exist, or of another type than its default.\n\n    -p epochs=ten",
    ),
    ("E0118", "An expression that cannot be computed.\n\n    let x = \"a\" * 2"),
    ("E0119", "A table that cannot be laid out.\n\n    table t \"Title\" { rows = method, columns = [nn.top1] }"),
    (
        "E0120",
        "A claim that cannot be decided.\n\n    claim \"…\" { nn[moco].top1 == 0.5 }      # measured numbers are compared with < <= > >=",
    ),
    ("E0121", "The program is too large to be written out: too many steps, or names that multiply each other."),
    ("E0122", "A field is set twice.\n\n    epochs = 5\n    epochs = 6"),
    (
        "E0123",
        "Published figures cannot be read.\n\n    table t { rows = method, columns = [svm.map], against = \"reference/transfer.csv\" }\n\nThe file is CSV: its first line names the axis of the rows and the columns as the table writes them (`method,svm.map,source`), every other line is a row; shares are in percent, cells may be empty, lines that begin with # are comments.",
    ),
    (
        "E0124",
        "A figure that cannot be drawn.\n\n    figure f { y = [moco.knn_top1, moco.loss.last] }\n\n`y` are curves, drawn over what they count, or numbers, drawn as bars, with `x` as points, or with `baseline` (a member) as differences from it within each replicate.",
    ),
    (
        "E0125",
        "A choice that cannot be made.\n\n    for lr in [0.01, 0.1] {\n        pretrain moco { … }\n        knn val { encoder = moco, train = part.train, test = part.holdout }\n    }\n    linear_probe final { encoder = best(moco, by = val.top1), … }\n\n`best(family, by = metric)` stands for the member with the best number along the family's `for` axes. The number is one of the family's own (`by = loss.last`) or of a family along the same axes (`by = val.top1`). Replicates are averaged over and never chosen: inside `replicate` each replicate chooses for itself; in a table or claim the mean over the replicates chooses one member for all of them. A number that a `command` measures is better when it is more; `by = -tool.loss` says the contrary.",
    ),
    (
        "E0126",
        "A step is judged on what was learned from.\n\n    pretrain moco { data = world.train, … }\n    knn nn { encoder = moco, train = world.probe, test = world.train }\n\nThe same split is in `test` and in something that the step or its encoder learned from. Files that two different splits share are found by their content when the program runs. Where that is what is studied, `allow_overlap = true` makes it a warning.",
    ),
    (
        "E0401",
        "A field does not fit the others.\n\n    contrast = moco { queue = 1000 }, batch = 256      # a queue is filled batch by batch\n\nTypes and ranges were right, but the kind of step refuses the combination: a queue that is no multiple of the batch, a crop larger than the resized picture. The message says what would fit.",
    ),
    (
        "W0201",
        "A param that nothing uses: `-p` would change its value and nothing else.\n\n    param epochs = 200\n    pretrain moco { epochs = 100, … }        # meant: epochs = epochs",
    ),
    (
        "W0202",
        "Replicates that are all the same, because nothing in the step is random, nor in what it takes.\n\n    replicate seed in [1, 2, 3] {\n        knn pixels_nn { encoder = pixels, … }\n    }\n\nThree equal numbers have no spread that says anything. Put the step outside the block.",
    ),
    (
        "W0203",
        "Published figures that stand beside nothing: no row of the file has a label of the table's axis.\n\n    table t { rows = method, columns = [svm.map], against = \"reference/transfer.csv\" }",
    ),
    (
        "W0204",
        "A choice by test data.\n\n    linear_probe final { encoder = best(moco, by = nn.top1), test = world.test, … }\n    knn nn { encoder = moco, test = world.test, … }       # in `for lr in …`\n\nThe member that is best on the test data is better there than it would be on other data, and what is reported flatters. Choose by data that nothing is judged on: `holdout` cuts it off a training split. The summary repeats the warning.",
    ),
];

/// The explanation of a code, such as `E0107`; capital or small letters.
pub fn explain(code: &str) -> Option<&'static str> {
    EXPLANATIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_in_the_sources_is_explained_and_no_other() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut text = String::new();
        for folder in [folder.clone(), folder.join("checker")] {
            #[allow(clippy::disallowed_methods, reason = "the test reads the crate's own sources")]
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("codes.rs") {
                    text += &std::fs::read_to_string(path).unwrap();
                }
            }
        }
        for (code, _) in EXPLANATIONS {
            // What a kind says against its own fields is reported by those who know the kinds.
            let reported = text.contains(&format!("\"{code}\"")) || *code == "E0401";
            assert!(reported, "{code} is explained and never reported");
        }
        for letter in ["E0", "W0"] {
            for part in text.split(&format!("\"{letter}")).skip(1) {
                let code = format!("{letter}{}", part.split('"').next().unwrap());
                assert!(explain(&code).is_some(), "{code} is not explained");
            }
        }
        assert!(EXPLANATIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
