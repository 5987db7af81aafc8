//! No forgotten version: sources and tiny results of every kind, as they were when its VERSION was last thought about.
//!
//! One file for each kind in `tests/fingerprints/`. When the sources that a kind depends on change, somebody has to say
//! whether its results do: raise VERSION, or run `make fingerprints`, which refuses while the tiny results differ and
//! VERSION does not.

use harness_digest::Digest;
use harness_protocol::{KindInfo, steps};
use harness_tests::Test;
use harness_tests::sources::Sources;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Set by `make fingerprints`: `write`, or `waive` to take down other results under the same VERSION.
const MODE: &str = "HARNESS_FINGERPRINTS";

/// Numbers of floating-point kernels differ a little between processors: this share of them is allowed, and this much.
const RELATIVE: f64 = 0.02;
const ABSOLUTE: f64 = 0.04;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fingerprints")
}

/// What is kept of a kind.
#[derive(Debug, Default, PartialEq)]
struct Print {
    version: u32,
    sources: String,
    /// By step and name: a number, or a digest where bytes are promised on every machine.
    results: BTreeMap<String, String>,
}

impl Print {
    fn read(kind: &str) -> Option<Print> {
        let text = std::fs::read_to_string(home().join(format!("{kind}.txt"))).ok()?;
        let mut print = Print::default();
        for line in text.lines() {
            match line.split_once(' ')? {
                ("version", version) => print.version = version.parse().ok()?,
                ("sources", digest) => print.sources = digest.into(),
                (name, result) => {
                    print.results.insert(name.into(), result.into());
                }
            }
        }
        Some(print)
    }

    fn write(&self, kind: &str) {
        let mut text = format!("version {}\nsources {}\n", self.version, self.sources);
        self.results.iter().for_each(|(name, result)| _ = writeln!(text, "{name} {result}"));
        std::fs::write(home().join(format!("{kind}.txt")), text).expect("a fingerprint can be written");
    }
}

fn near(before: &str, now: &str) -> bool {
    match (before.parse::<f64>(), now.parse::<f64>()) {
        // Counts are counts everywhere.
        (Ok(a), Ok(b)) if a.fract() == 0.0 && b.fract() == 0.0 => a == b,
        (Ok(a), Ok(b)) => (a - b).abs() <= ABSOLUTE.min(a.abs().max(0.1) * 0.4).max(RELATIVE * a.abs()),
        _ => before == now,
    }
}

/// One line for each source file, so that what moved can be named.
fn known_files() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(home().join("sources.txt")).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(' ')).map(|(d, f)| (f.into(), d.into())).collect()
}

/// Versions of the libraries that the computing crates use directly.
fn libraries() -> BTreeMap<String, String> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let packages: Vec<&str> = lock.split("[[package]]\n").skip(1).collect();
    let field = |package: &str, name: &str| {
        let start = format!("{name} = \"");
        let line = package.lines().find_map(|line| line.strip_prefix(start.as_str()));
        line.unwrap_or_default().trim_end_matches('"').to_string()
    };
    let mut found = BTreeMap::new();
    for part in ["cache/digest", "runtime/datasets", "runtime/views", "runtime/worker"] {
        let text = std::fs::read_to_string(root().join(part).join("Cargo.toml")).expect("Cargo.toml");
        let direct = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
        let direct: Vec<&str> = direct
            .lines()
            .take_while(|line| !line.starts_with('['))
            .map(|line| line.split(['=', '.', ' ']).next().unwrap_or_default())
            .collect();
        let name = field(&text, "name");
        let package = packages.iter().find(|package| field(package, "name") == name).expect("it is locked");
        // A library of which several versions are locked stands there with the one that is meant.
        for line in package.lines().filter_map(|line| line.trim().strip_prefix('"')) {
            let mut words = line.trim_end_matches(['"', ',']).split(' ');
            let library = words.next().unwrap_or_default();
            let locked = || packages.iter().find(|package| field(package, "name") == library);
            let version =
                words.next().map(str::to_string).or_else(|| locked().map(|package| field(package, "version")));
            if let Some(version) = version.filter(|_| direct.contains(&library) && !library.starts_with("harness-")) {
                found.insert(library.to_string(), version);
            }
        }
    }
    found
}

fn known_libraries() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(home().join("libraries.txt")).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(' ')).map(|(n, v)| (n.into(), v.into())).collect()
}

fn now(kind: &KindInfo, sources: &Sources, results: &mut BTreeMap<String, BTreeMap<String, String>>) -> Print {
    let files = sources.of(kind.name);
    assert!(files.len() > 1, "{}: only {files:?} was found to decide its results", kind.name);
    let text: String = files.iter().map(|(file, digest)| format!("{file} {digest}\n")).collect();
    let results = results.remove(kind.name).unwrap_or_default();
    Print { version: kind.version, sources: Digest::of_bytes(text.as_bytes()).to_string(), results }
}

#[test]
fn no_kind_gives_other_results_under_the_same_version() {
    let mode = std::env::var(MODE).unwrap_or_default();
    let sources = Sources::read(&root());
    let mut results = golden();
    let mut wrong = String::new();
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let known = known_files();
    for kind in steps::ALL {
        let name = kind.name;
        let place = format!("runtime/protocol/src/steps/{name}.rs");
        let print = now(kind, &sources, &mut results);
        assert!(!print.results.is_empty(), "golden.exp has no step of the kind `{name}`; give it one");
        let of_kind = sources.of(name);
        files.extend(of_kind.iter().map(|(file, digest)| ((*file).to_string(), digest.to_string())));
        let before = Print::read(name);
        let moved: Vec<String> = match &before {
            Some(before) => {
                let names =
                    before.results.keys().chain(print.results.keys()).collect::<std::collections::BTreeSet<_>>();
                let show = |of: &Print, name: &String| of.results.get(name).cloned().unwrap_or("nothing".into());
                names
                    .into_iter()
                    .filter(|name| {
                        !before.results.get(*name).zip(print.results.get(*name)).is_some_and(|(a, b)| near(a, b))
                    })
                    .map(|name| format!("    {name} was {} and is {}\n", show(before, name), show(&print, name)))
                    .collect()
            }
            None => Vec::new(),
        };
        let same_version = before.as_ref().is_some_and(|before| before.version == print.version);
        if same_version && !moved.is_empty() && mode != "waive" {
            wrong += &format!("`{name}` gives other results under VERSION {}:\n{}", print.version, moved.concat());
            wrong += &format!("  Raise VERSION in {place} and run `make fingerprints`.\n");
            continue;
        }
        if !mode.is_empty() {
            // What is within the tolerance stays as it was: another machine is no change.
            let results = before.filter(|_| same_version && mode != "waive").map_or(print.results, |b| b.results);
            Print { results, ..print }.write(name);
            continue;
        }
        match before {
            None => wrong += &format!("`{name}` has no fingerprint yet; `make fingerprints` makes it.\n"),
            Some(before) if before.version != print.version => {
                wrong += &format!("`{name}` has VERSION {} now; `make fingerprints` takes that down.\n", print.version);
            }
            Some(before) if before.sources != print.sources => {
                let changed = of_kind.iter().filter(|(file, digest)| known.get(**file) != Some(&digest.to_string()));
                let changed: Vec<&str> = changed.map(|(file, _)| *file).collect();
                let changed = if changed.is_empty() { "which files those are".into() } else { changed.join(", ") };
                wrong += &format!("What the results of `{name}` depend on changed: {changed}.\n");
                wrong += &format!(
                    "  If results change, raise VERSION in {place}. Then, or if they are the same, run `make fingerprints`.\n"
                );
            }
            Some(_) => {}
        }
    }
    let libraries = libraries();
    if mode.is_empty() {
        for (name, version) in libraries.iter().filter(|(name, version)| known_libraries().get(*name) != Some(version))
        {
            wrong += &format!(
                "The library {name} is at {version} now. Raise VERSION of the kinds whose results change with it; "
            );
            wrong += "then, or if none do, run `make fingerprints`.\n";
        }
    } else {
        let lines = |map: &BTreeMap<String, String>| map.iter().map(|(n, v)| format!("{n} {v}\n")).collect::<String>();
        std::fs::write(home().join("libraries.txt"), lines(&libraries)).expect("the libraries can be written");
        let text: String = files.iter().map(|(file, digest)| format!("{digest} {file}\n")).collect();
        std::fs::write(home().join("sources.txt"), text).expect("the files can be written");
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn sources_are_followed_to_where_things_are_written() {
    let sources = Sources::read(&root());
    let has = |kind: &str, file: &str| sources.of(kind).contains_key(file);
    assert!(has("knn", "runtime/worker/src/metric/knn.rs"));
    assert!(has("knn", "runtime/views/src/decode.rs"));
    assert!(has("pretrain", "runtime/worker/src/steps/pretrain/objective.rs"));
    assert!(has("propagate", "runtime/worker/src/steps/propagate/vote.rs"));
    assert!(has("cityscapes", "runtime/datasets/src/masked.rs"));
    assert!(has("long_tail", "runtime/datasets/src/derived/long_tail.rs"));
    assert!(has("scenes", "runtime/datasets/src/scenes/shape.rs"));
    assert!(has("command", "runtime/src/command.rs"));
    // A kind's own file decides for no other.
    assert!(!has("knn", "runtime/worker/src/steps/pretrain.rs"));
    assert!(!has("scenes", "runtime/datasets/src/davis.rs"));
}

/// Tiny results of every kind: by kind, then by step and name.
fn golden() -> BTreeMap<String, BTreeMap<String, String>> {
    let test = Test::new().file("golden.exp", include_str!("../fingerprints/golden.exp"));
    fixtures(&test);
    let ran = test.harness(&["run", "golden.exp", "--json", "--device", "cpu"]).code(0);
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for event in ran.events().iter().filter(|event| event["event"] == "step_finished") {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_string();
        let (kind, label, key) = (text("kind"), text("label").replace(' ', ""), text("key"));
        let log = test.path().join(format!(".harness/records/{}/{key}.jsonl", &key[..2]));
        let log = std::fs::read_to_string(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let line: Value = serde_json::from_str(log.lines().last().unwrap_or_default()).expect("a record");
        let record = &line["record"];
        let results = found.entry(kind.clone()).or_default();
        let measured =
            |name: &str| !["seconds", "hours", "per_second", "memory", "_s"].iter().any(|it| name.ends_with(it));
        for (name, value) in record["metrics"].as_object().into_iter().flatten().filter(|(name, _)| measured(name)) {
            results.insert(format!("{label}.{name}"), value.to_string());
        }
        for (name, series) in record["series"].as_object().into_iter().flatten() {
            let last = series["y"].as_array().and_then(|y| y.last()).map(Value::to_string);
            results.insert(format!("{label}.{name}[-1]"), last.unwrap_or("none".into()));
        }
        let info = steps::kind(&kind).expect("a kind");
        // Whoever computes with floating-point kernels promises bytes on one kind of processor only.
        if info.executor == harness_protocol::Executor::Harness && kind != "scenes" {
            for (name, output) in record["outputs"].as_object().into_iter().flatten() {
                results.insert(format!("{label}.{name}"), output["digest"].as_str().unwrap_or_default().into());
            }
        } else {
            let names = record["outputs"].as_object().into_iter().flatten();
            let names: Vec<String> = names.map(|(name, output)| format!("{name}:{}", output["kind"])).collect();
            results.insert(format!("{label}.outputs"), names.join(",").replace('"', ""));
        }
    }
    found
}

/// A PNG whose bytes depend on no library: stored, not compressed.
fn png(width: u32, height: u32, colours: u8, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    fn chunk(name: &[u8; 4], data: &[u8], into: &mut Vec<u8>) {
        into.extend((data.len() as u32).to_be_bytes());
        let body = [name.as_slice(), data].concat();
        let mut crc = u32::MAX;
        for byte in &body {
            crc ^= u32::from(*byte);
            (0..8).for_each(|_| crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
        }
        into.extend(&body);
        into.extend((!crc).to_be_bytes());
    }
    let mut rows = Vec::new();
    for y in 0..height {
        rows.push(0);
        (0..width).for_each(|x| rows.extend(&pixel(x, y)[..usize::from(colours)]));
    }
    let mut data = vec![0x78, 0x01];
    let blocks = rows.chunks(0xffff).count();
    for (index, block) in rows.chunks(0xffff).enumerate() {
        data.push(u8::from(index + 1 == blocks));
        data.extend((block.len() as u16).to_le_bytes());
        data.extend((!(block.len() as u16)).to_le_bytes());
        data.extend(block);
    }
    let (a, b) = rows.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    data.extend((b << 16 | a).to_be_bytes());
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let colour = if colours == 3 { 2 } else { 0 };
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes()[..], &[8, colour, 0, 0, 0]].concat();
    chunk(b"IHDR", &head, &mut out);
    chunk(b"IDAT", &data, &mut out);
    chunk(b"IEND", &[], &mut out);
    out
}

/// The user's files of every kind of dataset.
fn fixtures(test: &Test) {
    let side = 24;
    let inside = |x: u32, y: u32, shift: u32| (6..16).contains(&y) && (3 + shift..13 + shift).contains(&x);
    let picture = |shade: u8, shift: u32| {
        png(side, side, 3, move |x, y| [if inside(x, y, shift) { 220 } else { shade }, (x * 7) as u8, (y * 9) as u8])
    };
    let mask = |value: u8, shift: u32| png(side, side, 1, move |x, y| [if inside(x, y, shift) { value } else { 0 }; 3]);
    for (class, shade) in [("cat", 30), ("dog", 90)] {
        for number in 0..6_u8 {
            test.write(&format!("folder/{class}/{number}.png"), picture(shade + number, u32::from(number)));
        }
    }
    for number in 0..6_u8 {
        let name = if number == 5 { "test_batch".into() } else { format!("data_batch_{}", number + 1) };
        let record = |label: u8| [vec![label], (0..3072).map(|at| (at / 12) as u8 ^ number).collect()].concat();
        test.write(&format!("cifar/{name}.bin"), [record(number), record(1)].concat());
    }
    test.write("cifar/batches.meta.txt", "airplane\nautomobile\nbird\ncat\ndeer\ndog\n");
    for frame in 0..4 {
        test.write(&format!("davis/JPEGImages/480p/clip/{frame:05}.png"), picture(30, frame));
        test.write(&format!("davis/Annotations/480p/clip/{frame:05}.png"), mask(1, frame));
        test.write(&format!("masks/clip/{frame:05}.png"), mask(1, frame + 1));
    }
    test.write("davis/ImageSets/2017/val.txt", "clip\n");
    for (city, number) in [("ulm", 1), ("aachen", 2)] {
        let name = format!("{city}/{city}_{number}");
        test.write(&format!("cityscapes/leftImg8bit/train/{name}_leftImg8bit.png"), picture(40, number));
        test.write(&format!("cityscapes/gtFine/train/{name}_gtFine_labelIds.png"), mask(26, number));
    }
    for (number, split) in [(1_u32, "train"), (2, "val")] {
        test.write(&format!("nyud/images/000{number}.jpg"), picture(50, number));
        test.write(&format!("nyud/segmentation/000{number}.png"), mask(40, number));
        test.write(&format!("nyud/gt_sets/{split}.txt"), format!("000{number}\n"));
    }
    for number in 0..3_u32 {
        test.write(&format!("pairs/{number}.png"), picture(60, number));
        test.write(&format!("pairs/{number}.mask.png"), mask(1, number));
    }
    test.write("pairs/list.txt", (0..3).map(|n| format!("{n}.png {n}.mask.png\n")).collect::<String>());
    for name in ["a", "b"] {
        test.write(&format!("voc/VOC2012/JPEGImages/{name}.png"), picture(70, u32::from(name == "b")));
        test.write(&format!("voc/VOC2012/SegmentationClass/{name}.png"), mask(15, u32::from(name == "b")));
    }
    test.write("voc/VOC2012/ImageSets/Segmentation/train.txt", "a\n");
    test.write("voc/VOC2012/ImageSets/Segmentation/val.txt", "b\n");
    for number in 1..=8_u32 {
        let bytes = picture(if number % 2 == 0 { 20 } else { 200 }, number % 5);
        test.write(&format!("voc07/VOC2007/JPEGImages/00000{number}.jpg"), bytes);
    }
    for (split, numbers) in [("trainval", 1..=4), ("test", 5..=8)] {
        let list: String = numbers.clone().map(|n| format!("00000{n}\n")).collect();
        test.write(&format!("voc07/VOC2007/ImageSets/Main/{split}.txt"), list);
        for (class, rest) in [("dog", 0), ("cat", 1)] {
            let list: String =
                numbers.clone().map(|n| format!("00000{n} {}\n", if n % 2 == rest { 1 } else { -1 })).collect();
            test.write(&format!("voc07/VOC2007/ImageSets/Main/{class}_{split}.txt"), list);
        }
    }
    test.write("list.txt", "cat/0.png\ndog/1.png\n");
}
