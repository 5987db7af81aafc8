//! Every experiment of the project is laid out as `harness fmt` does it.

#[test]
#[allow(clippy::disallowed_methods, reason = "the test reads the project's experiments")]
fn experiments_are_laid_out() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "exp") {
            let text = std::fs::read_to_string(&path).unwrap();
            let formatted = harness_dsl::format(&path.display().to_string(), &text).unwrap();
            assert_eq!(formatted, text, "run `harness fmt {}`", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "the experiments were not found");
}
