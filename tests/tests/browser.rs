//! The pages in a real browser: no error on the console, nothing fetched, nothing that the page's own policy refuses;
//! tables that sort, figures that answer the mouse, a page of 200 steps and 2,000 pictures.

use harness_report::{
    Cell, CellValue, Claim, Column, Costs, Difference, Drawing, Figure, Gallery, Group, Interval, Line, Mark, Picture,
    Piece, Row, StepRow, Summary, Table, Templates, render_html,
};
use harness_tests::Test;
use harness_tests::browser::Browser;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a class, a step or a file may be called.
const EVIL: &str = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">";

const TEXT: &str = r#"
let text = { text = { kind = file, path = "out" } }
command a { run = ["sh", "-c", "printf 1 > out"], outputs = text }
command b { run = ["sh", "-c", "printf 3 > out"], outputs = text }
replicate seed in [1, 2, 4] {
    for method in [a, b] {
        command nn { run = ["sh", "-c", "printf '{\"top1\": 0.%s%s}' $(cat inputs/m) {seed} > metrics.json"], inputs = { m = method.text }, metrics = ["top1"] }
    }
}
table t "Numbers" { rows = method, columns = [nn.top1] }
figure f "Bars" { y = nn.top1 }
claim "b beats a" { nn[b].top1 > nn[a].top1 }
"#;

fn write(dir: &Path, name: &str, summary: &Summary) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, render_html(summary, &Templates::default()).unwrap()).unwrap();
    path
}

/// A page with a figure of every kind and a table.
fn rich() -> Summary {
    let line = |label: &str, seed: u32, rise: f64| Line {
        label: label.into(),
        replicate: Some(format!("seed={seed}")),
        x: (1..=40).map(f64::from).collect(),
        y: (1..=40).map(|x| rise * f64::from(x).ln() / 10.0 + 0.01 * f64::from(seed)).collect(),
    };
    let mark = |label: &str, series: &str, at: f64| Mark {
        label: label.into(),
        series: series.into(),
        values: vec![at, at + 0.02, at + 0.05],
        x: vec![0.6 - at, 0.61 - at, 0.6 - at],
    };
    let figure = |name: &str, percent: bool, drawing: Drawing| Figure {
        name: name.into(),
        title: format!("The figure {name}"),
        declared: true,
        percent,
        y_label: "top1".into(),
        x_label: "epoch".into(),
        drawing,
        ..Figure::default()
    };
    let classes: Vec<String> = vec!["cat".into(), "dog".into(), EVIL.into()];
    let marks = vec![mark("moco", "nn.top1", 0.3), mark(EVIL, "nn.top1", 0.2), mark("moco", "probe.top1", 0.35)];
    let difference = |label: &str, mean: f64, series: &str| Difference {
        label: label.into(),
        series: series.into(),
        interval: Some(Interval { mean, low: mean - 1.5, high: mean + 1.5, n: 3 }),
        values: vec![mean - 0.5, mean, mean + 0.5],
    };
    let figures = vec![
        figure(
            "learning",
            true,
            Drawing::Curves {
                lines: vec![
                    line("moco", 1, 1.0),
                    line("moco", 2, 1.1),
                    line("moco", 3, 0.9),
                    line(EVIL, 1, 0.5),
                    line(EVIL, 2, 0.6),
                ],
            },
        ),
        figure("bars", true, Drawing::Bars { marks: marks.clone() }),
        figure("trade", true, Drawing::Points { x_percent: true, marks }),
        figure(
            "paired",
            false,
            Drawing::Differences {
                rows: vec![difference("moco beats random", 3.0, "holds"), difference(EVIL, 0.2, "undecided")],
            },
        ),
        figure(
            "classes",
            true,
            Drawing::Classes {
                classes: classes.clone(),
                groups: vec![Group { label: "moco".into(), values: vec![vec![0.5, 0.4, 0.1], vec![0.55, 0.45, 0.12]] }],
            },
        ),
        figure(
            "tail",
            false,
            Drawing::Histogram {
                classes: (0..100).map(|class| format!("class {class}")).collect(),
                counts: (0..100).map(|class| (500.0 * 0.955_f64.powi(class)).round()).collect(),
            },
        ),
        figure(
            "confusion",
            false,
            Drawing::Confusion {
                classes,
                counts: vec![vec![40.0, 9.0, 1.0], vec![11.0, 33.0, 6.0], vec![2.0, 3.0, 45.0]],
            },
        ),
    ];
    let cell = |values: &[f64]| Cell {
        values: values
            .iter()
            .enumerate()
            .map(|(seed, value)| CellValue {
                value: Some(*value),
                replicate: Some(format!("seed={seed}")),
                ..CellValue::default()
            })
            .collect(),
        ..Cell::default()
    };
    let row = |label: &str, values: &[f64], floor: bool| Row {
        label: label.into(),
        floor,
        elsewhere: false,
        cells: vec![cell(values)],
    };
    let table = Table {
        name: "transfer".into(),
        title: EVIL.into(),
        row_axis: "method".into(),
        columns: vec![Column { label: "nn.top1".into(), percent: true, higher_is_better: true, ..Column::default() }],
        rows: vec![
            row("b", &[0.2, 0.3], false),
            row("a", &[0.5, 0.6], false),
            row("c", &[0.05, 0.07], false),
            row("trivial predictor", &[0.9], true),
        ],
        published: String::new(),
    };
    Summary {
        title: "rich".into(),
        about: EVIL.into(),
        source_text: EVIL.into(),
        source: vec![Piece { text: EVIL.into(), class: "name".into(), link: "#step-0".into(), title: EVIL.into() }],
        claims: vec![Claim { text: EVIL.into(), outcome: "holds".into(), before: Some(true), ..Claim::default() }],
        tables: vec![table],
        figures,
        steps: vec![StepRow {
            label: EVIL.into(),
            error: Some(EVIL.into()),
            status: "failed".into(),
            ..StepRow::default()
        }],
        steps_left_out: 0,
        warnings: vec![EVIL.into()],
        costs: Costs { seconds: 10.0, asked: 1, ..Costs::default() },
        ..Summary::default()
    }
}

/// A PNG of noise, which does not compress.
fn noise(seed: u32, side: u32) -> Vec<u8> {
    let mut state = u64::from(seed) * 2 + 1;
    let picture = image::RgbImage::from_fn(side, side, |_, _| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        image::Rgb([(state >> 33) as u8, (state >> 41) as u8, (state >> 49) as u8])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// 200 steps of ten pictures each.
fn heavy() -> Summary {
    use base64::Engine as _;
    let mut summary = rich();
    summary.title = "heavy".into();
    summary.steps = (0..200)
        .map(|id| StepRow {
            id,
            label: format!("step[{id}]"),
            kind: "knn".into(),
            status: "executed".into(),
            key: "ab".repeat(32),
            params: "{\n  \"k\": 20\n}".repeat(20),
            metrics: (0..10).map(|n| (format!("metric_{n}"), "0.123".into())).collect(),
            ..StepRow::default()
        })
        .collect();
    summary.galleries = (0..200)
        .map(|step| Gallery {
            title: "Nearest neighbours".into(),
            step,
            step_label: format!("step[{step}]"),
            items: (0..10)
                .map(|n| Picture {
                    caption: format!("picture {n} of step {step}"),
                    png_base64: base64::engine::general_purpose::STANDARD.encode(noise((step * 10 + n) as u32, 42)),
                    width: 42,
                    height: 42,
                    frames: 0,
                })
                .collect(),
            ..Gallery::default()
        })
        .collect();
    summary
}

/// What a figure's tooltip says.
const TIP: &str = "[...document.querySelectorAll('.tip')].map(e => e.textContent).join('|')";

#[test]
fn the_summary_opens_without_a_word_of_complaint() {
    let Some(mut browser) = Browser::start() else { return };
    let test = Test::new().file("a.exp", TEXT);
    test.harness(&["run", "a.exp", "--out", "page"]).code(0);
    let page = test.path().join("page/summary.html");
    browser.load_file(&page);
    assert_eq!(browser.evaluate("document.title"), "a");
    assert!(browser.evaluate("document.querySelectorAll('table tbody tr').length").as_u64() >= Some(2));
    browser.wait("harnessCharts.size >= 1");
    assert_eq!(browser.requests(), [format!("file://{}", page.canonicalize().unwrap().display())]);
    assert_eq!(browser.troubles(), [""; 0]);
    // Every link inside the page leads somewhere.
    let lost = "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href')).filter(h => !document.getElementById(h.slice(1)))";
    assert_eq!(browser.evaluate(lost), serde_json::json!([]));
    // The claim was in the text before anything was computed.
    assert!(browser.evaluate("document.getElementById('claim-1').textContent.includes('Stated before')") == true);
    browser.click("#asked summary");
    browser.click(".source a[href='#step-2'], .source a[href='#step-3']");
    browser.wait("location.hash.startsWith('#step-')");

    // Two runs side by side.
    test.write("a.exp", TEXT.replace("printf 3", "printf 4"));
    test.harness(&["run", "a.exp"]).code(0);
    test.harness(&["compare", "a.exp~1", "a.exp", "--html", "compare.html"]).code(0).says(&["compare.html"]);
    browser.load_file(&test.path().join("compare.html"));
    assert!(
        browser.evaluate("document.getElementById('numbers').parentElement.textContent.includes('3 pairs')") == true
    );
    assert_eq!(browser.requests().len(), 1);
    assert_eq!(browser.troubles(), [""; 0]);
}

#[test]
fn tables_sort_figures_answer_and_the_theme_changes() {
    let Some(mut browser) = Browser::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    browser.media("light", "screen");
    browser.load_file(&write(dir.path(), "rich.html", &rich()));

    // Tables: by mouse and by keyboard; the trivial predictor stays last, whatever it reaches.
    let order = "[...document.querySelectorAll('main table')].find(t => t.tHead.textContent.includes('method')).querySelectorAll('tbody th')";
    let labels = format!("[...{order}].map(e => e.textContent).join()");
    assert_eq!(browser.evaluate(&labels), "b,a,c,trivial predictor");
    browser.click("th:nth-child(2) .sort");
    assert_eq!(browser.evaluate(&labels), "a,b,c,trivial predictor");
    assert_eq!(browser.evaluate("document.querySelector('th:nth-child(2)').ariaSort"), "descending");
    browser.click("th:nth-child(2) .sort");
    assert_eq!(browser.evaluate(&labels), "c,b,a,trivial predictor");
    browser.evaluate("document.querySelector('th:nth-child(1) .sort').focus()");
    browser.press("Enter");
    assert_eq!(browser.evaluate(&labels), "a,b,c,trivial predictor");
    assert_eq!(browser.evaluate("document.querySelector('.mean.best').textContent"), "55.0 ± 7.1");

    // Hover: every kind of figure says its numbers.
    for (name, words) in [
        ("learning", "moco"),
        ("bars", "nn.top1"),
        ("paired", "95 % interval"),
        ("classes", "moco"),
        ("tail", "rank"),
        ("confusion", "of its class"),
    ] {
        browser.place(&format!("#figure-{name}"));
        browser.wait(&format!("harnessCharts.has('{name}')"));
        // Somewhere in it the mouse meets a mark: it is moved over a grid of places.
        let area = browser.evaluate(&format!(
            "(() => {{ const r = document.querySelector('#figure-{name} .live').getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; }})()"
        ));
        let at = |index: usize| area[index].as_f64().unwrap();
        let met =
            (1..16).flat_map(|y| (4..13).map(move |x| (f64::from(x) / 14.0, f64::from(y) / 17.0))).any(|(x, y)| {
                browser.mouse("mouseMoved", (at(0) + at(2) * x, at(1) + at(3) * y), 0.0);
                browser.evaluate(TIP).as_str().is_some_and(|tip| tip.contains(words))
            });
        assert!(met, "{name}: no tooltip with `{words}`, only {}", browser.evaluate(TIP));
    }

    // Zoom: pulled over a part of the curves, which then fills the figure; twice clicked, all is back.
    let zoomed = "harnessCharts.get('learning').getOption().dataZoom.some(z => z.end - z.start < 99)";
    let (x, y) = browser.place("#figure-learning .live");
    assert_eq!(browser.evaluate(zoomed), false);
    browser.mouse("mouseMoved", (x - 60.0, y - 50.0), 0.0);
    browser.mouse("mousePressed", (x - 60.0, y - 50.0), 0.0);
    for step in 1..=8 {
        browser.mouse("mouseMoved", (x - 60.0 + 15.0 * f64::from(step), y - 50.0 + 10.0 * f64::from(step)), 0.0);
    }
    browser.mouse("mouseReleased", (x + 60.0, y + 30.0), 0.0);
    browser.wait(zoomed);
    assert_eq!(browser.evaluate("matchMedia('(pointer: coarse)').matches"), false);
    browser.click("#figure-learning .tool:not([hidden])");
    browser.wait(&format!("!({zoomed})"));

    // Theme: the page and the lines of its figures change, and the choice is kept.
    let paper = "getComputedStyle(document.body).backgroundColor";
    let light = browser.evaluate(paper);
    browser.click("#theme");
    assert_ne!(browser.evaluate(paper), light);
    assert_eq!(browser.evaluate("document.documentElement.dataset.theme"), "dark");
    browser.click("#theme");
    assert_eq!(browser.evaluate(paper), light);

    // What is called like markup is text, also in figures; nothing of it ran.
    assert_eq!(browser.evaluate("document.title"), "rich");
    assert_eq!(browser.evaluate("document.querySelectorAll('main script, main img').length"), 0);
    assert_eq!(browser.requests().len(), 1);
    assert_eq!(browser.troubles(), [""; 0]);

    // On a phone nothing is wider than the screen.
    browser.size(390, 844, true);
    browser.load_file(&dir.path().join("rich.html"));
    browser.place("#figure-bars");
    browser.wait("harnessCharts.has('bars')");
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), 390);
    assert_eq!(browser.troubles(), [""; 0]);
}

#[test]
fn two_hundred_steps_and_two_thousand_pictures_are_a_light_page() {
    let Some(mut browser) = Browser::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let page = write(dir.path(), "heavy.html", &heavy());
    let rendered = start.elapsed();
    let bytes = page.metadata().unwrap().len();
    browser.load_file(&page);
    browser.wait("harnessCharts.size >= 1");
    let timing = browser.evaluate(
        "(() => { const n = performance.getEntriesByType('navigation')[0]; const p = performance.getEntriesByName('first-contentful-paint')[0]; return [p ? p.startTime : -1, n.domInteractive, n.loadEventEnd]; })()",
    );
    // Said, not asserted: how long it takes is the machine's affair.
    let ms = |index: usize| timing[index].as_f64().unwrap_or(f64::NAN) / 1e3;
    println!(
        "2,000 pictures of 200 steps: {:.1} MB, rendered in {:.2} s; first paint {:.2} s, interactive {:.2} s, loaded {:.2} s",
        bytes as f64 / 1e6,
        rendered.as_secs_f64(),
        ms(0),
        ms(1),
        ms(2)
    );
    assert!(bytes > 12_000_000 && bytes < 20_000_000, "{bytes}");
    assert_eq!(browser.evaluate("document.querySelectorAll('.pictures img').length"), 2000);
    assert_eq!(browser.requests().len(), 1);
    assert_eq!(browser.troubles(), [""; 0]);
}

/// `HARNESS_PAGE=summary.html HARNESS_SCREENSHOTS=folder cargo test -p harness-tests --test browser -- --ignored`
#[test]
#[ignore = "takes pictures of a page to look at"]
fn screenshots() {
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set"));
    let (page, out) = (variable("HARNESS_PAGE"), variable("HARNESS_SCREENSHOTS"));
    let mut browser = Browser::start().expect("a browser");
    std::fs::create_dir_all(&out).unwrap();
    for (name, scheme, width, height, phone) in
        [("light", "light", 1280, 900, false), ("dark", "dark", 1280, 900, false), ("phone", "light", 390, 844, true)]
    {
        browser.size(width, height, phone);
        browser.media(scheme, "screen");
        browser.load_file(&page);
        // Figures are drawn when they come near: once through the page.
        browser.evaluate(
            "(async () => { for (let y = 0; y < document.body.scrollHeight; y += 500) { scrollTo(0, y); await new Promise(r => setTimeout(r, 60)); } scrollTo(0, 0); })()",
        );
        browser.screenshot(&out.join(format!("{name}-top.png")), false);
        browser.screenshot(&out.join(format!("{name}.png")), true);
    }
    browser.size(1280, 900, false);
    browser.media("light", "screen");
    browser.load_file(&page);
    browser.pdf(&out.join("print.pdf"));
    assert_eq!(browser.troubles(), [""; 0]);
}
