//! Resizing as OpenCV does it, against pictures that OpenCV made; see `golden/opencv.py`.

use std::path::PathBuf;

use harness_views::opencv::{resize_cubic, resize_index_floor};
use harness_views::{decode_index, decode_rgb};

#[test]
fn resizing_gives_what_opencv_gives() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let read = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut cubic, mut nearest, mut bytes, mut off) = (0, 0, 0, 0);
    for file in std::fs::read_dir(golden.join("opencv")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let parts: Vec<&str> = name.split('-').collect();
        let (width, height) = parts[2].split_once('x').unwrap();
        let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
        let source = read(golden.join(format!("{}.png", parts[1])));
        if parts[0] == "cubic" {
            let expected = decode_rgb(&read(path.clone())).unwrap();
            let ours = resize_cubic(&decode_rgb(&source).unwrap(), width, height);
            assert_eq!((ours.width, ours.height), (expected.width, expected.height), "{name}");
            let differences = ours.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b));
            assert!(differences.clone().all(|levels| levels <= 1), "{name}: {:?} levels", differences.max());
            off += differences.filter(|&levels| levels > 0).count();
            bytes += ours.data.len();
            cubic += 1;
        } else {
            let expected = decode_index(&read(path.clone())).unwrap();
            assert_eq!(resize_index_floor(&decode_index(&source).unwrap(), width, height), expected, "{name}");
            nearest += 1;
        }
    }
    assert_eq!((cubic, nearest), (13, 8));
    assert!(off * 1000 <= bytes, "{off} of {bytes} bytes are a level off");
}
