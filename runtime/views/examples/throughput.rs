//! What the picture path costs, for `tests/bench/views.py`, which compares it with torchvision's.
//!
//! `throughput make DIR N` writes N pictures; `recipe DIR` and `decode DIR` print the seconds that a picture takes;
//! `pieces DIR` prints them piece by piece; `scale DIR THREADS` prints pictures a second over so many threads, and
//! rounds a second of a computation that needs no memory. `throughput` alone prints all pieces for a person.
//! Seconds are processor time of one thread, `scale` is wall time.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use harness_views::{
    Augment, AutoAugment, Blur, Constraint, Crop, Decoder, Filter, Jitter, Normaliser, Picture, Recipe, Stream,
    ViewKey, auto_augment, blur, colour, decode_rgb, encode_jpeg, recipe, resize_crop, views,
};

type Failure = Box<dyn std::error::Error>;

const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// The study's recipe.
fn official() -> Recipe {
    let large = Crop { size: 160, scale: (0.2, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0), inside: None };
    let inside = Some(Constraint { crop: 1, min_overlap: 0.1, max_tries: 10 });
    let small = Crop { size: 96, scale: (0.05, 0.14), inside, ..large.clone() };
    let mut crops = vec![large.clone(), large];
    crops.extend(std::iter::repeat_n(small, 4));
    let jitter = Jitter { probability: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
    let blur = Blur { probability: 0.5, sigma: (0.1, 2.0) };
    let augment = Augment { jitter: Some(jitter), grayscale: 0.2, blur: Some(blur), flip: 0.5 };
    let auto = AutoAugment { crops: vec![0, 2, 3, 4, 5], probability: 0.5, flip_first: false };
    Recipe { crops, augment, auto_augment: Some(auto) }
}

/// Waves with noise: about as many bytes as a photograph of the size.
fn photograph(index: u64) -> Picture {
    let mut stream = Stream::new(index, "test", "photograph", 0, 0, 0);
    let (a, b) = (stream.uniform(9.0, 40.0), stream.uniform(9.0, 40.0));
    let mut data = Vec::with_capacity(3 * 500 * 375);
    for i in 0..500 * 375 {
        let (x, y) = ((i % 500) as f64, (i / 500) as f64);
        let noise = f64::from(stream.next_u32() >> 28) - 8.0;
        for c in 0..3 {
            data.push((128.0 + 90.0 * (x / a + y / b + f64::from(c)).sin() + noise) as u8);
        }
    }
    Picture { width: 500, height: 375, data }
}

/// Processor time of this thread.
fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the struct that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Seconds for each of `count` pictures.
fn time(count: usize, mut work: impl FnMut(usize)) -> f64 {
    let start = now();
    (0..count).for_each(&mut work);
    (now() - start).as_secs_f64() / count.max(1) as f64
}

/// From the file to numbers, with buffers that are used again.
struct FileToNumbers {
    decoder: Decoder,
    picture: Picture,
    recipe: Recipe,
    normaliser: Normaliser,
    numbers: Vec<f32>,
}

impl FileToNumbers {
    fn new() -> Self {
        Self {
            decoder: Decoder::default(),
            picture: Picture::filled(0, 0, [0; 3]),
            recipe: official(),
            normaliser: Normaliser::new(MEAN, STD),
            numbers: vec![0.0; 3 * 160 * 160],
        }
    }

    fn run(&mut self, file: &[u8], index: u64) {
        if self.decoder.decode_rgb(file, &mut self.picture).is_err() {
            return;
        }
        for view in views(&self.picture, &self.recipe, ViewKey { seed: 1, kind: "test", epoch: 0, picture: index }) {
            self.normaliser.write(&view, &mut self.numbers);
            black_box(&mut self.numbers);
        }
    }
}

fn pieces(files: &[Vec<u8>]) -> Result<Vec<(&'static str, f64)>, Failure> {
    let count = files.len();
    let pictures = files.iter().take(20).map(|file| decode_rgb(file)).collect::<Result<Vec<_>, _>>()?;
    let recipe = Recipe { augment: Augment::default(), auto_augment: None, ..official() };
    let six = views(&pictures[0], &recipe, ViewKey { seed: 1, kind: "test", epoch: 0, picture: 0 });
    let on_six = |change: &dyn Fn(&mut Picture, u64)| {
        time(count, |at| {
            for (index, view) in six.iter().enumerate() {
                let mut view = view.clone();
                change(&mut view, (6 * at + index) as u64);
                black_box(view);
            }
        })
    };
    let (mut decoder, mut decoded) = (Decoder::default(), Picture::filled(0, 0, [0; 3]));
    let normaliser = Normaliser::new(MEAN, STD);
    let numbers = std::cell::RefCell::new(vec![0.0; 3 * 160 * 160]);
    Ok(vec![
        (
            "decode",
            time(count, |at| {
                black_box(decoder.decode_rgb(&files[at], &mut decoded).is_ok());
            }),
        ),
        (
            "crop and resize",
            time(count, |at| {
                let picture = &pictures[at % pictures.len()];
                let key = ViewKey { seed: 1, kind: "test", epoch: 0, picture: at as u64 };
                for (plan, crop) in recipe::plans(picture.width, picture.height, &recipe, key).iter().zip(&recipe.crops)
                {
                    let place = plan.place;
                    let part = (place.left, place.top, place.width, place.height);
                    black_box(resize_crop(picture, part, crop.size, crop.size, Filter::Bilinear));
                }
            }),
        ),
        (
            "brightness, contrast, saturation",
            on_six(&|view, _| {
                colour::brightness(view, 1.2);
                colour::contrast(view, 0.8);
                colour::saturation(view, 1.3);
            }),
        ),
        ("hue", on_six(&|view, _| colour::hue(view, 0.07))),
        ("blur", on_six(&|view, _| blur::gaussian_blur(view, 1.3))),
        (
            "AutoAugment",
            on_six(&|view, index| {
                let drawn =
                    auto_augment::draw(&mut Stream::new(1, "test", "bench", 0, index, 0), (view.width, view.height));
                drawn.into_iter().flatten().for_each(|operation| operation.apply(view));
            }),
        ),
        ("flip", on_six(&|view, _| *view = view.flipped())),
        ("numbers", on_six(&|view, _| normaliser.write(view, &mut numbers.borrow_mut()))),
    ])
}

/// Pictures a second over threads, and rounds a second of a computation without memory.
fn scale(files: &[Vec<u8>], threads: usize) -> (f64, f64) {
    let span = |work: &(dyn Fn(usize) + Sync)| {
        let start = Instant::now();
        std::thread::scope(|scope| (0..threads).for_each(|thread| drop(scope.spawn(move || work(thread)))));
        threads as f64 / start.elapsed().as_secs_f64()
    };
    let pictures = span(&|_| {
        let mut path = FileToNumbers::new();
        files.iter().enumerate().for_each(|(at, file)| path.run(file, at as u64));
    });
    let rounds = span(&|thread| {
        black_box((0..400_000_000u64).fold(thread as u64, |x, i| (x ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    });
    (pictures * files.len() as f64, rounds)
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let read = |folder: &str| -> Result<Vec<Vec<u8>>, Failure> {
        let mut names =
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names.iter().map(std::fs::read).collect::<Result<_, _>>()?)
    };
    match words.as_slice() {
        ["make", folder, count] => {
            for index in 0..count.parse()? {
                std::fs::write(
                    Path::new(folder).join(format!("{index:05}.jpg")),
                    encode_jpeg(&photograph(index), 90)?,
                )?;
            }
        }
        ["recipe", folder] => {
            let (files, mut path) = (read(folder)?, FileToNumbers::new());
            path.run(&files[0], 0);
            println!("{}", time(files.len(), |at| path.run(&files[at], at as u64)));
        }
        ["decode", folder] => {
            let (files, mut decoder) = (read(folder)?, Decoder::default());
            let mut picture = decode_rgb(&files[0])?;
            println!("{}", time(files.len(), |at| drop(black_box(decoder.decode_rgb(&files[at], &mut picture)))));
        }
        ["pieces", folder] => pieces(&read(folder)?)?.iter().for_each(|(name, seconds)| println!("{name} {seconds}")),
        ["scale", folder, threads] => {
            let (pictures, rounds) = scale(&read(folder)?, threads.parse()?);
            println!("{pictures} {rounds}");
        }
        [] => {
            let files = (0..60).map(|index| encode_jpeg(&photograph(index), 90)).collect::<Result<Vec<_>, _>>()?;
            for (name, seconds) in pieces(&files)? {
                println!("{name:<40} {:>8.3} ms", 1e3 * seconds);
            }
            let mut path = FileToNumbers::new();
            println!("{:<40} {:>8.3} ms", "everything", 1e3 * time(files.len(), |at| path.run(&files[at], at as u64)));
        }
        _ => {
            return Err(
                "usage: throughput [make DIR N | recipe DIR | decode DIR | pieces DIR | scale DIR THREADS]".into()
            );
        }
    }
    Ok(())
}
