//! Operations and decoders against pictures that Pillow and OpenCV made; see `golden/make.py`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use harness_views::{
    DecodeError, Filter, IndexMask, Picture, affine, blur, centre_crop, colour, decode_index, decode_rgb, probe_size,
    resize, resize_box, resize_crop, resize_index_nearest, resize_shorter, tone, warp,
};

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn picture(name: &str) -> Picture {
    decode_rgb(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn mask(name: &str) -> IndexMask {
    decode_index(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One line of `cases.txt`.
struct Case {
    operation: String,
    arguments: Vec<String>,
    source: String,
    expected: String,
}

impl Case {
    fn number<T: std::str::FromStr>(&self, at: usize) -> T {
        self.arguments[at]
            .parse()
            .unwrap_or_else(|_| panic!("argument {at} of {}: {:?}", self.operation, self.arguments))
    }

    fn filter(&self) -> Filter {
        match self.arguments[0].as_str() {
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            other => panic!("filter {other}"),
        }
    }
}

fn cases() -> Vec<Case> {
    let text = String::from_utf8(read("cases.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let case = |line: &str| {
        let mut words: Vec<String> = line.split(' ').map(str::to_string).collect();
        let expected = words.pop().unwrap();
        let source = words.pop().unwrap();
        Case { operation: words.remove(0), arguments: words, source, expected }
    };
    lines.map(case).collect()
}

/// Size, bytes and, for the report, what was done; a mask counts as a picture of one channel.
fn outcome(case: &Case) -> (usize, usize, Vec<u8>) {
    let number = |at| case.number::<f64>(at);
    let size = |at| (case.number::<usize>(at), case.number::<usize>(at + 1));
    let of_mask = |mask: IndexMask| (mask.width, mask.height, mask.data);
    let in_place = |change: &dyn Fn(&mut Picture)| {
        let mut changed = picture(&case.source);
        change(&mut changed);
        changed
    };
    let source = &case.source;
    let done = match case.operation.as_str() {
        "decode" => picture(source),
        "resize" => resize(&picture(source), size(1).0, size(1).1, case.filter()),
        "resize_crop" => {
            let part = (size(1).0, size(1).1, size(3).0, size(3).1);
            resize_crop(&picture(source), part, size(5).0, size(5).1, case.filter())
        }
        "resize_box" => {
            let bounds = [number(1), number(2), number(3), number(4)];
            resize_box(&picture(source), bounds, size(5).0, size(5).1, case.filter())
        }
        "resize_shorter" => resize_shorter(&picture(source), case.number(1), case.filter()),
        "centre_crop" => centre_crop(&picture(source), case.number(0)),
        "brightness" => in_place(&|p| colour::brightness(p, number(0))),
        "contrast" => in_place(&|p| colour::contrast(p, number(0))),
        "saturation" => in_place(&|p| colour::saturation(p, number(0))),
        "hue" => in_place(&|p| colour::hue(p, number(0))),
        "grayscale" => in_place(&colour::grayscale),
        "sharpness" => in_place(&|p| colour::sharpness(p, number(0))),
        "posterize" => in_place(&|p| tone::posterize(p, case.number(0))),
        "solarize" => in_place(&|p| tone::solarize(p, number(0))),
        "invert" => in_place(&tone::invert),
        "equalize" => in_place(&tone::equalize),
        "auto_contrast" => in_place(&tone::auto_contrast),
        "rotate" => affine::rotate(&picture(source), number(0)),
        "shear_x" => affine::shear_x(&picture(source), number(0)),
        "shear_y" => affine::shear_y(&picture(source), number(0)),
        "translate" => affine::translate(&picture(source), case.number(0), case.number(1)),
        "flip" => picture(source).flipped(),
        "blur" => in_place(&|p| blur::gaussian_blur(p, number(0))),
        "rotate_scale" => {
            warp::rotate_scale(&picture(source), number(1), number(2), case.filter(), [case.number(3); 3])
        }
        "rotate_scale_index" => {
            return of_mask(warp::rotate_scale_index(&mask(source), number(0), number(1), case.number(2)));
        }
        "resize_index_nearest" => return of_mask(resize_index_nearest(&mask(source), size(0).0, size(0).1)),
        "decode_index" => return of_mask(mask(source)),
        other => panic!("operation {other}"),
    };
    (done.width, done.height, done.data)
}

/// Largest difference, in levels, that an operation may have.
fn tolerance(operation: &str) -> u8 {
    match operation {
        // OpenCV interpolates with 15-bit weights.
        "rotate_scale" => 1,
        _ => 0,
    }
}

#[test]
fn operations_give_what_pillow_and_opencv_give() {
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for case in cases() {
        let (width, height, data) = outcome(&case);
        let expected = match case.operation.contains("index") {
            true => mask(&case.expected).data,
            false => picture(&case.expected).data,
        };
        assert_eq!(probe_size(&read(&case.expected)).unwrap(), (width, height), "{} {}", case.operation, case.expected);
        assert_eq!(data.len(), expected.len());
        let differences = data.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
        let (largest, number) = differences.fold((0, 0), |(m, n), d| (d.max(m), n + usize::from(d > 0)));
        if largest > tolerance(&case.operation) {
            let Case { operation, arguments, source, expected } = &case;
            let of = data.len();
            wrong.push(format!(
                "{operation} {arguments:?} {source} {expected}: {largest} levels, {number} of {of} bytes"
            ));
        }
        *counts.entry(case.operation).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(counts.len() == 27 && counts.values().all(|&count| count >= 1), "{counts:?}");
}

/// Colour arithmetic has no room for luck: all of the 2^24 colours, by checksum.
#[test]
fn every_colour_is_changed_as_pillow_changes_it() {
    let all = |channel: usize| (0..1u32 << 24).map(move |i| (i >> (16 - 8 * channel)) as u8);
    let mut data = vec![0; 3 << 24];
    for channel in 0..3 {
        data.iter_mut().skip(channel).step_by(3).zip(all(channel)).for_each(|(value, level)| *value = level);
    }
    let colours = Picture { width: 4096, height: 4096, data };
    let text = String::from_utf8(read("every-colour.txt")).unwrap();
    assert_eq!(text.lines().count(), 4);
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let argument: f64 = words[1].parse().unwrap();
        let mut changed = colours.clone();
        match words[0] {
            "hue" => colour::hue(&mut changed, argument),
            "saturation" => colour::saturation(&mut changed, argument),
            other => panic!("operation {other}"),
        }
        assert_eq!(crc32fast::hash(&changed.data), words[2].parse::<u32>().unwrap(), "{line}");
    }
}

#[test]
fn headers_tell_the_size() {
    for (name, size) in [
        ("plain.jpg", (64, 48)),
        ("turned.jpg", (64, 48)),
        ("cmyk.jpg", (64, 48)),
        ("odd.png", (37, 53)),
        ("windows.bmp", (37, 53)),
        ("lossless.webp", (37, 53)),
        ("portable.ppm", (19, 1)),
    ] {
        assert_eq!(probe_size(&read(name)).unwrap(), size, "{name}");
    }
    assert!(probe_size(b"GIF89a").is_err() && probe_size(b"").is_err());
}

/// Wherever a file is cut off, it is noticed: a picture half grey would go into training unseen.
#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    for name in [
        "plain.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "grey.jpg",
        "extraneous.jpg",
        "extraneous-end.jpg",
        "scene.png",
        "palette.png",
    ] {
        let bytes = read(name);
        for end in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            assert!(decode_rgb(&bytes[..end]).is_err(), "{name} cut to {end} of {} bytes", bytes.len());
        }
    }
    let bytes = read("mask-palette.png");
    assert!((0..bytes.len()).all(|end| decode_index(&bytes[..end]).is_err()));
    let text = decode_rgb(&read("plain.jpg")[..900]).unwrap_err().to_string();
    assert!(text.starts_with("the JPEG is damaged or cut off: Premature end of JPEG"), "{text}");
}

/// Nothing that a file says makes the decoders panic.
#[test]
fn damaged_files_do_not_panic() {
    let mut stream = harness_views::Stream::new(3, "test", "damage", 0, 0, 0);
    let names = [
        "plain.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "deep.png",
        "palette-2bit.png",
        "windows.bmp",
        "lossless.webp",
        "packed.tif",
        "frames.gif",
        "portable.ppm",
        "mask-4bit.png",
    ];
    for name in names {
        let sound = read(name);
        let mut refused = 0;
        for _ in 0..40 {
            let mut bytes = sound.clone();
            for _ in 0..4 {
                let at = stream.below(bytes.len() as u64) as usize;
                bytes[at] = stream.next_u32() as u8;
            }
            let seen = (decode_rgb(&bytes).is_err(), decode_index(&bytes).is_err(), probe_size(&bytes).is_err());
            refused += usize::from(seen.0);
        }
        // A PNG has checksums, so damage is always seen.
        assert!(!name.ends_with("png") || refused == 40, "{name}: {refused}");
    }
}

#[test]
fn other_things_are_refused_in_words() {
    let colours = decode_index(&read("scene.png")).unwrap_err().to_string();
    assert!(colours.contains("Rgb PNG of 8 bits") && colours.contains("indices"), "{colours}");
    assert!(decode_index(&read("deep-grey.png")).unwrap_err().to_string().contains("16 bits"));
    assert!(matches!(decode_index(&read("plain.jpg")), Err(DecodeError::Mask(_))));
    let text = decode_rgb(b"<html>not found</html>").unwrap_err().to_string();
    assert!(text.contains("JPEG, PNG, BMP"), "{text}");
    // A header that promises 60,000 × 60,000 pixels, nothing behind it.
    let mut vast = read("plain.jpg");
    let frame = vast.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    vast[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    assert!(matches!(decode_rgb(&vast), Err(DecodeError::Size(60_000, 60_000))));
    assert!(matches!(probe_size(&vast), Err(DecodeError::Size(60_000, 60_000))));
}
