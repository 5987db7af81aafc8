//! The same arithmetic as the plain loops, eight or more numbers at a time, on processors that have AVX2.
//!
//! A kernel does a part of its work and says how much; the plain loop beside its caller does the rest, and all of it on
//! other processors. Both give the same bytes; the tests of this file hold them to it.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Whether the kernels can be used here.
#[inline]
pub fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        #[cfg(test)]
        if tests::SCALAR.get() {
            return false;
        }
        std::arch::is_x86_feature_detected!("avx2")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Runs a kernel where it can be, else gives the value that says that nothing was done.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $out:ty, $nothing:expr) => {
        $(#[$doc])*
        #[inline]
        #[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
        pub fn $name($($arg: $ty),*) -> $out {
            #[cfg(target_arch = "x86_64")]
            if available() {
                // SAFETY: the processor has AVX2.
                return unsafe { avx2::$name($($arg),*) };
            }
            $nothing
        }
    };
}

kernel!(
    /// [`crate::colour::hue`]: bytes done.
    hue(data: &mut [u8], shift: u8) -> usize, 0
);
kernel!(
    /// [`crate::colour::saturation`]: bytes done.
    saturation(data: &mut [u8], factor: f32) -> usize, 0
);
kernel!(
    /// [`crate::colour::grayscale`]: bytes done.
    grayscale(data: &mut [u8]) -> usize, 0
);
kernel!(
    /// Blends every byte with one level: bytes done.
    blend_level(data: &mut [u8], level: u8, factor: f32) -> usize, 0
);
kernel!(
    /// Sum of the luma of the first pixels, and bytes done.
    luma_sum(data: &[u8]) -> (u64, usize), (0, 0)
);
kernel!(
    /// Copies RGB pixels in reversed order: pixels done, counted from the start of `from` and the end of `to`.
    reverse_pixels(from: &[u8], to: &mut [u8]) -> usize, 0
);
kernel!(
    /// Weighted sums of rows, see [`crate::resize`]: bytes of `out` done. `rows` begins at the first row, `pairs` holds the
    /// weights of two rows each.
    vertical(rows: &[u8], stride: usize, pairs: &[WeightPair], out: &mut [u8]) -> usize, 0
);
kernel!(
    /// Weighted sums along four rows, see [`crate::resize`]; whether it was done. `out` takes 4 rows of `out_stride` bytes,
    /// each with at least one byte behind its last pixel.
    horizontal_four(rows: [&[u8]; 4], spans: &[Groups], weights: &[[i16; 8]], out: &mut [u8], out_stride: usize) -> bool,
    false
);

/// Bits of a weight's low part. Weights have 22 bits behind the point, and the multiplication takes 16: a weight is
/// `high · 2¹¹ + low`.
pub const LOW_BITS: u32 = 11;

/// The weights of two rows, high parts and low parts, as pairs of 16 bits.
#[derive(Clone, Copy, Debug)]
pub struct WeightPair {
    pub high: i32,
    pub low: i32,
    /// Whether there is a second row.
    pub two: bool,
}

/// Where the weights of an output pixel are, four input pixels a group.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// First input pixel.
    pub first: usize,
    /// First group and number of groups.
    pub start: usize,
    pub count: usize,
}

/// High and low part of a weight.
pub fn split(weight: i32) -> (i16, i16) {
    ((weight >> LOW_BITS) as i16, (weight & ((1 << LOW_BITS) - 1)) as i16)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use crate::resize::{BITS, HALF};

    /// Eight pixels; 28 bytes are read.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn load_eight(data: &[u8]) -> __m256i {
        let data = &data[..28];
        // SAFETY: 16 bytes from 0 and from 12 are inside of the 28.
        unsafe {
            let low = _mm_loadu_si128(data.as_ptr().cast());
            let high = _mm_loadu_si128(data.as_ptr().add(12).cast());
            _mm256_set_m128i(high, low)
        }
    }

    /// Writes the first twelve bytes of each half, one behind the other: 24 bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn store_eight(data: &mut [u8], value: __m256i) {
        let data = &mut data[..24];
        let high = _mm256_extracti128_si256::<1>(value);
        // SAFETY: bytes 0 to 15, 12 to 19 and 20 to 23 are inside of the 24.
        unsafe {
            let to = data.as_mut_ptr();
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(value));
            _mm_storel_epi64(to.add(12).cast(), high);
            to.add(20).cast::<i32>().write_unaligned(_mm_extract_epi32::<2>(high));
        }
    }

    /// A shuffle with the same pattern in both halves.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn both(pattern: [i8; 16]) -> __m256i {
        // SAFETY: 16 bytes are read from an array of 16.
        let half = unsafe { _mm_loadu_si128(pattern.as_ptr().cast()) };
        _mm256_broadcastsi128_si256(half)
    }

    /// The channels of eight pixels, each as eight 32-bit numbers.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn channels(pixels: __m256i) -> [__m256i; 3] {
        let pick = |c: i8| both([c, -1, -1, -1, 3 + c, -1, -1, -1, 6 + c, -1, -1, -1, 9 + c, -1, -1, -1]);
        [0, 1, 2].map(|c| _mm256_shuffle_epi8(pixels, pick(c)))
    }

    /// Twelve bytes of each half from its four numbers' lowest three bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn packed(numbers: __m256i) -> __m256i {
        _mm256_shuffle_epi8(numbers, both([0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1]))
    }

    /// Luma of eight pixels. The products are whole numbers below 2²⁴, so single precision is exact.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn luma(red: __m256, green: __m256, blue: __m256) -> __m256i {
        let sum = _mm256_add_ps(
            _mm256_add_ps(_mm256_mul_ps(red, _mm256_set1_ps(19595.0)), _mm256_mul_ps(green, _mm256_set1_ps(38470.0))),
            _mm256_add_ps(_mm256_mul_ps(blue, _mm256_set1_ps(7471.0)), _mm256_set1_ps(32768.0)),
        );
        _mm256_srli_epi32::<16>(_mm256_cvttps_epi32(sum))
    }

    /// `level + factor·(value − level)`, cut off and clipped.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn blend(level: __m256, value: __m256, factor: __m256) -> __m256i {
        let mixed = _mm256_add_ps(level, _mm256_mul_ps(factor, _mm256_sub_ps(value, level)));
        // In this order, what is no number becomes 0.
        let clipped = _mm256_min_ps(_mm256_max_ps(mixed, _mm256_setzero_ps()), _mm256_set1_ps(255.0));
        _mm256_cvttps_epi32(clipped)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn joined([red, green, blue]: [__m256i; 3]) -> __m256i {
        _mm256_or_si256(red, _mm256_or_si256(_mm256_slli_epi32::<8>(green), _mm256_slli_epi32::<16>(blue)))
    }

    /// Changes eight pixels at a time, as long as 28 bytes are left; bytes done.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn each_eight(data: &mut [u8], change: impl Fn(__m256i) -> __m256i) -> usize {
        let mut at = 0;
        while at + 28 <= data.len() {
            let changed = change(load_eight(&data[at..]));
            store_eight(&mut data[at..], changed);
            at += 24;
        }
        at
    }

    #[target_feature(enable = "avx2")]
    pub fn saturation(data: &mut [u8], factor: f32) -> usize {
        let factor = _mm256_set1_ps(factor);
        each_eight(data, |pixels| {
            let floats = channels(pixels).map(|channel| _mm256_cvtepi32_ps(channel));
            let grey = _mm256_cvtepi32_ps(luma(floats[0], floats[1], floats[2]));
            packed(joined(floats.map(|value| blend(grey, value, factor))))
        })
    }

    #[target_feature(enable = "avx2")]
    pub fn grayscale(data: &mut [u8]) -> usize {
        each_eight(data, |pixels| {
            let [red, green, blue] = channels(pixels).map(|channel| _mm256_cvtepi32_ps(channel));
            _mm256_shuffle_epi8(luma(red, green, blue), both([0, 0, 0, 4, 4, 4, 8, 8, 8, 12, 12, 12, -1, -1, -1, -1]))
        })
    }

    #[target_feature(enable = "avx2")]
    pub fn luma_sum(data: &[u8]) -> (u64, usize) {
        let (mut total, mut at) = (0u64, 0);
        while at + 28 <= data.len() {
            let mut sums = _mm256_setzero_si256();
            // A lane holds 2³¹ / 255 pixels and more.
            let end = data.len().min(at + 24 * 1_000_000);
            while at + 28 <= end {
                let [red, green, blue] = channels(load_eight(&data[at..])).map(|channel| _mm256_cvtepi32_ps(channel));
                sums = _mm256_add_epi32(sums, luma(red, green, blue));
                at += 24;
            }
            let mut lanes = [0u32; 8];
            // SAFETY: 32 bytes are written to an array of 32.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
            total += lanes.iter().map(|&lane| u64::from(lane)).sum::<u64>();
        }
        (total, at)
    }

    #[target_feature(enable = "avx2")]
    pub fn blend_level(data: &mut [u8], level: u8, factor: f32) -> usize {
        let (level, factor) = (_mm256_set1_ps(f32::from(level)), _mm256_set1_ps(factor));
        let mut done = 0;
        for bytes in data.chunks_exact_mut(16) {
            // SAFETY: 16 bytes are read and written.
            let value = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
            let [low, high] = [value, _mm_srli_si128::<8>(value)]
                .map(|half| blend(level, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(half)), factor));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let packed = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            // SAFETY: as above.
            unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), packed) };
            done += 16;
        }
        done
    }

    #[target_feature(enable = "avx2")]
    pub fn hue(data: &mut [u8], shift: u8) -> usize {
        let one = _mm256_set1_ps(1.0);
        let shift = _mm256_set1_epi32(i32::from(shift));
        let share = _mm256_set1_ps(1.0 / 255.0);
        // Which of (value, low, between) each channel takes, by sector; byte 3 stays empty.
        let order = |r: i32, g: i32, b: i32| r | g << 8 | b << 16 | 0x80 << 24;
        let orders = _mm256_setr_epi32(
            order(0, 2, 1),
            order(2, 0, 1),
            order(1, 0, 2),
            order(1, 2, 0),
            order(2, 1, 0),
            order(0, 1, 2),
            order(0, 2, 1),
            0,
        );
        let place = |lane: i32| lane * 0x0004_0404;
        let places = _mm256_setr_epi32(place(0), place(1), place(2), place(3), place(0), place(1), place(2), place(3));
        each_eight(data, |pixels| {
            let [red, green, blue] = channels(pixels);
            let max = _mm256_max_epi16(red, _mm256_max_epi16(green, blue));
            let min = _mm256_min_epi16(red, _mm256_min_epi16(green, blue));
            let sum = _mm256_add_epi32(red, _mm256_add_epi32(green, blue));
            // The largest less the one in the middle: max − (sum − max − min).
            let below = _mm256_sub_epi32(_mm256_add_epi32(max, _mm256_add_epi32(max, min)), sum);
            let value = _mm256_cvtepi32_ps(max);
            let range = _mm256_cvtepi32_ps(_mm256_sub_epi32(max, min));
            let saturation = _mm256_div_ps(range, _mm256_max_ps(value, one));
            let saturation = _mm256_cvttps_epi32(_mm256_mul_ps(saturation, _mm256_set1_ps(255.0)));
            let part = _mm256_div_ps(_mm256_cvtepi32_ps(below), _mm256_max_ps(range, one));

            let is_red = _mm256_cmpeq_epi32(red, max);
            let is_green = _mm256_andnot_si256(is_red, _mm256_cmpeq_epi32(green, max));
            let centre = _mm256_blendv_ps(_mm256_set1_ps(4.0), _mm256_set1_ps(2.0), _mm256_castsi256_ps(is_green));
            let centre = _mm256_andnot_ps(_mm256_castsi256_ps(is_red), centre);
            let rising = _mm256_blendv_epi8(_mm256_cmpeq_epi32(red, min), _mm256_cmpeq_epi32(blue, min), is_green);
            let rising = _mm256_blendv_epi8(rising, _mm256_cmpeq_epi32(green, min), is_red);
            let sign = _mm256_castsi256_ps(_mm256_andnot_si256(rising, _mm256_set1_epi32(i32::MIN)));
            let whole = _mm256_sub_ps(centre, _mm256_xor_ps(one, sign));
            let sixths = _mm256_add_ps(whole, _mm256_xor_ps(part, sign));
            let turn = _mm256_div_ps(sixths, _mm256_set1_ps(6.0));
            let wrapped = _mm256_and_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(turn, _mm256_setzero_ps()), one);
            let hue = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_add_ps(turn, wrapped), _mm256_set1_ps(255.0)));
            let hue = _mm256_and_si256(_mm256_add_epi32(hue, shift), _mm256_set1_epi32(255));

            // Sector and place in it: 6·hue divided by 255, and what is left.
            let six = _mm256_mullo_epi16(hue, _mm256_set1_epi32(6));
            let more = _mm256_madd_epi16(_mm256_add_epi32(six, _mm256_set1_epi32(1)), _mm256_set1_epi32(257));
            let sector = _mm256_srli_epi32::<16>(more);
            let left = _mm256_sub_epi32(six, _mm256_mullo_epi16(sector, _mm256_set1_epi32(255)));
            let fraction = _mm256_mul_ps(_mm256_cvtepi32_ps(left), share);
            // Falling in odd sectors, rising in even ones.
            let odd = _mm256_castsi256_ps(_mm256_slli_epi32::<31>(sector));
            let fraction = _mm256_blendv_ps(_mm256_sub_ps(one, fraction), fraction, odd);
            let saturation = _mm256_mul_ps(_mm256_cvtepi32_ps(saturation), share);
            let half = _mm256_set1_ps(0.5);
            let level = |share: __m256| {
                _mm256_cvttps_epi32(_mm256_add_ps(_mm256_mul_ps(value, _mm256_sub_ps(one, share)), half))
            };
            let low = level(saturation);
            let between = level(_mm256_mul_ps(saturation, fraction));
            let control = _mm256_add_epi32(_mm256_permutevar8x32_epi32(orders, sector), places);
            packed(_mm256_shuffle_epi8(joined([max, low, between]), control))
        })
    }

    #[target_feature(enable = "avx2")]
    pub fn reverse_pixels(from: &[u8], to: &mut [u8]) -> usize {
        let pattern = _mm_setr_epi8(-1, -1, -1, -1, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2);
        let mut at = 0;
        let length = from.len().min(to.len());
        while at + 16 <= length {
            let end = to.len() - at;
            // SAFETY: at + 16 is at most the length of either, so 16 bytes from `at` and 16 bytes up to `end` are inside.
            // The first four bytes written are written again by the next round, or by the caller.
            unsafe {
                let four = _mm_loadu_si128(from.as_ptr().add(at).cast());
                _mm_storeu_si128(to.as_mut_ptr().add(end - 16).cast(), _mm_shuffle_epi8(four, pattern));
            }
            at += 12;
        }
        at / 3
    }

    #[target_feature(enable = "avx2")]
    pub fn vertical(rows: &[u8], stride: usize, pairs: &[WeightPair], out: &mut [u8]) -> usize {
        let taps = 2 * pairs.len() - usize::from(pairs.last().is_some_and(|pair| !pair.two));
        let zero = _mm256_setzero_si256();
        let mut done = 0;
        for bytes in out.chunks_exact_mut(32) {
            if taps == 0 || (taps - 1) * stride + done + 32 > rows.len() {
                break;
            }
            let (mut high, mut low) = ([zero; 4], [_mm256_set1_epi32(HALF); 4]);
            for (n, pair) in pairs.iter().enumerate() {
                let at = 2 * n * stride + done;
                // SAFETY: the last row's 32 bytes are inside, and these are no later.
                let (first, second) = unsafe {
                    let first = _mm256_loadu_si256(rows.as_ptr().add(at).cast());
                    let behind = if pair.two { stride } else { 0 };
                    (first, _mm256_loadu_si256(rows.as_ptr().add(at + behind).cast()))
                };
                let (left, right) = (_mm256_unpacklo_epi8(first, second), _mm256_unpackhi_epi8(first, second));
                let values = [
                    _mm256_unpacklo_epi8(left, zero),
                    _mm256_unpackhi_epi8(left, zero),
                    _mm256_unpacklo_epi8(right, zero),
                    _mm256_unpackhi_epi8(right, zero),
                ];
                let weights = (_mm256_set1_epi32(pair.high), _mm256_set1_epi32(pair.low));
                for i in 0..4 {
                    high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(values[i], weights.0));
                    low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(values[i], weights.1));
                }
            }
            let sums: [__m256i; 4] = std::array::from_fn(|i| {
                _mm256_srai_epi32::<{ BITS as i32 }>(_mm256_add_epi32(
                    _mm256_slli_epi32::<{ LOW_BITS as i32 }>(high[i]),
                    low[i],
                ))
            });
            let packed =
                _mm256_packus_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]));
            // SAFETY: the chunk has 32 bytes.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), packed) };
            done += 32;
        }
        done
    }

    #[target_feature(enable = "avx2")]
    pub fn horizontal_four(
        rows: [&[u8]; 4],
        spans: &[Groups],
        weights: &[[i16; 8]],
        out: &mut [u8],
        out_stride: usize,
    ) -> bool {
        // What is read of a row, and where it ends: checked once, for all that follows.
        let reach = spans.iter().map(|span| 3 * (span.first + 4 * span.count) + 4).max().unwrap_or(0);
        let weighed = spans.iter().all(|span| span.start + span.count <= weights.len());
        let room = out.len() >= 4 * out_stride && 3 * spans.len() < out_stride;
        if !weighed || !room || rows.iter().any(|row| row.len() < reach) {
            return false;
        }
        let rows = rows.map(|row| row.as_ptr());
        // Pixels 0 and 1 in the lower half, 2 and 3 in the upper: the two of each channel side by side, as 16 bits.
        let pairs = _mm256_setr_epi8(
            0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, //
            6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
        );
        // Weights 0 and 1 in the lower half, 2 and 3 in the upper, for every channel.
        let spread = |byte: i8| {
            let (a, b, c, d) = (byte, byte + 1, byte + 2, byte + 3);
            let (e, f, g, h) = (byte + 4, byte + 5, byte + 6, byte + 7);
            _mm256_setr_epi8(
                a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, //
                e, f, g, h, e, f, g, h, e, f, g, h, e, f, g, h,
            )
        };
        let (spread_high, spread_low) = (spread(0), spread(8));
        let half = _mm_set1_epi32(HALF);
        for (x, span) in spans.iter().enumerate() {
            let zero = _mm256_setzero_si256();
            let (mut high, mut low) = ([zero; 4], [zero; 4]);
            for group in 0..span.count {
                // SAFETY: `weighed`; an entry has 16 bytes.
                let both = unsafe {
                    _mm256_broadcastsi128_si256(_mm_loadu_si128(weights.as_ptr().add(span.start + group).cast()))
                };
                let (weights_high, weights_low) =
                    (_mm256_shuffle_epi8(both, spread_high), _mm256_shuffle_epi8(both, spread_low));
                let at = 3 * (span.first + 4 * group);
                for i in 0..4 {
                    // SAFETY: at + 16 is at most `reach`, which every row has.
                    let pixels = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(rows[i].add(at).cast())) };
                    let values = _mm256_shuffle_epi8(pixels, pairs);
                    high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(values, weights_high));
                    low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(values, weights_low));
                }
            }
            let sums: [__m128i; 4] = std::array::from_fn(|i| {
                let sum = _mm256_add_epi32(_mm256_slli_epi32::<{ LOW_BITS as i32 }>(high[i]), low[i]);
                let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
                _mm_srai_epi32::<{ BITS as i32 }>(_mm_add_epi32(sum, half))
            });
            let packed = _mm_packus_epi16(_mm_packs_epi32(sums[0], sums[1]), _mm_packs_epi32(sums[2], sums[3]));
            let pixels = [
                _mm_extract_epi32::<0>(packed),
                _mm_extract_epi32::<1>(packed),
                _mm_extract_epi32::<2>(packed),
                _mm_extract_epi32::<3>(packed),
            ];
            for (i, pixel) in pixels.into_iter().enumerate() {
                // SAFETY: `room`: 3·x + 4 is at most a row's stride, and there are four rows.
                unsafe { out.as_mut_ptr().add(i * out_stride + 3 * x).cast::<i32>().write_unaligned(pixel) };
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::picture::Picture;
    use crate::rng::Stream;
    use crate::{Filter, blur, colour, resize_box, resize_crop};
    use std::cell::Cell;

    thread_local! {
        /// Whether this thread does without the kernels.
        pub static SCALAR: Cell<bool> = const { Cell::new(false) };
    }

    fn noise(width: usize, height: usize, seed: u64) -> Picture {
        let mut stream = Stream::new(seed, "test", "noise", 0, width as u64, height as u64);
        // Flat stretches too, where channels are equal.
        let mut level = 0;
        let byte = |_| {
            if stream.below(3) > 0 {
                level = stream.next_u32() as u8;
            }
            level
        };
        Picture { width, height, data: (0..3 * width * height).map(byte).collect() }
    }

    /// The same with the kernels and without.
    fn same<T: PartialEq>(what: &str, make: impl Fn() -> T) {
        let fast = make();
        SCALAR.set(true);
        let plain = make();
        SCALAR.set(false);
        assert!(fast == plain, "{what}");
    }

    #[test]
    fn kernels_give_the_bytes_of_the_plain_loops() {
        if !super::available() {
            println!("this processor has no AVX2: there is nothing to compare");
            return;
        }
        let sizes = [(1, 1), (2, 3), (5, 4), (8, 1), (9, 2), (10, 7), (33, 17), (64, 48), (96, 96), (101, 37)];
        for (seed, (width, height)) in sizes.into_iter().enumerate() {
            let picture = noise(width, height, seed as u64);
            let size = format!("{width}×{height}");
            let changed = |change: &dyn Fn(&mut Picture)| {
                let mut picture = picture.clone();
                change(&mut picture);
                picture
            };
            for value in [-3.0, -0.4, 0.0, 0.1, 0.77, 1.0, 1.4, 2.5, 1e9, f64::NAN] {
                same(&format!("saturation {value} {size}"), || changed(&|p| colour::saturation(p, value)));
                same(&format!("brightness {value} {size}"), || changed(&|p| colour::brightness(p, value)));
                same(&format!("contrast {value} {size}"), || changed(&|p| colour::contrast(p, value)));
                same(&format!("blur {value} {size}"), || changed(&|p| blur::gaussian_blur(p, value)));
            }
            for shift in [-0.5, -0.1, 0.0, 0.07, 0.5] {
                same(&format!("hue {shift} {size}"), || changed(&|p| colour::hue(p, shift)));
            }
            same(&format!("grayscale {size}"), || changed(&colour::grayscale));
            same(&format!("flip {size}"), || picture.flipped());
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                for side in [1, 7, 16, 32, 50, 96, 130] {
                    same(&format!("{filter:?} {side} {size}"), || {
                        resize_crop(&picture, (0, 0, width, height), side, side, filter)
                    });
                    let part = (width / 3, height / 4, width / 2 + 1, height / 2 + 1);
                    same(&format!("{filter:?} {side} part of {size}"), || {
                        resize_crop(&picture, part, side, side + 3, filter)
                    });
                    let bounds = [0.3, 0.2, width as f64 - 0.1, height as f64 - 0.4];
                    same(&format!("{filter:?} {side} box in {size}"), || {
                        resize_box(&picture, bounds, side, side, filter)
                    });
                }
            }
        }
    }

    /// Hue is where single precision could betray: all of the 2²⁴ colours.
    #[test]
    fn every_hue_is_the_same() {
        let data = (0..1u32 << 24).flat_map(|i| [(i >> 16) as u8, (i >> 8) as u8, i as u8]).collect();
        let colours = Picture { width: 4096, height: 4096, data };
        same("hue", || {
            let mut changed = colours.clone();
            colour::hue(&mut changed, 0.083);
            changed.data
        });
    }
}
