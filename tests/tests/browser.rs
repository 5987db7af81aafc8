//! The pages in a real browser: no error on the console, nothing fetched, nothing that the page's own policy refuses.

use harness_tests::Test;
use harness_tests::browser::Browser;

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

#[test]
fn the_summary_opens_without_a_word_of_complaint() {
    let Some(mut browser) = Browser::start() else { return };
    let test = Test::new().file("a.exp", TEXT);
    test.harness(&["run", "a.exp", "--out", "page"]).code(0);
    let page = test.path().join("page/summary.html");
    browser.load_file(&page);
    assert_eq!(browser.evaluate("document.title"), "a");
    assert!(browser.evaluate("document.querySelectorAll('table tbody tr').length").as_u64() >= Some(2));
    assert_eq!(browser.requests(), [format!("file://{}", page.canonicalize().unwrap().display())]);
    assert_eq!(browser.troubles(), [""; 0]);
}
