//! Pictures a second on one thread, piece by piece, for the two recipes of the study.
//!
//! `cargo run --release -p harness-views --example throughput [pictures]`: pictures of 500 × 375, JPEG quality 90,
//! 4:2:0, made here. Every figure is the median of five rounds; run it on an idle machine.

use std::hint::black_box;
use std::time::Instant;

use harness_views::{
    Augment, Blur, Constraint, Crop, Filter, Jitter, Picture, Recipe, Stream, ViewKey, blur, colour, decode_rgb,
    encode_jpeg, resize_crop, views,
};

const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

fn recipe(large: usize, small: usize) -> Recipe {
    let crop = Crop { size: large, scale: (0.2, 1.0), ratio: RATIO, inside: None };
    let inside = Some(Constraint { crop: 1, min_overlap: 0.1, max_tries: 10 });
    let bound = Crop { size: 96, scale: (0.05, 0.14), ratio: RATIO, inside };
    let mut crops = vec![crop.clone(), crop];
    crops.extend(std::iter::repeat_n(bound, small));
    let jitter = Jitter { probability: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
    let blur = Blur { probability: 0.5, sigma: (0.1, 2.0) };
    let augment = Augment { jitter: Some(jitter), grayscale: 0.2, blur: Some(blur), flip: 0.5 };
    Recipe { crops, augment, auto_augment: None }
}

/// Waves with noise: about as many bytes as a photograph of the size.
fn photograph(index: u64) -> Picture {
    let mut stream = Stream::new(index, "photograph", 0, 0, 0);
    let (a, b) = (stream.uniform(9.0, 40.0), stream.uniform(9.0, 40.0));
    let mut data = Vec::with_capacity(3 * 500 * 375);
    for i in 0..500 * 375 {
        let (x, y) = ((i % 500) as f64, (i / 500) as f64);
        let noise = f64::from(stream.next_u32() >> 27) - 16.0;
        for c in 0..3 {
            data.push((128.0 + 90.0 * (x / a + y / b + f64::from(c)).sin() + noise) as u8);
        }
    }
    Picture { width: 500, height: 375, data }
}

/// Milliseconds for each of `count` pictures: the median of five rounds.
fn time(name: &str, count: usize, mut work: impl FnMut(usize)) {
    let mut rounds: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(&mut work);
            start.elapsed().as_secs_f64() * 1e3 / count as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:<44} {:>7.3} ms {:>8.1} pictures/s", rounds[2], 1e3 / rounds[2]);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(60), |text| text.parse())?;
    let pictures: Vec<Picture> = (0..count as u64).map(photograph).collect();
    let files = pictures.iter().map(|p| encode_jpeg(p, 90)).collect::<Result<Vec<_>, _>>()?;
    println!("{count} pictures of {} kB on average", files.iter().map(Vec::len).sum::<usize>() / count.max(1) / 1000);

    let six: Vec<Picture> = [160, 160, 96, 96, 96, 96]
        .iter()
        .map(|&side| resize_crop(&pictures[0], (100, 50, 240, 200), side, side, Filter::Bilinear))
        .collect();
    let on_six = |name: &str, change: &dyn Fn(&mut Picture)| {
        time(name, count, |_| {
            for view in &six {
                let mut view = view.clone();
                change(&mut view);
                black_box(view);
            }
        });
    };
    time("decode", count, |i| {
        black_box(decode_rgb(&files[i]).ok());
    });
    on_six("6 × brightness, contrast, saturation", &|view| {
        colour::brightness(view, 1.2);
        colour::contrast(view, 0.8);
        colour::saturation(view, 1.3);
    });
    on_six("6 × hue", &|view| colour::hue(view, 0.07));
    on_six("6 × blur", &|view| blur::gaussian_blur(view, 1.3));
    let plain = |recipe: Recipe| Recipe { augment: Augment::default(), ..recipe };
    for (name, recipe) in [
        ("2 × 224: crop and resize", plain(recipe(224, 0))),
        ("2 × 160 + 4 × 96: crop and resize", plain(recipe(160, 4))),
    ] {
        time(name, count, |i| {
            black_box(views(&pictures[i], &recipe, ViewKey { seed: 1, epoch: 0, picture: i as u64 }));
        });
    }
    for (name, recipe) in
        [("2 × 224, from file to tensor", recipe(224, 0)), ("2 × 160 + 4 × 96, from file to tensor", recipe(160, 4))]
    {
        let mut tensor = vec![0.0; 3 * 224 * 224];
        time(name, count, |i| {
            let Ok(picture) = decode_rgb(&files[i]) else { return };
            for view in views(&picture, &recipe, ViewKey { seed: 1, epoch: 0, picture: i as u64 }) {
                view.write_normalised([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], &mut tensor);
                black_box(&mut tensor);
            }
        });
    }
    Ok(())
}
