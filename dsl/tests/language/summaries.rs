//! What the summary is to show: figures, published figures beside tables, axes that go along and are filtered.

use crate::catalog::{check_with, codes, program, step};
use harness_dsl::Program;

const STUDY: &str = include_str!("study.exp");

fn labels(program: &Program) -> Vec<&str> {
    program.steps.iter().map(|step| step.label.as_str()).collect()
}

#[test]
fn figures_draw_curves_bars_and_points() {
    let program = program(&format!(
        "{STUDY}
        figure learning \"While pretraining\" {{
            x = moco.epoch
            y = [moco.knn_top1, crops.knn_top1]
        }}
        figure bars {{ y = nn.top1 }}
        figure trade \"One against the other\" {{ x = video.jf, y = [nn.top1] }}"
    ));
    let [learning, bars, trade] = program.figures.as_slice() else { panic!("{:?}", program.figures) };
    assert!(learning.curves && !bars.curves && !trade.curves);
    assert_eq!((learning.title.as_str(), bars.title.as_str()), ("While pretraining", "bars"));
    let drawn = |figure: &harness_dsl::Figure| -> Vec<(String, usize, usize)> {
        figure.drawings.iter().map(|d| (d.label.clone(), d.cells.len(), d.x.len())).collect()
    };
    assert_eq!(drawn(learning), [("moco.knn_top1".into(), 3, 0), ("crops.knn_top1".into(), 3, 0)]);
    assert_eq!(drawn(bars), [("moco".into(), 3, 0), ("crops".into(), 3, 0), ("untrained".into(), 3, 0)]);
    // `video` knows two of the three, so two points can be drawn.
    assert_eq!(drawn(trade), [("moco".into(), 3, 3), ("crops".into(), 3, 3)]);
    assert_eq!(trade.over.as_ref().map(|column| column.label.as_str()), Some("video.jf"));
}

#[test]
fn a_baseline_is_taken_from_the_others_within_each_replicate() {
    let program = program(&format!("{STUDY}\nfigure gain {{ y = nn.top1, baseline = untrained }}"));
    let [gain] = program.figures.as_slice() else { panic!("{:?}", program.figures) };
    assert_eq!(gain.baseline.as_deref(), Some("untrained"));
    let labels: Vec<&str> = gain.drawings.iter().map(|drawing| drawing.label.as_str()).collect();
    assert!(!labels.is_empty() && labels.iter().all(|label| !label.contains("untrained")), "{labels:?}");
    for drawing in &gain.drawings {
        let replicates = |cells: &[harness_dsl::CellRef]| -> Vec<Option<String>> {
            cells.iter().map(|cell| cell.replicate.clone()).collect()
        };
        assert_eq!(replicates(&drawing.cells), replicates(&drawing.x));
        for cell in &drawing.x {
            assert!(program.steps[cell.step].label.contains("untrained"), "{}", program.steps[cell.step].label);
        }
    }
}

#[test]
fn figures_follow_steps_that_are_put_in() {
    let before = program(&format!(
        "{STUDY}\nfigure bars {{ y = nn.top1 }}\nfigure gain {{ y = nn.top1, baseline = untrained }}"
    ));
    // One step more at the front.
    let mut steps = before.steps.clone();
    steps.insert(0, before.steps[0].clone());
    let place: Vec<usize> = (1..=before.steps.len()).collect();
    let after = before.clone().with_steps(steps, &place);
    let cells = |program: &harness_dsl::Program| -> Vec<usize> {
        let drawings = program.figures.iter().flat_map(|figure| &figure.drawings);
        drawings.flat_map(|drawing| drawing.cells.iter().chain(&drawing.x)).map(|cell| cell.step).collect()
    };
    let moved: Vec<usize> = cells(&before).iter().map(|step| step + 1).collect();
    assert!(!moved.is_empty());
    assert_eq!(cells(&after), moved);
}

#[test]
fn figures_that_cannot_be_drawn_are_refused() {
    let with = |figure: &str| codes(&format!("{STUDY}\n{figure}"));
    assert_eq!(with("figure f {}"), ["E0124"]);
    assert_eq!(with("figure f { y = [moco.knn_top1, nn.top1] }"), ["E0124"]);
    assert_eq!(with("figure f { y = moco.knn_top1, x = 3 }"), ["E0124"]);
    assert_eq!(with("figure f { y = moco.knn_top1, z = 3 }"), ["E0124"]);
    assert_eq!(with("figure f { y = moco.knn_topp }"), ["E0111"]);
    assert_eq!(with("figure f { y = nn.top1, baseline = nobody }"), ["E0124"]);
    assert_eq!(with("figure f { y = moco.knn_top1, baseline = untrained }"), ["E0124"]);
    assert_eq!(with("figure f { y = nn.top1, x = video.jf, baseline = untrained }"), ["E0124"]);
    assert_eq!(with("figure f { y = nn.top1 }\nfigure f { y = nn.top1 }"), ["E0102"]);
    assert_eq!(with("for a in [1] { figure f { y = nn.top1 } }"), ["E0124"]);
}

#[test]
fn published_figures_stand_beside_a_table() {
    let text =
        format!("{STUDY}\ntable other {{ rows = method, columns = [nn.top1, video.jf], against = \"ref.csv\" }}");
    let check = |csv: &'static str| check_with(&text, &[("ref.csv", csv)], &[]);
    let found = check("# as published\nmethod, video.jf, source\nmoco, 63.2, zoo\nelse, , zoo\n");
    assert_eq!(found.diagnostics, []);
    let program = found.program.unwrap();
    let published = program.tables[1].published.as_ref().unwrap();
    let rows: Vec<_> = published.rows.iter().map(|row| (row.label.as_str(), row.values.as_slice())).collect();
    assert_eq!(rows, [("moco", [None, Some(63.2)].as_slice()), ("else", &[None, None])]);
    assert_eq!(published.rows[0].source, "zoo");

    let codes = |csv| check(csv).diagnostics.iter().map(|d| d.code).collect::<Vec<_>>();
    assert_eq!(codes("method,nn.top1\nmoco,high"), ["E0123"]);
    assert_eq!(codes("method,nn.top1\nmoco,1\nmoco,2"), ["E0123"]);
    assert_eq!(codes("method,nn.top1\nmoco"), ["E0123"]);
    assert_eq!(codes("way,nn.top1\nmoco,1"), ["E0123"]);
    assert_eq!(codes("method,nn.top5\nmoco,1"), ["E0123"]);
    assert_eq!(codes("method,nn.top1\nsimclr,1"), ["W0203"]);
    assert_eq!(check_with(&text, &[], &[]).diagnostics[0].code, "E0123");

    // What they stand beside may depend on a param; without a file there is none to read.
    let text = text.replace("\"ref.csv\"", "if small then none else \"ref.csv\"") + "\nparam small = true";
    let found = check_with(&text, &[], &[]);
    assert_eq!(found.diagnostics, []);
    assert_eq!(found.program.unwrap().tables[1].published, None);
    assert_eq!(check_with(&text, &[], &[("small", "false")]).diagnostics[0].code, "E0123");
}

#[test]
fn names_go_along_with_an_axis() {
    let program = program(
        "let methods = [\"a\", \"b\"]
        scenes world {}
        for name, count in zip(methods, [10, 20]) {
            scenes some { train = count }
            knn nn { encoder = random_one, train = some.train, test = world.test }
        }
        encoder random_one { source = random }",
    );
    assert_eq!(step(&program, "some[name=a]").params["train"], 10);
    assert_eq!(step(&program, "some[name=b]").params["train"], 20);
    assert_eq!(codes("for a, b in [1, 2] { scenes s {} }"), ["E0114", "E0114"]);
    assert_eq!(codes("for a, b in [[1, 2, 3]] { scenes s {} }"), ["E0114"]);
    assert_eq!(codes("for a, b in [[1, 2]] { scenes s { train = c } }"), ["E0103"]);
}

#[test]
fn axes_are_filtered() {
    let program = program(
        "for train in [1, 2, 3] {
            for classes in [2, 3, 4] when classes > train and classes != 4 { scenes s { train = train, classes = classes } }
        }",
    );
    assert_eq!(labels(&program), ["s[train=1, classes=2]", "s[train=1, classes=3]", "s[train=2, classes=3]"]);
    assert_eq!(codes("for a in [1] when a > 1 { scenes s {} }"), ["E0114"]);
    assert_eq!(codes("for a in [1] when a { scenes s {} }"), ["E0114"]);
}
