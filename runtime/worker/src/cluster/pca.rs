//! Principal components with whitening.

use tch::{Kind, Tensor};

use crate::error::Result;

/// Rows along their first `components` principal axes, each axis scaled to variance 1 (with n − 1), axes fit on the rows
/// themselves: [n, dim] to [n, components], fp64. Of the two directions of an axis the one counts in which its largest
/// number is positive.
///
/// # Errors
/// There are fewer rows or numbers in a row than components, or the rows do not spread that far; libtorch's.
pub fn whitened(rows: &Tensor, components: i64) -> Result<Tensor> {
    let size = rows.size();
    let (count, dim) = (size[0], size[1]);
    if components > count - 1 || components > dim {
        return Err(format!(
            "{count} segments of {dim} numbers have no {components} principal components; lower `components` to {} at most",
            (count - 1).min(dim).max(0)
        )
        .into());
    }
    let rows = rows.to_kind(Kind::Double);
    let centred = &rows - rows.mean_dim([0i64].as_slice(), true, None);
    let (_, scales, axes) = centred.f_svd(true, true)?;
    let (scales, axes) = (scales.narrow(0, 0, components), axes.transpose(0, 1).narrow(0, 0, components));
    let (least, most) = (scales.min().double_value(&[]), scales.max().double_value(&[]));
    // A matrix of rank r has r scales above rounding.
    if least <= most * f64::EPSILON * count.max(dim) as f64 {
        return Err(format!(
            "the segments' features do not spread along {components} principal components; lower `components`"
        )
        .into());
    }
    let largest = axes.abs().argmax(1, true);
    let axes = &axes * axes.gather(1, &largest, false).sign();
    Ok(centred.matmul(&axes.transpose(0, 1)) / scales * ((count - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Golden {
        rows: i64,
        dim: i64,
        components: i64,
        projections: Vec<f64>,
    }

    fn rows(count: i64, dim: i64) -> Tensor {
        let values: Vec<f64> =
            (1..=count * dim).map(|n| (0.7 * (n as f64).powi(2) % std::f64::consts::TAU).sin()).collect();
        // Columns of different spread.
        let spread = Tensor::arange(dim, (Kind::Double, tch::Device::Cpu)) * 0.3 + 1.0;
        Tensor::from_slice(&values).reshape([count, dim]) * spread
    }

    #[test]
    fn projections_equal_scikit_learns() {
        let golden: Vec<Golden> = serde_json::from_str(include_str!("golden/pca.json")).unwrap();
        for case in &golden {
            let ours = whitened(&rows(case.rows, case.dim), case.components).unwrap();
            let theirs = Tensor::from_slice(&case.projections).reshape([case.rows, case.components]);
            for component in 0..case.components {
                let (a, b) = (ours.select(1, component), theirs.select(1, component));
                // Up to the sign.
                let sign = (&a * &b).sum(Kind::Double).sign();
                let off = (a - b * sign).abs().max().double_value(&[]);
                assert!(off < 1e-4, "{} rows, component {component}: {off}", case.rows);
            }
        }
        assert_eq!(golden.len(), 2);
    }

    #[test]
    fn too_few_rows_or_too_little_spread_are_named() {
        let message = |rows: &Tensor| whitened(rows, 4).unwrap_err().to_string();
        assert!(message(&rows(4, 9)).contains("lower `components` to 3"));
        assert!(message(&rows(9, 3)).contains("lower `components` to 3"));
        assert!(message(&Tensor::ones([9, 9], (Kind::Float, tch::Device::Cpu))).contains("do not spread"));
    }
}
