//! `harness export` and `harness import`: a run with its results as one archive that another person can open, check and
//! go on from; and every number of a run as a tidy table.
//!
//! The archive is an uncompressed tar:
//!
//! ```text
//! ro-crate-metadata.json      what all of it is, as an RO-Crate 1.1 of the Workflow Run Crate profile
//! run/…                       the text, the checked program, the events, the summary
//! metrics.csv                 every number
//! records/<key>.json          what is known of each action: parameters, numbers, provenance
//! blobs/<digest>              outputs and logs, named by their digest (up to 4 MiB the SHA-256, above see `harness_cache::CHUNK`)
//! ```
//!
//! Files of the user's datasets are not in it: their manifests are, with the digest of every file. Import takes nothing
//! on trust: a blob whose bytes do not have the digest of its name, or a record whose key does not have the digest it
//! claims, ends it before anything of it counts.

use crate::cli::{Place, bytes, count, when};
use crate::listen::seconds;
use crate::project::{self, Project};
use crate::run::State;
use crate::runs::{self, Run, Told};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use harness_cache::{Cache, Digest, Output, Record};
use harness_dsl::{Program, Step};
use harness_protocol::steps;
use harness_report::tidy::Cells;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

/// Larger texts in an archive are no records.
const LARGEST_RECORD: u64 = 256 << 20;

/// What is given away of a run's folder, and taken.
const RUN_FILES: [&str; 6] = ["run.json", "source.exp", "program.json", "events.jsonl", "summary.html", "summary.md"];

/// `harness export`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Export {
    #[command(subcommand)]
    pub what: Option<What>,
    /// A run: its id or a beginning of it, `latest`, or an .exp file for its newest one
    #[arg(value_name = "RUN|FILE", required = true)]
    pub run: Option<String>,
    /// The archive to write
    #[arg(value_name = "ARCHIVE.tar", required = true)]
    pub archive: Option<PathBuf>,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// What else can be exported.
#[derive(Subcommand, Debug)]
pub enum What {
    /// Every number of every step that has a result, one line each
    Metrics(Metrics),
    /// The curves and numbers of a run as event files for TensorBoard
    Tensorboard(Tensorboard),
    /// An encoder as a file that `torch.load` and torchvision read, or safetensors
    Encoder(super::export_encoder::Encoder),
}

/// `harness export tensorboard`
#[derive(Args, Debug)]
pub struct Tensorboard {
    /// A run: its id or a beginning of it, `latest`, or an .exp file for its newest one
    #[arg(value_name = "RUN|FILE")]
    pub run: String,
    /// The folder to write into, one folder for each step; then `tensorboard --logdir DIR`
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// `harness export metrics`
#[derive(Args, Debug)]
pub struct Metrics {
    /// The .exp file
    pub file: PathBuf,
    /// How to write them
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    pub format: Format,
    /// Points of curves as well, with their position
    #[arg(long)]
    pub curves: bool,
    /// The file to write, in place of standard output
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub place: Place,
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Comma-separated values (RFC 4180), names in the first line
    Csv,
    /// A list of objects
    Json,
    /// Apache Parquet, with types, for pandas, Polars, R or DuckDB; goes to `--out`
    Parquet,
}

/// `harness import`
#[derive(Args, Debug)]
pub struct Import {
    /// An archive that `harness export` wrote
    pub archive: PathBuf,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// Runs `harness export`.
///
/// # Errors
/// No such run or file, results that are gone, an archive that cannot be written.
pub fn export(arguments: &Export) -> Result<ExitCode> {
    match &arguments.what {
        Some(What::Metrics(metrics)) => return self::metrics(metrics),
        Some(What::Tensorboard(board)) => return self::tensorboard(board),
        Some(What::Encoder(encoder)) => return super::export_encoder::encoder(encoder),
        None => {}
    }
    let (Some(name), Some(archive)) = (&arguments.run, &arguments.archive) else {
        bail!("a run and an archive are needed")
    };
    let (cache, _) = project::cache(file_of(name), arguments.cache.as_deref())?;
    let run = runs::find(cache.dir(), name)?;
    if run.is_live() {
        bail!("the run {} goes on; export it when it has ended (`harness watch {0}` says when)", run.id);
    }
    write(&cache, &run, archive)?;
    Ok(ExitCode::SUCCESS)
}

/// One line of the tidy table.
fn line(
    step: &Step,
    record: &Record,
    metric: &str,
    value: f64,
    at: Option<(f64, &str)>,
) -> BTreeMap<&'static str, Value> {
    let info = steps::kind(&step.kind).and_then(|kind| kind.metrics.iter().find(|info| info.name == metric));
    let axes: serde_json::Map<String, Value> =
        step.axes.iter().map(|axis| (axis.name.clone(), axis.value.clone().into())).collect();
    let floor = info.and_then(|info| record.metrics.get(info.floor?.0));
    BTreeMap::from([
        ("label", step.label.clone().into()),
        ("step", step.name.clone().into()),
        ("kind", step.kind.clone().into()),
        ("axes", Value::Object(axes)),
        ("metric", metric.into()),
        ("value", value.into()),
        ("floor", floor.map_or(Value::Null, |floor| (*floor).into())),
        ("share", info.map_or(Value::Null, |info| info.percent.into())),
        ("higher_is_better", info.map_or(Value::Null, |info| info.higher_is_better.into())),
        ("on_test", info.map_or(Value::Null, |info| info.on_test.into())),
        ("x", at.map_or(Value::Null, |(x, _)| x.into())),
        ("x_label", at.map_or(Value::Null, |(_, label)| label.into())),
        ("key", record.digest.to_string().into()),
        ("computed", format!("{}Z", when(record.finished_unix_ms).replace(' ', "T")).into()),
        ("seconds", record.duration_s.into()),
    ])
}

/// Lines of a step: its numbers, and the points of its curves if wanted.
fn lines(step: &Step, record: &Record, curves: bool) -> Vec<BTreeMap<&'static str, Value>> {
    let mut found: Vec<_> = record.metrics.iter().map(|(name, value)| line(step, record, name, *value, None)).collect();
    for (name, series) in record.series.iter().filter(|_| curves) {
        let points = series.x.iter().zip(&series.y);
        found.extend(points.map(|(x, y)| line(step, record, name, *y, Some((*x, &series.x_label)))));
    }
    found
}

/// A field as RFC 4180 has it.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

/// The table with one column for each axis.
fn csv(lines: &[BTreeMap<&'static str, Value>], curves: bool) -> String {
    let axes: BTreeSet<String> = lines
        .iter()
        .flat_map(|line| line["axes"].as_object().into_iter().flatten())
        .map(|(name, _)| name.clone())
        .collect();
    let mut columns = vec!["label", "step", "kind", "metric", "value", "floor", "share", "higher_is_better", "on_test"];
    if curves {
        columns.extend(["x", "x_label"]);
    }
    columns.extend(["key", "computed", "seconds"]);
    let plain = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // An axis may be called like a column.
    let head = columns.iter().map(|name| (*name).to_string()).chain(axes.iter().map(|axis| format!("axis.{axis}")));
    let mut text = head.map(|name| field(&name)).collect::<Vec<_>>().join(",") + "\r\n";
    for line in lines {
        let cells = columns.iter().map(|name| match (*name, &line[name]) {
            // What JSON has no number for.
            ("value", Value::Null) => "NaN".into(),
            (_, value) => plain(value),
        });
        let cells = cells.chain(axes.iter().map(|axis| line["axes"].get(axis).map(plain).unwrap_or_default()));
        text.push_str(&(cells.map(|cell| field(&cell)).collect::<Vec<_>>().join(",") + "\r\n"));
    }
    text
}

/// The table as Parquet: a column of its type for each field, and one for each axis.
fn parquet(lines: &[BTreeMap<&'static str, Value>], curves: bool) -> Result<Vec<u8>> {
    let text = |name: &str| Cells::Text(lines.iter().map(|line| line[name].as_str().map(String::from)).collect());
    let number = |name: &str| Cells::Number(lines.iter().map(|line| line[name].as_f64()).collect());
    let flag = |name: &str| Cells::Flag(lines.iter().map(|line| line[name].as_bool()).collect());
    // What JSON has no number for.
    let value = lines.iter().map(|line| Some(line["value"].as_f64().unwrap_or(f64::NAN))).collect();
    let mut columns: Vec<(String, Cells)> = Vec::new();
    let mut put = |name: &str, cells: Cells| columns.push((name.into(), cells));
    for name in ["label", "step", "kind", "metric"] {
        put(name, text(name));
    }
    put("value", Cells::Number(value));
    put("floor", number("floor"));
    for name in ["share", "higher_is_better", "on_test"] {
        put(name, flag(name));
    }
    if curves {
        put("x", number("x"));
        put("x_label", text("x_label"));
    }
    put("key", text("key"));
    put("computed", text("computed"));
    put("seconds", number("seconds"));
    let axes: BTreeSet<&String> =
        lines.iter().filter_map(|line| line["axes"].as_object()).flat_map(|axes| axes.keys()).collect();
    for axis in axes {
        let cells = lines.iter().map(|line| line["axes"][axis].as_str().map(String::from)).collect();
        put(&format!("axis.{axis}"), Cells::Text(cells));
    }
    Ok(harness_report::tidy::parquet(&columns)?)
}

/// Every number of every step that has a result, in a format; a word about those without.
///
/// # Errors
/// The cache cannot be read.
pub fn tidy(project: &Project, states: &[State], format: Format, curves: bool) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut missing = 0;
    for (step, state) in project.program.steps.iter().zip(states) {
        match &state.finished {
            Some(finished) => all.extend(lines(step, &finished.record, curves)),
            None => missing += 1,
        }
    }
    if missing > 0 {
        eprintln!(
            "{} have no result and are left out; `{}` computes them",
            count(missing, "step"),
            project.run_command()
        );
    }
    match format {
        Format::Csv => Ok(csv(&all, curves).into_bytes()),
        Format::Json => Ok((serde_json::to_string_pretty(&all)? + "\n").into_bytes()),
        Format::Parquet => parquet(&all, curves),
    }
}

/// Writes to a file, or to standard output; what is not text never goes to a terminal.
///
/// # Errors
/// It cannot be written.
pub fn put(bytes: &[u8], out: Option<&Path>, binary: bool) -> Result<()> {
    use std::io::IsTerminal as _;
    match out {
        Some(path) => {
            std::fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
            eprintln!("wrote {}", path.display());
        }
        None if binary && std::io::stdout().is_terminal() => {
            bail!("this is no text; name a file with `--out`, or redirect standard output")
        }
        None => std::io::stdout().lock().write_all(bytes)?,
    }
    Ok(())
}

fn metrics(arguments: &Metrics) -> Result<ExitCode> {
    let place = &arguments.place;
    let Some(project) = Project::open(&arguments.file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let states = project.look(&vec![true; project.program.steps.len()])?;
    let bytes = tidy(&project, &states, arguments.format, arguments.curves)?;
    put(&bytes, arguments.out.as_deref(), arguments.format == Format::Parquet)?;
    Ok(ExitCode::SUCCESS)
}

/// The `.exp` file that a run is named by, if it is.
fn file_of(name: &str) -> Option<&Path> {
    let file = Path::new(name.rsplit_once('~').map_or(name, |(base, _)| base));
    (file.extension().is_some_and(|extension| extension == "exp")).then_some(file)
}

/// Records know when a step ended, not when each point came: all of a step's points bear that time.
fn tensorboard(arguments: &Tensorboard) -> Result<ExitCode> {
    let (cache, _) = project::cache(file_of(&arguments.run), arguments.cache.as_deref())?;
    let run = runs::find(cache.dir(), &arguments.run)?;
    let mut folder = crate::tensorboard::Folder::new(&arguments.dir);
    let (mut written, mut missing) = (0, 0);
    for (label, step) in &run.told().steps {
        let done = matches!(step.status, Some(crate::events::Status::Executed | crate::events::Status::Cached));
        let (Some(key), true) = (step.key, done) else { continue };
        let Some(record) = cache.record(&key)? else {
            missing += 1;
            continue;
        };
        if record.metrics.is_empty() && record.series.is_empty() {
            continue;
        }
        let wall_s = record.finished_unix_ms as f64 / 1e3;
        let mut write = || -> std::io::Result<()> {
            let mut writer = folder.file(label, wall_s)?;
            for (name, series) in &record.series {
                series.x.iter().zip(&series.y).try_for_each(|(x, y)| writer.scalar(wall_s, name, *x, *y))?;
            }
            crate::tensorboard::numbers(&mut writer, wall_s, &record.metrics)?;
            writer.flush()
        };
        write().with_context(|| format!("{} cannot be written", arguments.dir.display()))?;
        written += 1;
    }
    if missing > 0 {
        eprintln!("{} gone from the cache and left out", count(missing, "result"));
    }
    eprintln!("{} written; `tensorboard --logdir {}` shows them", count(written, "step"), arguments.dir.display());
    Ok(ExitCode::SUCCESS)
}

/// What goes into an archive.
struct Crate {
    program: Program,
    told: Told,
    /// By key, with a label.
    records: BTreeMap<Digest, (String, Record)>,
    /// Blobs with their size: outputs, logs, and what manifests name.
    blobs: BTreeMap<Digest, u64>,
}

fn collect(cache: &Cache, run: &Run) -> Result<Crate> {
    let told = run.told();
    let program = run.program().with_context(|| {
        format!("the run {} was recorded without its program, by an earlier version; run its file again", run.id)
    })?;
    let mut records = BTreeMap::new();
    let mut blobs = BTreeMap::new();
    for (label, step) in &told.steps {
        let done = matches!(step.status, Some(crate::events::Status::Executed | crate::events::Status::Cached));
        let (Some(key), true) = (step.key, done) else { continue };
        let record = cache.portable(&key)?.with_context(|| {
            format!(
                "the result of `{label}` is gone from the cache; `harness run {}` computes it again",
                run.asked.file
            )
        })?;
        let named = record.outputs.iter().map(|(name, output)| (name.as_str(), output.digest));
        for (name, digest) in named.chain(record.log.map(|log| ("log", log))) {
            let path = cache.verified(&digest)?.with_context(|| {
                format!(
                    "`{name}` of `{label}` is gone from the cache or damaged; `harness run {}` computes it again",
                    run.asked.file
                )
            })?;
            blobs.insert(digest, path.metadata()?.len());
        }
        records.entry(key).or_insert_with(|| (label.clone(), record));
    }
    if records.is_empty() {
        bail!("the run {} has no result to export", run.id);
    }
    Ok(Crate { program, told, records, blobs })
}

fn write(cache: &Cache, run: &Run, archive: &Path) -> Result<()> {
    let using = cache.using()?;
    let found = collect(cache, run)?;
    for key in found.records.keys() {
        using.keep(key);
    }
    drop(using);
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for name in RUN_FILES {
        if let Ok(bytes) = std::fs::read(run.dir.join(name)) {
            files.push((format!("run/{name}"), bytes));
        }
    }
    let mut table = Vec::new();
    for step in &found.program.steps {
        let key = found.told.steps.get(&step.label).and_then(|step| step.key);
        if let Some((_, record)) = key.and_then(|key| found.records.get(&key)) {
            table.extend(lines(step, record, true));
        }
    }
    files.push(("metrics.csv".into(), csv(&table, true).into_bytes()));
    for (key, (_, record)) in &found.records {
        files.push((format!("records/{key}.json"), serde_json::to_vec_pretty(record)?));
    }
    let metadata = metadata(run, &found, &files);
    files.insert(0, ("ro-crate-metadata.json".into(), serde_json::to_vec_pretty(&metadata)?));
    let folder = archive.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritable = || format!("{} cannot be written", archive.display());
    // Complete or not there.
    let mut temporary = tempfile::NamedTempFile::new_in(folder).with_context(unwritable)?;
    {
        let mut tar = tar::Builder::new(std::io::BufWriter::new(temporary.as_file_mut()));
        let seconds = run.asked.started_unix_ms / 1000;
        let header = |size: u64| {
            let mut header = tar::Header::new_ustar();
            header.set_size(size);
            header.set_mode(0o644);
            header.set_mtime(seconds);
            header
        };
        for (name, bytes) in &files {
            tar.append_data(&mut header(bytes.len() as u64), name, bytes.as_slice()).with_context(unwritable)?;
        }
        for (digest, size) in &found.blobs {
            let path = cache.blob(digest)?.with_context(|| format!("the blob {digest} went while it was exported"))?;
            let file = std::fs::File::open(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            tar.append_data(&mut header(*size), format!("blobs/{digest}"), file).with_context(unwritable)?;
        }
        tar.into_inner().and_then(|mut out| out.flush()).with_context(unwritable)?;
    }
    // Temporary files are for their owner alone; an archive is to be given away.
    use std::os::unix::fs::PermissionsExt as _;
    temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).with_context(unwritable)?;
    temporary.as_file().sync_all().with_context(unwritable)?;
    temporary.persist(archive).map_err(|error| error.error).with_context(unwritable)?;
    println!(
        "{}: run {} of {}, {}, {}, {}",
        archive.display(),
        run.id,
        run.asked.file,
        count(found.records.len(), "result"),
        count(found.blobs.len(), "blob"),
        bytes(archive.metadata()?.len())
    );
    println!("`harness import {}` takes it into another cache", archive.display());
    Ok(())
}

/// An instant as ISO 8601 has it.
fn instant(unix_ms: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(unix_ms).unwrap_or_default()).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The RO-Crate: the run as a workflow's execution, each step as an action with the files it took and gave.
fn metadata(run: &Run, found: &Crate, files: &[(String, Vec<u8>)]) -> Value {
    let id = |id: &str| json!({ "@id": id });
    let blob = |digest: &Digest| format!("blobs/{digest}");
    let action = |key: &Digest| format!("#action-{key}");
    let mut graph: Vec<Value> = Vec::new();
    let mut parts: Vec<Value> = files.iter().map(|(name, _)| id(name)).collect();
    parts.extend(found.blobs.keys().map(|digest| id(&blob(digest))));
    let mut mentions = vec![id("#run")];
    mentions.extend(found.records.keys().map(|key| id(&action(key))));
    let profiles = [
        ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
        ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
        ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
    ];
    graph.push(json!({
        "@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": id("./"),
        "conformsTo": [id("https://w3id.org/ro/crate/1.1"), id("https://w3id.org/workflowhub/workflow-ro-crate/1.0")],
    }));
    graph.push(json!({
        "@id": "./", "@type": "Dataset",
        "name": format!("Run {} of {}", run.id, run.asked.file),
        "description": "A run of an experiment by harness, with the text, every parameter, every number, where each was computed, and the files that the steps gave.",
        "datePublished": instant(run.asked.started_unix_ms),
        "license": "Not stated by whoever exported this run; ask them before using it.",
        "conformsTo": profiles.iter().map(|(profile, ..)| id(profile)).collect::<Vec<_>>(),
        "mainEntity": id("run/source.exp"), "hasPart": parts, "mentions": mentions,
    }));
    for (profile, name, version) in profiles {
        graph.push(json!({ "@id": profile, "@type": "CreativeWork", "name": name, "version": version }));
    }
    graph.push(json!({
        "@id": "#language", "@type": "ComputerLanguage", "name": "harness experiment language", "alternateName": "exp",
    }));
    graph.push(json!({
        "@id": "#harness", "@type": "SoftwareApplication", "name": "harness", "softwareVersion": run.asked.harness,
    }));
    let end = run.asked.started_unix_ms + found.told.end.as_ref().map_or(0, |end| (end.wall_s * 1000.0) as u64);
    let failed = found.told.end.as_ref().is_none_or(|end| end.failed > 0 || end.interrupted);
    let status =
        if failed { "http://schema.org/FailedActionStatus" } else { "http://schema.org/CompletedActionStatus" };
    graph.push(json!({
        "@id": "#run", "@type": "CreateAction", "name": format!("Run {}", run.id),
        "instrument": id("run/source.exp"), "startTime": instant(run.asked.started_unix_ms), "endTime": instant(end),
        "actionStatus": status,
        "object": found.program.params.iter().map(|(name, _)| id(&format!("#param-{name}"))).collect::<Vec<_>>(),
        "result": found.blobs.keys().map(|digest| id(&blob(digest))).chain(
            files.iter().filter(|(name, _)| name.starts_with("run/summary") || name == "metrics.csv").map(|(name, _)| id(name))
        ).collect::<Vec<_>>(),
    }));
    for (name, value) in &found.program.params {
        graph.push(json!({
            "@id": format!("#param-{name}"), "@type": "PropertyValue", "name": name, "value": value.to_string(),
        }));
    }
    let mut kinds: BTreeSet<(String, u32)> = BTreeSet::new();
    let mut names: BTreeMap<Digest, (String, String)> = BTreeMap::new();
    for (key, (label, record)) in &found.records {
        kinds.insert((record.key.kind.clone(), record.key.version));
        let numbers: Vec<Value> = record.metrics.keys().map(|name| id(&format!("#{key}-{name}"))).collect();
        let mut taken = Vec::new();
        inputs(&record.key.params, &mut taken);
        let objects = taken.iter().filter_map(|digest| digest.parse::<Digest>().ok());
        let mut objects: Vec<Value> = objects.filter(|d| found.blobs.contains_key(d)).map(|d| id(&blob(&d))).collect();
        objects.insert(0, id(&format!("records/{key}.json")));
        let began = record.finished_unix_ms.saturating_sub((record.duration_s * 1000.0) as u64);
        graph.push(json!({
            "@id": action(key), "@type": "CreateAction", "name": label,
            "description": format!("{} in {}", record.key.kind, seconds(record.duration_s)),
            "instrument": id(&format!("#kind-{}-{}", record.key.kind, record.key.version)),
            "startTime": instant(began), "endTime": instant(record.finished_unix_ms),
            "actionStatus": "http://schema.org/CompletedActionStatus",
            "object": objects,
            "result": record.outputs.values().map(|output| id(&blob(&output.digest))).chain(numbers).collect::<Vec<_>>(),
        }));
        for (name, value) in &record.metrics {
            graph.push(json!({
                "@id": format!("#{key}-{name}"), "@type": "PropertyValue", "name": name,
                "value": if value.is_finite() { json!(value) } else { json!(value.to_string()) },
            }));
        }
        for (name, output) in &record.outputs {
            names.entry(output.digest).or_insert((format!("{name} of {label}"), output.kind.clone()));
        }
        if let Some(log) = record.log {
            names.entry(log).or_insert((format!("what {label} printed"), "log".into()));
        }
    }
    for (kind, version) in kinds {
        graph.push(json!({
            "@id": format!("#kind-{kind}-{version}"), "@type": "SoftwareApplication", "name": format!("harness {kind}"),
            "softwareVersion": version.to_string(),
        }));
    }
    for (name, bytes) in files {
        let (format, words) = match name.as_str() {
            "run/source.exp" => ("text/plain", "The experiment as it ran"),
            "run/program.json" => ("application/json", "The checked program"),
            "run/events.jsonl" => ("application/jsonl", "What happened in the run"),
            "run/summary.html" => ("text/html", "Summary with tables, verdicts, curves and pictures"),
            "run/summary.md" => ("text/markdown", "Summary"),
            "run/run.json" => ("application/json", "What was asked of the run"),
            "metrics.csv" => ("text/csv", "Every number of the run, one line each"),
            _ => ("application/json", "Parameters, numbers and provenance of one action"),
        };
        let digest = Digest::of_bytes(bytes);
        let mut entity = json!({
            "@id": name, "@type": "File", "name": words, "encodingFormat": format,
            "contentSize": bytes.len().to_string(),
        });
        if bytes.len() <= harness_cache::CHUNK {
            entity["sha256"] = json!(digest);
        }
        if name == "run/source.exp" {
            entity["@type"] = json!(["File", "SoftwareSourceCode", "ComputationalWorkflow"]);
            entity["name"] = run.asked.file.clone().into();
            entity["programmingLanguage"] = id("#language");
        }
        graph.push(entity);
    }
    for (digest, size) in &found.blobs {
        let (name, kind) = names.get(digest).cloned().unwrap_or_default();
        graph.push(json!({
            "@id": blob(digest), "@type": "File", "name": name, "description": kind, "contentSize": size.to_string(),
        }));
        // Larger contents are named by the digest of their chunks' digests, which is no plain SHA-256.
        if *size <= harness_cache::CHUNK as u64
            && let Some(entity) = graph.last_mut()
        {
            entity["sha256"] = json!(digest);
        }
    }
    json!({
        "@context": [
            "https://w3id.org/ro/crate/1.1/context",
            { "sha256": "https://w3id.org/ro/terms/workflow-run#sha256" },
        ],
        "@graph": graph,
    })
}

/// Digests of the contents that parameters name.
fn inputs(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => match map.get("$artifact").and_then(|artifact| artifact["digest"].as_str()) {
            Some(digest) => into.push(digest.into()),
            None => map.values().for_each(|inner| inputs(inner, into)),
        },
        Value::Array(items) => items.iter().for_each(|inner| inputs(inner, into)),
        _ => {}
    }
}

/// Runs `harness import`: exit 1 when the archive is damaged or not what it says.
///
/// # Errors
/// No such archive; bytes without the digest of their name; a run that is there already and is another one.
pub fn import(arguments: &Import) -> Result<ExitCode> {
    let path = &arguments.archive;
    let unreadable = || format!("{} cannot be read as an archive of `harness export`", path.display());
    let (cache, _) = project::cache(None, arguments.cache.as_deref())?;
    let file = std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let scratch = cache.temp_dir()?;
    let mut records: Vec<Record> = Vec::new();
    let mut present: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut run_files: Vec<String> = Vec::new();
    let (mut fresh, mut total) = (0, 0_u64);
    let refuse = |what: String| -> Result<ExitCode> {
        eprintln!("error: {what}; nothing of {} was taken into account", path.display());
        Ok(ExitCode::FAILURE)
    };
    // Blobs are named by nobody until the last record is appended, which is after everything was checked.
    let using = cache.using()?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    for entry in archive.entries().with_context(unreadable)? {
        let mut entry = entry.with_context(unreadable)?;
        let name = entry.path().with_context(unreadable)?.into_owned();
        let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || entry.header().entry_type() != tar::EntryType::Regular {
            return refuse(format!("the archive has an entry `{}` that is no plain file", name.display()));
        }
        let text = name.to_string_lossy().into_owned();
        if let Some(digest) = text.strip_prefix("blobs/") {
            let Ok(digest) = digest.parse::<Digest>() else {
                return refuse(format!("the blob `{text}` is not named by a digest"));
            };
            let place = scratch.path().join("blob");
            let mut out = std::fs::File::create(&place)?;
            let size = std::io::copy(&mut entry, &mut out).with_context(unreadable)?;
            total += size;
            drop(out);
            let found = Digest::of_file(&place)?;
            if found != digest {
                return refuse(format!(
                    "the bytes of {text} have the digest {found}: the archive is damaged or was changed"
                ));
            }
            fresh += usize::from(cache.verified(&digest)?.is_none());
            cache.take_file(&place)?;
            present.insert(digest, size);
        } else if text.starts_with("records/") {
            if entry.size() > LARGEST_RECORD {
                return refuse(format!("{text} is too large for a record"));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(unreadable)?;
            let record: Record = match serde_json::from_slice(&bytes) {
                Ok(record) => record,
                Err(error) => return refuse(format!("{text} is no record this version can read ({error})")),
            };
            if record.format != harness_cache::RECORD_FORMAT {
                return refuse(format!(
                    "{text} has the format {}, and this version reads {}: import it with the version that wrote it",
                    record.format,
                    harness_cache::RECORD_FORMAT
                ));
            }
            if record.key.digest() != record.digest || text != format!("records/{}.json", record.digest) {
                return refuse(format!("{text} is not the record of the key it names"));
            }
            records.push(record);
        } else if let Some(name) = text.strip_prefix("run/").filter(|name| RUN_FILES.contains(name)) {
            std::fs::create_dir_all(scratch.path().join("run"))?;
            entry.unpack(scratch.path().join("run").join(name)).with_context(unreadable)?;
            run_files.push(name.to_string());
        }
    }
    for record in &records {
        if let Some(gone) = record.blobs().find(|digest| !present.contains_key(digest)) {
            return refuse(format!("the record {} names the blob {gone}, which is not in the archive", record.digest));
        }
        let wrong = |output: &&Output| present.get(&output.digest) != Some(&output.size);
        if let Some(output) = record.outputs.values().find(wrong) {
            return refuse(format!(
                "the record {} says that the blob {} has {} bytes, which it has not",
                record.digest, output.digest, output.size
            ));
        }
    }
    let events = std::fs::read_to_string(scratch.path().join("run/events.jsonl")).unwrap_or_default();
    let first: Value = events.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let id = first["run"].as_str().unwrap_or_default().to_string();
    // It becomes the name of a folder and is printed.
    let plain = id.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    if records.is_empty() || id.is_empty() || !plain || id.starts_with('.') {
        return refuse("it holds no recorded run with results".into());
    }
    let target = cache.dir().join("runs").join(&id);
    let known = std::fs::read_to_string(target.join("events.jsonl")).ok();
    if known.as_ref().is_some_and(|known| *known != events) {
        return refuse(format!("another run {id} is recorded here already"));
    }
    let mut added = 0;
    for record in &records {
        using.keep(&record.digest);
        // A result that is known here counts as it is: it was computed here.
        let here = cache.record(&record.digest)?;
        let complete = match &here {
            Some(here) => here
                .blobs()
                .try_fold(true, |all, digest| Ok::<_, anyhow::Error>(all && cache.blob(&digest)?.is_some()))?,
            None => false,
        };
        if !complete {
            cache.append(record)?;
            added += 1;
        }
    }
    cache.commit()?;
    if known.is_none() {
        // Its place on the other machine means nothing here: it is a run of whatever file has its name.
        let asked = std::fs::read(scratch.path().join("run/run.json")).unwrap_or_default();
        if let Ok(mut asked) = serde_json::from_slice::<runs::Asked>(&asked) {
            asked.path = PathBuf::new();
            asked.write(&scratch.path().join("run"))?;
        }
        std::fs::create_dir_all(cache.dir().join("runs"))?;
        std::fs::rename(scratch.path().join("run"), &target)
            .with_context(|| format!("{} cannot be created", target.display()))?;
    }
    drop(using);
    println!(
        "run {id}: {} of {} new here, {} of {} new, {} checked",
        added,
        count(records.len(), "result"),
        fresh,
        count(present.len(), "blob"),
        bytes(total)
    );
    println!("`harness replay {id}` shows it, `harness compare {id} RUN` sets it beside another one");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(["a", "a,b", "say \"x\""].map(field), ["a", "\"a,b\"", "\"say \"\"x\"\"\""]);
    }

    #[test]
    fn inputs_are_found_at_any_depth() {
        let params = json!({ "a": { "$artifact": { "kind": "k", "digest": "1" } }, "b": [{ "c": { "$artifact": { "digest": "2" } } }] });
        let mut found = Vec::new();
        inputs(&params, &mut found);
        assert_eq!(found, ["1", "2"]);
    }
}
