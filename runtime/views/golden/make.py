"""Makes the pictures in this folder and `cases.txt`: what Pillow and OpenCV give for known inputs.

    pip install 'pillow<13' numpy 'opencv-python-headless<5'
    python make.py

Pillow 13 orders the two passes of a resize differently on some crops (at most one level): stay below it. The
tests read only what lies here; they never run Python. The versions used are the first line of `cases.txt`.

A line of `cases.txt`: operation, its arguments, input file, expected file. The lines of `every-colour.txt`: operation,
argument, CRC-32 of what it makes of all 2^24 colours (red changes slowest, rows of 4,096). Colour operations follow the functions of
torchvision (`transforms/functional_pil.py`) that the file's own functions are named for, written with Pillow alone.
"""

import math
import random
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageFilter, ImageOps, features

HERE = Path(__file__).parent
BILINEAR, BICUBIC, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST
AFFINE = Image.Transform.AFFINE
lines = []


def scene(width, height, seed):
    """Waves, a disc, a saturated box and some noise: smooth parts, edges and every channel's extremes."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(float)
    phase = draw.uniform(0, 6, 3)
    waves = [127 + 120 * np.sin(x / (5 + 4 * c) + y / (9 - 2 * c) + phase[c]) for c in range(3)]
    rgb = np.stack(waves, -1)
    disc = (x - width * 0.6) ** 2 + (y - height * 0.4) ** 2 < (min(width, height) * 0.25) ** 2
    rgb[disc] = [250, 20, 60]
    rgb[: height // 4, : width // 4] = [0, 255, 255]
    rgb[height // 2 :, : width // 3] += draw.normal(0, 40, (height - height // 2, width // 3, 3))
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8), "RGB")


def labels(width, height):
    y, x = np.mgrid[0:height, 0:width]
    mask = ((x // 7 + y // 5) % 21).astype(np.uint8)
    mask[(x % 13 == 0) | (y % 11 == 0)] = 255
    return mask


def voc_palette():
    colours = []
    for index in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours += colour
    return colours


def keep(name, picture, **options):
    picture.save(HERE / name, **options)
    return name


def case(operation, arguments, source, expected):
    """Writes the expected picture and its line."""
    name = f"out/{len(lines):03}.png"
    keep(name, expected, optimize=True)
    lines.append(f"{operation} {' '.join(str(a) for a in arguments)} {source} {name}".replace("  ", " "))


def adjust_hue(picture, shift):
    h, s, v = picture.convert("HSV").split()
    h = h.point([(level + int(shift * 255)) % 256 for level in range(256)])
    return Image.merge("HSV", (h, s, v)).convert("RGB")


def resize_shorter(picture, size, resample):
    w, h = picture.size
    short, long = (w, h) if w <= h else (h, w)
    other = int(size * long / short)
    w, h = (size, other) if w <= h else (other, size)
    return picture.resize((w, h), resample)


def centre_crop(picture, size):
    w, h = picture.size
    if size > w or size > h:
        left, top = (size - w) // 2 if size > w else 0, (size - h) // 2 if size > h else 0
        padded = Image.new("RGB", (max(w, size), max(h, size)))
        padded.paste(picture, (left, top))
        picture, (w, h) = padded, padded.size
    top, left = round((h - size) / 2.0), round((w - size) / 2.0)
    return picture.crop((left, top, left + size, top + size))


def warp(array, degrees, scale, flags, border):
    h, w = array.shape[:2]
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, scale)
    return cv2.warpAffine(array, matrix, (w, h), flags=flags, borderValue=border)


def sources():
    made = {
        "scene.png": scene(64, 48, 1),
        "odd.png": scene(37, 53, 2),
        "dot.png": Image.new("RGB", (1, 1), (200, 30, 90)),
        "row.png": scene(19, 1, 3),
        "column.png": scene(1, 23, 4),
    }
    # Every corner and edge of the colour cube, and colours at random.
    draw = np.random.default_rng(5)
    cube = np.array([[r, g, b] for r in (0, 1, 127, 128, 254, 255) for g in (0, 1, 127, 128, 254, 255)
                     for b in (0, 1, 127, 128, 254, 255)], np.uint8)
    colours = np.concatenate([cube, draw.integers(0, 256, (3072 - len(cube), 3), np.uint8)]).reshape(48, 64, 3)
    made["colours.png"] = Image.fromarray(colours, "RGB")
    for name, picture in made.items():
        keep(name, picture, optimize=True)
    return made


def resizes(made):
    for name, filter_name, resample, sizes in [
        ("scene.png", "bilinear", BILINEAR, [(24, 24), (64, 20), (31, 48), (96, 80), (1, 1), (64, 48)]),
        ("scene.png", "bicubic", BICUBIC, [(24, 24), (77, 31)]),
        ("odd.png", "bilinear", BILINEAR, [(32, 32), (9, 61)]),
        ("odd.png", "bicubic", BICUBIC, [(32, 32), (36, 54)]),
        ("dot.png", "bilinear", BILINEAR, [(3, 2)]),
        ("row.png", "bilinear", BILINEAR, [(8, 8)]),
        ("column.png", "bicubic", BICUBIC, [(8, 8)]),
    ]:
        for size in sizes:
            case("resize", [filter_name, *size], name, made[name].resize(size, resample))
    draw = random.Random(7)
    for _ in range(6):
        w, h = draw.randint(5, 50), draw.randint(5, 40)
        left, top = draw.randint(0, 64 - w), draw.randint(0, 48 - h)
        cropped = made["scene.png"].crop((left, top, left + w, top + h)).resize((32, 32), BILINEAR)
        case("resize_crop", ["bilinear", left, top, w, h, 32, 32], "scene.png", cropped)
    for resample, filter_name in [(BILINEAR, "bilinear"), (BICUBIC, "bicubic")]:
        for box in [(3.25, 1.5, 40.75, 47.0), (10.0, 10.0, 12.5, 11.0), (0.0, 0.0, 24.0, 24.0)]:
            boxed = made["scene.png"].resize((24, 24), resample, box=box)
            case("resize_box", [filter_name, *box, 24, 24], "scene.png", boxed)
    for name, size in [("scene.png", 20), ("odd.png", 20), ("odd.png", 50), ("scene.png", 48)]:
        case("resize_shorter", ["bilinear", size], name, resize_shorter(made[name], size, BILINEAR))
        case("resize_shorter", ["bicubic", size], name, resize_shorter(made[name], size, BICUBIC))
    for name, size in [("scene.png", 31), ("odd.png", 32), ("odd.png", 45), ("dot.png", 4), ("scene.png", 70)]:
        case("centre_crop", [size], name, centre_crop(made[name], size))


def colours(made):
    for name in ["scene.png", "colours.png", "dot.png"]:
        for factor in [0.0, 0.6, 0.77, 1.0, 1.23, 1.4, 3.0]:
            if name != "colours.png" and factor not in (0.6, 1.4):
                continue
            for operation, kind in [
                ("brightness", ImageEnhance.Brightness),
                ("contrast", ImageEnhance.Contrast),
                ("saturation", ImageEnhance.Color),
            ]:
                case(operation, [factor], name, kind(made[name]).enhance(factor))
    for shift in [-0.5, -0.1, -0.03, 0.0, 0.05, 0.1, 0.5]:
        case("hue", [shift], "colours.png", adjust_hue(made["colours.png"], shift))
    case("hue", [0.1], "scene.png", adjust_hue(made["scene.png"], 0.1))
    for name in ["scene.png", "colours.png"]:
        case("grayscale", [], name, made[name].convert("L").convert("RGB"))
    case("flip", [], "odd.png", made["odd.png"].transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def blurs(made):
    for name, radii in [
        ("scene.png", [0.1, 0.33, 0.5, 0.9, 1.3, 2.0, 5.5]),
        ("odd.png", [1.7, 30.0]),
        ("colours.png", [0.71]),
        ("row.png", [2.0]),
        ("column.png", [2.0]),
        ("dot.png", [1.0]),
    ]:
        for radius in radii:
            case("blur", [radius], name, made[name].filter(ImageFilter.GaussianBlur(radius)))


def warps(made):
    mask = labels(37, 29)
    keep("mask.png", Image.fromarray(mask, "L"), optimize=True)
    for name, degrees, scale in [
        ("scene.png", 0.0, 1.0),
        ("scene.png", 5.0, 0.75),
        ("scene.png", -3.7, 1.25),
        ("odd.png", 2.2, 0.9),
        ("odd.png", 90.0, 1.0),
    ]:
        array = np.asarray(made[name])
        for filter_name, flag in [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)]:
            warped = warp(array, degrees, scale, flag, (0, 0, 0))
            case("rotate_scale", [filter_name, degrees, scale, 0], name, Image.fromarray(warped, "RGB"))
        warped = warp(mask, degrees, scale, cv2.INTER_NEAREST, 255)
        case("rotate_scale_index", [degrees, scale, 255], "mask.png", Image.fromarray(warped, "L"))
    warped = warp(np.asarray(made["scene.png"]), 30.0, 0.6, cv2.INTER_CUBIC, (90, 90, 90))
    case("rotate_scale", ["bicubic", 30.0, 0.6, 90], "scene.png", Image.fromarray(warped, "RGB"))
    for size in [(12, 9), (74, 58), (50, 29), (1, 1)]:
        case("resize_index_nearest", size, "mask.png", Image.fromarray(mask, "L").resize(size, NEAREST))


def decoding(made):
    """Files as they are met; what comes out is what `open().convert("RGB")` gives."""
    base, odd = made["scene.png"], made["odd.png"]
    files = []

    def file(name, picture, **options):
        files.append(keep(name, picture, **options))

    file("plain.jpg", base, quality=90)
    file("progressive.jpg", odd, quality=75, progressive=True)
    file("sharp.jpg", odd, quality=95, subsampling=0)
    file("dot.jpg", made["dot.png"], quality=80)
    file("grey.jpg", base.convert("L"), quality=85)
    file("cmyk.jpg", base.convert("CMYK"), quality=90)
    turned = Image.Exif()
    turned[0x0112] = 6
    file("turned.jpg", base, quality=80, exif=turned)
    # Bytes without meaning in front of the end marker and of a table, and a JFIF revision from the future: harmless,
    # and met in real sets.
    sound = (HERE / "plain.jpg").read_bytes()
    tables = sound.index(b"\xff\xdb")
    revision = sound.index(b"JFIF\0") + 5
    for name, content in [
        ("extraneous-end.jpg", sound[:-2] + b"\x00\x11\x22" + sound[-2:]),
        ("extraneous.jpg", sound[:tables] + b"\x00\x11\x22" + sound[tables:]),
        ("revision.jpg", sound[:revision] + b"\x07" + sound[revision + 1 :]),
    ]:
        (HERE / name).write_bytes(content)
        files.append(name)

    file("palette.png", base.quantize(37), optimize=True)
    file("palette-2bit.png", base.quantize(4), bits=2)
    file("palette-clear.png", base.quantize(16), transparency=3)
    file("alpha.png", Image.merge("RGBA", (*base.split(), base.convert("L"))))
    file("grey-alpha.png", Image.merge("LA", (base.convert("L"), base.split()[0])))
    file("grey.png", odd.convert("L"))
    file("bits.png", odd.convert("1"))
    deep = np.asarray(base).astype(np.uint16) * 257 - np.uint16(3) * (np.asarray(base) > 100)
    (HERE / "deep.png").write_bytes(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())
    files.append("deep.png")
    file("windows.bmp", odd)
    file("portable.ppm", made["row.png"])
    file("lossless.webp", odd, lossless=True)
    file("packed.tif", odd, compression="tiff_lzw")
    file("frames.gif", base.quantize(64))
    for name in files:
        case("decode", [], name, Image.open(HERE / name).convert("RGB"))

    # 16-bit grey: Pillow would cut it to 255; the high byte is what is expected here.
    grey = (np.arange(64 * 48, dtype=np.uint16) * 21).reshape(48, 64)
    keep("deep-grey.png", Image.fromarray(grey))
    case("decode", [], "deep-grey.png", Image.fromarray((grey >> 8).astype(np.uint8), "L").convert("RGB"))

    mask = labels(37, 29)
    coloured = Image.fromarray(mask, "P")
    coloured.putpalette(voc_palette())
    keep("mask-palette.png", coloured)
    case("decode_index", [], "mask-palette.png", Image.fromarray(mask, "L"))
    case("decode_index", [], "mask.png", Image.fromarray(mask, "L"))
    for bits in (1, 2, 4):
        few = mask % 2**bits
        picture = Image.fromarray(few, "P")
        picture.putpalette(voc_palette()[: 3 * 2**bits])
        keep(f"mask-{bits}bit.png", picture, bits=bits)
        case("decode_index", [], f"mask-{bits}bit.png", Image.fromarray(few, "L"))


def more_files(made):
    """Rarer files, again as `open().convert("RGB")` gives them."""
    base = made["scene.png"]
    inks = (HERE / "cmyk.jpg").read_bytes()
    adobe = inks.index(b"Adobe\0")
    # The same numbers read as luma, chroma and black: Adobe's YCCK.
    (HERE / "ycck.jpg").write_bytes(inks[: adobe + 11] + b"\x02" + inks[adobe + 12 :])
    keep("rgb.jpg", base, quality=90, keep_rgb=True)
    keep("tall-chroma.jpg", base, quality=90, subsampling=1)
    for orientation in (3, 8):
        turned = Image.Exif()
        turned[0x0112] = orientation
        keep(f"turned-{orientation}.png", made["odd.png"], exif=turned)
    low = np.random.default_rng(8).integers(0, 256, (48, 64, 3), np.uint16)
    deep = np.asarray(base).astype(np.uint16) * 256 + low
    (HERE / "deep-noise.png").write_bytes(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())
    (HERE / "deep.tif").write_bytes(cv2.imencode(".tif", deep[..., ::-1])[1].tobytes())
    keep("grey.tif", base.convert("L"), compression="tiff_deflate")
    keep("bits.tif", base.convert("1"))
    keep("inks.tif", base.convert("CMYK"))
    keep("palette.bmp", base.quantize(37))
    keep("grey.pgm", base.convert("L"))
    keep("clear.webp", Image.merge("RGBA", (*base.split(), base.convert("L"))), lossless=True, exact=True)
    for name in ["ycck.jpg", "rgb.jpg", "tall-chroma.jpg", "turned-3.png", "turned-8.png", "deep-noise.png",
                 "deep.tif", "grey.tif", "bits.tif", "inks.tif", "palette.bmp", "grey.pgm", "clear.webp"]:
        case("decode", [], name, Image.open(HERE / name).convert("RGB"))


def auto_augment(made):
    """The operations of AutoAugment; those of colour that are not named here are among the colours above."""

    def sheared(picture, along, angle):
        # Inverse of a shear about the centre; the study takes the tangent of the value.
        slope, (w, h) = math.tan(angle), picture.size
        matrix = (1, slope, -slope * h / 2, 0, 1, 0) if along == "x" else (1, 0, 0, slope, 1, -slope * w / 2)
        return picture.transform(picture.size, AFFINE, matrix, NEAREST)

    # Few levels in the middle of the range, so that stretching and equalising have something to do.
    narrow = made["scene.png"].point(lambda level: 60 + level // 9 * 5)
    keep("narrow.png", narrow, optimize=True)
    made = {**made, "narrow.png": narrow}
    for name in ["scene.png", "colours.png", "narrow.png", "dot.png", "row.png"]:
        case("equalize", [], name, ImageOps.equalize(made[name]))
        case("auto_contrast", [], name, ImageOps.autocontrast(made[name]))
    case("invert", [], "scene.png", ImageOps.invert(made["scene.png"]))
    for bits in range(1, 9):
        case("posterize", [bits], "scene.png", ImageOps.posterize(made["scene.png"], bits))
    for m in range(10):
        threshold = 256 * (1 - m / 9)
        case("solarize", [threshold], "colours.png", ImageOps.solarize(made["colours.png"], threshold))
    for name in ["scene.png", "odd.png", "colours.png", "dot.png", "row.png"]:
        for factor in [0.3, 1.7] if name != "scene.png" else [0.0, 0.1, 0.3, 1.0, 1.7, 1.9]:
            case("sharpness", [factor], name, ImageEnhance.Sharpness(made[name]).enhance(factor))
    for name in ["colours.png", "narrow.png"]:
        for m in [1, 2, 4, 8, 9]:
            for factor in [1 - 0.9 * m / 9, 1 + 0.9 * m / 9]:
                case("saturation", [factor], name, ImageEnhance.Color(made[name]).enhance(factor))
                case("contrast", [factor], name, ImageEnhance.Contrast(made[name]).enhance(factor))
                case("brightness", [factor], name, ImageEnhance.Brightness(made[name]).enhance(factor))
    square = scene(96, 96, 6)
    keep("square.png", square, optimize=True)
    made["square.png"] = square
    for name in ["square.png", "odd.png", "row.png", "dot.png"]:
        picture = made[name]
        w, h = picture.size
        for m in [3, 8, 9] if name != "dot.png" else [9]:
            for sign in (-1, 1):
                degrees, angle = sign * 30 * m / 9, sign * 0.3 * m / 9
                case("rotate", [degrees], name, picture.rotate(degrees, NEAREST))
                case("shear_x", [angle], name, sheared(picture, "x", angle))
                case("shear_y", [angle], name, sheared(picture, "y", angle))
                right, down = (int(sign * 150 / 331 * m / 9 * side) for side in (w, h))
                moved = picture.transform(picture.size, AFFINE, (1, 0, -right, 0, 1, -down), NEAREST)
                case("translate", [right, down], name, moved)
    case("rotate", [0.0], "odd.png", made["odd.png"].rotate(0.0, NEAREST))


def every_colour():
    channels = np.arange(2**24, dtype=np.uint32)
    rgb = np.stack([channels >> 16, channels >> 8 & 255, channels & 255], -1).astype(np.uint8)
    picture = Image.fromarray(rgb.reshape(4096, 4096, 3), "RGB")
    found = [("hue", shift, adjust_hue(picture, shift)) for shift in (0.0, 0.1, -0.37)]
    found.append(("saturation", 1.37, ImageEnhance.Color(picture).enhance(1.37)))
    text = [f"{operation} {argument} {zlib.crc32(made.tobytes())}" for operation, argument, made in found]
    (HERE / "every-colour.txt").write_text("\n".join(text) + "\n")


def main():
    for old in [*HERE.glob("*.*"), *HERE.glob("out/*")]:
        if old.is_file() and old.suffix != ".py":
            old.unlink()
    (HERE / "out").mkdir(exist_ok=True)
    made = sources()
    resizes(made)
    colours(made)
    blurs(made)
    warps(made)
    decoding(made)
    more_files(made)
    auto_augment(made)
    every_colour()
    versions = (f"# Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, OpenCV {cv2.__version__}, "
                f"numpy {np.__version__}")
    print(versions)
    (HERE / "cases.txt").write_text("\n".join([versions, *lines]) + "\n")


main()
