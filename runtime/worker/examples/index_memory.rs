//! What a dataset's index takes in memory: `index_memory 1000000` writes the manifest of as many labelled pictures with
//! paths like ImageNet's into a temporary file, opens it as steps do, and prints the memory that came with it.

use std::io::Write;

use harness_datasets::hash::digest;
use harness_protocol::job::InputFiles;
use harness_protocol::{Location, LocationForm};
use harness_worker::data::Images;

/// A field of /proc/self/status, in MB.
fn status(field: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = text.lines().find(|line| line.starts_with(field)).expect("the field");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") * 1024.0 / 1e6
}

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("manifest.json");
    {
        let mut out = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
        let classes: Vec<String> = (0..1000).map(|class| format!("\"n{class:08}\"")).collect();
        write!(out, "{{\"format\":1,\"classes\":[{}],\"entries\":[", classes.join(",")).expect("room");
        for at in 0..count {
            let (class, comma) = (at * 1000 / count, if at == 0 { "" } else { "," });
            let entry = format!("{{\"path\":\"n{class:08}/n{class:08}_{at:07}.JPEG\",\"size\":{at},\"digest\":");
            write!(out, "{comma}{{\"file\":{entry}\"{at:064x}\"}},\"label\":{class}}}").expect("room");
        }
        out.write_all(b"]}").expect("room");
    }
    let bytes = std::fs::metadata(&path).expect("the file").len();
    let known = digest(&std::fs::read(&path).expect("the file"));
    let location = Location { path: folder.path().to_path_buf(), form: LocationForm::Folder, ..Location::default() };
    let input = InputFiles { file: path, data: Some(location) };
    // What has been used so far is not the index's; the peak is counted from here on.
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be forgotten");
    let before = status("VmRSS");
    let images = Images::open(&input, &known).expect("the dataset");
    let (peak, now) = (status("VmHWM") - before, status("VmRSS") - before);
    println!(
        "{} pictures, a manifest of {:.0} MB: {now:.0} MB, at most {peak:.0} MB while it was read",
        images.len(),
        bytes as f64 / 1e6
    );
}
