//! How long a file of ten thousand steps takes: to be read, checked and laid out, and to be asked about by an editor
//! after an edit. `cargo bench -p harness-dsl`.
//!
//! Medians on two shared cores of an AMD EPYC, with the allocator of `harness`: 128 ms to check the written file (1.1 MB), 115 ms
//! the swept one, 132 ms to lay it out; after an edit 6 ms to hover and 8 ms to complete, where 20 ms are aimed at.

use harness_dsl::ide::{Names, Page};
use harness_dsl::{Catalog, Field, Kind, Loaded, Loader, Metric, Output, Sources, Type, Variant, check, format};

/// As in `harness` itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

struct Nothing;

impl Loader for Nothing {
    fn load(&self, _from: Option<&str>, path: &str) -> Result<Loaded, String> {
        Err(format!("{path} is not there"))
    }
}

fn field(name: &str, ty: Type, required: bool) -> Field {
    Field { name: name.into(), doc: "What it is.".into(), ty, default: None, required, observes: false }
}

/// A catalog of the size of a real kind.
fn catalog() -> Catalog {
    let number = || Type::Float { min: Some(0.0), max: None, exclusive_min: true };
    let input = |artifact: &str| Type::Input(vec![artifact.into()]);
    let output =
        |name: &str, artifact: &str| Output { name: name.into(), artifact: artifact.into(), doc: String::new() };
    let metric = |name: &str| Metric {
        name: name.into(),
        doc: String::new(),
        series: false,
        higher_is_better: true,
        on_test: true,
        floor: None,
        floor_label: None,
        percent: true,
    };
    let optimizer = Variant {
        name: "sgd".into(),
        doc: String::new(),
        fields: vec![field("lr", number(), true), field("momentum", number(), false)],
    };
    let scenes = Kind {
        name: "scenes".into(),
        outputs: vec![output("train", "images"), output("holdout", "images"), output("test", "images")],
        ..Kind::default()
    };
    let pretrain = Kind {
        name: "pretrain".into(),
        fields: vec![
            field("data", input("images"), true),
            field("epochs", Type::Int { min: Some(1), max: None }, false),
            field("batch", Type::Int { min: Some(1), max: None }, false),
            field("optimizer", Type::Tagged(vec![optimizer]), false),
            field("seed", Type::Int { min: Some(0), max: None }, false),
        ],
        outputs: vec![output("encoder", "encoder")],
        random: true,
        ..Kind::default()
    };
    let knn = Kind {
        name: "knn".into(),
        fields: vec![
            field("encoder", input("encoder"), true),
            field("train", input("images"), true),
            field("test", input("images"), true),
            field("k", Type::Int { min: Some(1), max: None }, false),
        ],
        metrics: vec![metric("top1")],
        ..Kind::default()
    };
    Catalog { kinds: vec![scenes, pretrain, knn] }
}

/// Ten thousand steps, each written out.
fn written() -> String {
    let mut text = String::from("param epochs = 200\nscenes world {}\n");
    for at in 0..5000 {
        text.push_str(&format!(
            "\npretrain moco{at} {{\n    data      = world.train\n    epochs    = epochs # as all of them\n    batch     = 256\n    \
             optimizer = sgd {{ lr = 0.{at:04}1, momentum = 0.9 }}\n}}\nknn nn{at} {{ encoder = moco{at}, train = world.holdout, test = world.test, k = 20 }}\n"
        ));
    }
    text
}

/// Ten thousand steps in three axes.
fn swept() -> String {
    "scenes world {}
replicate seed in range(1, 11) { for lr in range(1, 101) { for batch in [64, 128, 256, 512, 1024] {
    pretrain moco { data = world.train, batch = batch, optimizer = sgd { lr = lr / 100 } }
    knn nn { encoder = moco, train = world.holdout, test = world.test }
} } }
claim \"c\" { nn[lr = 3, batch = 64].top1 > nn[lr = 4, batch = 64].top1 }\n"
        .to_owned()
}

fn checked(bencher: divan::Bencher<'_, '_>, text: &str) {
    let catalog = catalog();
    bencher.bench(|| {
        let checked = check("a.exp", text, &Nothing, &catalog, &Vec::new());
        assert!(checked.program.is_some(), "{:?}", checked.diagnostics.first());
        checked
    });
}

#[divan::bench]
fn check_written(bencher: divan::Bencher<'_, '_>) {
    checked(bencher, &written());
}

#[divan::bench]
fn check_swept(bencher: divan::Bencher<'_, '_>) {
    checked(bencher, &swept());
}

#[divan::bench]
fn lay_out(bencher: divan::Bencher<'_, '_>) {
    let text = written();
    bencher.bench(|| format("a.exp", &text).is_ok());
}

/// What an editor waits for: a letter is typed near the end of the text, and something is asked of the place.
fn edited<T>(bencher: divan::Bencher<'_, '_>, ask: impl Fn(&Page, &Names, usize, &Catalog) -> T + Sync, word: &str) {
    let catalog = catalog();
    let text = written();
    let mut sources = Sources::default();
    sources.add("a.exp", &*text);
    let before = Names::of(&sources);
    let at = text.rfind(word).expect("the word is there") + 1;
    bencher.with_inputs(|| Page::new(&*text)).bench_values(|page| {
        let page = page.edited(at, at + 1, &text[at..=at]);
        let names = before.with_page(&page);
        let answer = ask(&page, &names, at, &catalog);
        // Nobody waits for what is thrown away.
        (page, names, answer)
    });
}

/// An editor that always sends the whole text.
#[divan::bench]
fn replace_the_whole_text(bencher: divan::Bencher<'_, '_>) {
    let text = written();
    let at = text.rfind("momentum").expect("the word is there");
    let typed = format!("{}x{}", &text[..at], &text[at..]);
    bencher.with_inputs(|| Page::new(&*text)).bench_values(|page| page.replaced(&typed));
}

#[divan::bench]
fn hover_after_an_edit(bencher: divan::Bencher<'_, '_>) {
    edited(
        bencher,
        |page, names, at, catalog| page.hover(at, names, 0, catalog).expect("there is something"),
        "momentum",
    );
}

#[divan::bench]
fn complete_after_an_edit(bencher: divan::Bencher<'_, '_>) {
    edited(bencher, |page, names, at, catalog| page.complete(at, names, 0, catalog).0.len(), "moco4999");
}
