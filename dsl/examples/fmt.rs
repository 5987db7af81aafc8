//! Prints a file as `harness fmt` would leave it; for trying the layout without building `harness`.

#[allow(clippy::disallowed_methods, reason = "an example reads the file it is given")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).ok_or("usage: fmt FILE.exp")?;
    match harness_dsl::format(&name, &std::fs::read_to_string(&name)?) {
        Ok(text) => print!("{text}"),
        Err((found, sources)) => eprint!("{}", harness_dsl::render(&found, &sources, false)),
    }
    Ok(())
}
