//! Prints the schema of a kind: `cargo run -p harness-protocol --example schema -- pretrain`.
fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    match harness_protocol::steps::kind(&name) {
        Some(kind) => println!("{:#}", (kind.schema)()),
        None => eprintln!("no kind `{name}`"),
    }
}
