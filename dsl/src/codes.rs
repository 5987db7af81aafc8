//! Every code that a diagnostic may carry, explained with one example.

/// Codes with their explanations, ascending.
pub const EXPLANATIONS: &[(&str, &str)] = &[
    (
        "E0001",
        "A character that the language does not use.\n\n    param lr = 0.3 $\n\nOutside quotes and comments there are names, numbers, texts, paths and the signs\n= { } [ ] ( ) , . .. + - * / < <= > >= == !=. Texts stand in straight double quotes, comments begin with #, and\n`and`, `or`, `not` are words:\n\n    claim “better” { … }      # write \"better\"\n    when !small && k > 1      # write not small and k > 1\n    epochs = 5 // few         # write # few\n\nPasted texts may bring characters that take no room; the message gives their number. A file is UTF-8: one in Latin-1 or\nUTF-16 has to be saved anew.",
    ),
    (
        "E0002",
        "A text is not closed.\n\n    claim \"better { … }\n\nA text ends on its line with a second quote; \\\" is a quote inside it.",
    ),
    ("E0003", "An unknown escape in a text.\n\n    \"a\\qb\"\n\nThere are \\\" \\\\ \\n and \\t."),
    (
        "E0004",
        "A number that cannot be read.\n\n    lr = .3        # write 0.3\n    lr = 3.        # write 3.0\n    time = 12hours # write 12h\n    train = 10k    # write 10_000\n\nA number has digits on both sides of its point. A unit stands right behind it: ms, s, min, h, d for times, B, kB, MB, GB, TB, KiB, MiB, GiB, TiB for sizes; there is none for thousands, but `_` may stand between digits.",
    ),
    ("E0005", "A path that cannot be read.\n\n    path = @\n\nWrite `@root/folder`, or `@\"root/with space\"`."),
    (
        "E0010",
        "Something else was expected here.\n\n    pretrain moco { epochs 5 }          # write epochs = 5\n    pretrain moco-v2 { … }              # names are made of letters, digits and _\n    for x in [1, 2]: …                  # write for x in [1, 2] { … }\n    for x in [1, 2] if x > 1 { … }      # write when x > 1\n    path = /data/pictures               # write \"/data/pictures\"\n\nThe message says what would fit at this place. Reading goes on at the next field or declaration, and what stands in a block whose header is wrong is read as what it is.",
    ),
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
    (
        "E0103",
        "Nothing has this name here.\n\n    encoder = mocoo                       # did you mean `moco`?\n    if mode == quick then 1 else 2        # a text stands in quotes: \"quick\"\n    allow_overlap = True                  # write true\n\nNames are those of steps, params and `let`s anywhere in the program, and of the axes around the place. A bare word that is none of these may stand only where a field takes one of several words.",
    ),
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
    (
        "E0118",
        "An expression that cannot be computed: an operator or a function over values that it is not for.\n\n    let x = \"a\" * 2\n    for a, b in zip([2, 3, 4], [10, 20]) { … }       # one value would be left out\n    let small = mode == 3                            # where `mode` is a text: never equal\n\n`+` adds numbers, durations and sizes and joins texts (also with numbers) and lists; `- * /` are for numbers. Values of different types are never equal, so that comparing them is a mistake and not `false`; `none` may be compared with everything. `zip` pairs lists of one length, and `range(3)` is [0, 1, 2], `range(1, 4)` [1, 2, 3].",
    ),
    ("E0119", "A table that cannot be laid out.\n\n    table t \"Title\" { rows = method, columns = [nn.top1] }"),
    (
        "E0120",
        "A claim that cannot be decided.\n\n    claim \"…\" { nn[moco].top1 == 50 }                              # compared with < <= > >=\n    claim \"…\" { 3 > 2 }                                            # nothing measured\n    claim \"…\" { nn[seed = 1].top1 > nn[seed = 2].top1 }            # no replicate in common\n\nA claim compares numbers that steps measure, within each replicate, and is decided by the interval of the mean difference. So both sides need their numbers along the same `replicate` axes, or one of them none at all.",
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
        "Replicates that are all the same.\n\n    replicate seed in [1, 2, 3] {\n        knn pixels_nn { encoder = pixels, … }      # nothing in it is random\n        pretrain moco { seed = 0, … }              # the same seed for all: leave it out\n    }\n    replicate draw in [1, 2] {\n        replicate seed in [1, 2] { pretrain moco { … } }      # nothing uses `draw`\n    }\n\nA step that draws random numbers takes its seed from the innermost `replicate` around it, unless it sets `seed`. Equal members are computed once, and equal numbers have no spread that says anything: tables and claims count them as one. Put a step that is not random outside the block; let an outer `replicate` set something, such as the `split_seed` of a dataset.",
    ),
    (
        "W0203",
        "Published figures that stand beside nothing: no row of the file has a label of the table's axis.\n\n    table t { rows = method, columns = [svm.map], against = \"reference/transfer.csv\" }",
    ),
    (
        "W0204",
        "A choice by test data.\n\n    linear_probe final { encoder = best(moco, by = nn.top1), test = world.test, … }\n    knn nn { encoder = moco, test = world.test, … }       # in `for lr in …`\n\nThe member that is best on the test data is better there than it would be on other data, and what is reported flatters. Choose by data that nothing is judged on: `holdout` cuts it off a training split. The summary repeats the warning.",
    ),
    (
        "W0205",
        "An axis of `for` that changes nothing: every step in the block is the same for each of its values.\n\n    for lr in [0.03, 0.3] {\n        pretrain moco { optimizer = sgd { lr = 0.1 }, … }      # meant: lr = lr\n    }\n\nThe name behind `for` stands for the value wherever the block writes it, and nowhere else. Members that are the same are computed once and share one result, so the rows of a table along this axis would be equal for no other reason. A step that does not depend on the axis may well stand beside others that do.",
    ),
    (
        "W0206",
        "Replicates that differ in a setting.\n\n    replicate k in [1, 5, 20] { knn nn { k = k, … } }        # write `for k in [1, 5, 20]`\n\n`replicate` is for repetitions: its values are seeds, given to whatever draws random numbers, and its members are averaged, with a spread that decides claims. Three settings are no three repetitions of one, and their spread says nothing of chance. `for` compares settings; inside it, `replicate seed in [1, 2, 3]` repeats each. Fields that say which draw or which part of the data a repetition takes (`split_seed`, `fold`) are as they should be.",
    ),
    (
        "W0207",
        "A `for` over seeds.\n\n    for seed in [1, 2, 3] { pretrain moco { seed = seed, … } }      # write `replicate seed in [1, 2, 3]`\n\n`for` puts its members side by side to compare them, so a table has a row for each seed and a claim has to say which one it means. `replicate` gives each member its seed without being told, tables show mean, standard deviation and n, and claims are decided by the interval over the replicates.",
    ),
    (
        "W0208",
        "A text in which something looks as if it were replaced, and is not.\n\n    for n in [10, 20] { command c { run = [\"tool\", \"--size={n}\"] } }      # write \"--size=\" + n\n    image_folder photos { path = \"~/photos\" }                           # write @photos\n\nTexts are taken as they are. `+` joins texts and numbers: `root + \"/train\"`, `\"size-\" + n`. In the fields of a `command` there are placeholders, which are replaced when the program starts: `{inputs.NAME}`, `{outputs.NAME}` and `{seed}`. Paths know neither `~` nor variables of a shell: what differs between machines is a root, named in harness.toml and written `@root/place`.",
    ),
    (
        "W0209",
        "A claim that can hardly mean what it says.\n\n    claim \"half are right\" { nn.top1 > 0.5 }       # write 50, or 50%\n    claim \"all are right\"  { nn.top1 > 150 }       # a share ends at 100\n    claim \"helps\"          { nn[moco].top1 > moco.loss.last }\n\nShares (accuracies, mIoU, J&F) are in percent in claims as in tables: 0.5 is half a percent, and of a difference half a point, which may be meant there. A number written with `%` says so and is not warned of: `0.5%`. The other causes are numbers of different units on the two sides, and the same number on both.",
    ),
    (
        "W0210",
        "An axis is compared with a text that is none of its values.\n\n    for s in [\"cosine\", \"step\"] when s != \"stpe\" { … }      # did you mean \"step\"?\n\nThe comparison has the same answer for every member. It is looked at where the values are written out as a list; a list that a param or a function gives may have the value another time.",
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
