//! Draws a small world and lays its pictures and masks out on one sheet, to be looked at:
//! `cargo run -p harness-datasets --example contact_sheet -- FOLDER [PARAMS as JSON]`.

use std::error::Error;
use std::path::PathBuf;

use harness_datasets::{Reader, decode_mask, mask::colour, scenes};
use harness_protocol::manifest::{FileEntry, ImageManifest, VideoManifest};
use harness_protocol::steps::Scenes;

/// Pictures in a row of the sheet.
const COLUMNS: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("name a folder to write to")?);
    let params: Scenes = serde_json::from_str(&args.next().unwrap_or_else(|| "{}".into()))?;
    std::fs::create_dir_all(&folder)?;
    let tar = folder.join("scenes.tar");
    let start = std::time::Instant::now();
    let built = scenes(&params, &tar)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{:?} in {seconds:.2} s, warnings {:?}", built.metrics, built.warnings);

    let reader = Reader::open(&built.location)?;
    let train: ImageManifest = serde_json::from_slice(built.output("train").ok_or("no train")?)?;
    // Grouped by class, so that a person can judge whether a class can be told by its shape.
    let mut entries: Vec<_> = train.entries.iter().take(COLUMNS * 12).collect();
    entries.sort_by_key(|entry| entry.label);
    let pairs: Vec<_> = entries.iter().filter_map(|e| Some((&e.file, e.mask.as_deref()?))).collect();
    sheet(&reader, &pairs, params.size as usize, &folder.join("train.png"))?;
    let videos: VideoManifest = serde_json::from_slice(built.output("videos").ok_or("no videos")?)?;
    let pairs: Vec<_> = videos
        .sequences
        .iter()
        .take(6)
        .flat_map(|s| {
            (0..COLUMNS).map(|i| i * (s.frames.len() - 1) / (COLUMNS - 1)).map(|i| (&s.frames[i], &s.masks[i]))
        })
        .collect();
    sheet(&reader, &pairs, params.video_size as usize, &folder.join("videos.png"))
}

/// One sheet: a row of pictures, then the row of their masks.
fn sheet(
    reader: &Reader,
    pairs: &[(&FileEntry, &FileEntry)],
    side: usize,
    path: &std::path::Path,
) -> Result<(), Box<dyn Error>> {
    let rows = 2 * pairs.len().div_ceil(COLUMNS);
    let width = COLUMNS * side;
    let mut rgb = vec![0_u8; 3 * width * rows * side];
    for (i, (picture, mask)) in pairs.iter().enumerate() {
        let bytes = reader.read_verified(picture)?;
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes)).read_info()?;
        let mut pixels = vec![0; decoder.output_buffer_size().ok_or("too large")?];
        decoder.next_frame(&mut pixels)?;
        let mask = decode_mask(&reader.read_verified(mask)?)?;
        let (left, top) = ((i % COLUMNS) * side, (i / COLUMNS) * 2 * side);
        for y in 0..side {
            for x in 0..side {
                let at = |row: usize| 3 * ((top + row) * width + left + x);
                rgb[at(y)..at(y) + 3].copy_from_slice(&pixels[3 * (y * side + x)..][..3]);
                rgb[at(side + y)..at(side + y) + 3].copy_from_slice(&colour(mask.values[y * side + x]));
            }
        }
    }
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut encoder = png::Encoder::new(file, width as u32, (rows * side) as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&rgb)?;
    Ok(())
}
