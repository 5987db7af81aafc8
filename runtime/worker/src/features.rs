//! Features of a whole dataset, in order.

use harness_protocol::steps::embed::Layer;
use harness_protocol::transform::Centre;
use harness_views::loader::ordered;
use tch::{Device, Kind, Tensor};

use crate::context::Context;
use crate::data::{Bad, Images};
use crate::error::Result;
use crate::guard::finite;
use crate::metric::knn::Table;
use crate::model::encoder::centred;
use crate::model::{Encoder, Head};
use crate::npy;

/// Pictures in one forward pass. Fixed, so that numbers do not depend on what else happens to be in memory.
pub const BATCH: usize = 64;

/// Gives the features of every picture under the fixed transform to `take`, batch by batch in order: [batch, features],
/// fp32, on the job's device. Where pictures cannot be used, only whole batches are given, and the error names them all.
///
/// `done` hears how many pictures are done.
///
/// # Errors
/// Pictures that changed or are damaged, all of them in one message; features that are not finite, naming the first picture;
/// cancelled; libtorch's; what `take` says.
pub fn walk(
    context: &Context,
    encoder: &Encoder,
    images: &Images,
    transform: &Centre,
    done: impl Fn(u64),
    mut take: impl FnMut(Tensor) -> Result<()>,
) -> Result<()> {
    let (source, prepare, at) = (images.clone(), encoder.prepare(), *transform);
    let threads = context.threads();
    let count = images.len();
    let mut numbers = ordered(threads, 2 * BATCH, (0..count).collect(), move |index| {
        source.picture(index).map(|picture| prepare.numbers(&centred(&picture, &at)))
    });
    let mut bad = Bad::default();
    let mut whole = true;
    for start in (0..count).step_by(BATCH) {
        context.check_cancelled()?;
        let size = BATCH.min(count - start);
        let mut batch = Vec::new();
        for index in start..start + size {
            match numbers.next() {
                Some(Ok(Ok(picture))) => {
                    batch.reserve(size * picture.len());
                    batch.extend_from_slice(&picture);
                    continue;
                }
                Some(Ok(Err(error))) => bad.push(error.to_string()),
                Some(Err(panic)) => bad.push(format!("`{}`: {panic}", images.path(index))),
                None => bad.push(format!("`{}` was not loaded", images.path(index))),
            }
            whole = false;
        }
        // Once one is bad there will be no table; the others are only looked at.
        if whole {
            let part =
                encoder.forward(&batch, size as i64, transform.crop as i64, context.device)?.to_kind(Kind::Float);
            check_finite(&part, images, start)?;
            take(part)?;
        }
        done((start + size) as u64);
    }
    bad.check(count)
}

/// Features of every picture: [pictures, features], fp32, on the job's device; see [`walk`].
///
/// # Errors
/// See [`walk`].
pub fn extract(
    context: &Context,
    encoder: &Encoder,
    images: &Images,
    transform: &Centre,
    done: impl Fn(u64),
) -> Result<Tensor> {
    let mut parts = Vec::new();
    walk(context, encoder, images, transform, done, |part| {
        parts.push(part);
        Ok(())
    })?;
    Ok(Tensor::f_cat(&parts, 0)?)
}

/// Features that were computed before, of the pictures of a dataset: [pictures, features], fp32, on the job's device.
///
/// # Errors
/// See [`Stored::open`]; numbers that are not finite, naming the first picture.
pub fn computed(context: &Context, digest: &str, images: &Images, split: &str) -> Result<Tensor> {
    let stored = Stored::open(context, digest, images, split)?;
    stored.rows(0, images.len())
}

/// Features of the pictures of a dataset that were computed before, in their file. As a [`Table`] its rows have length 1.
pub struct Stored<'a> {
    table: npy::Table,
    images: &'a Images,
    device: Device,
}

impl<'a> Stored<'a> {
    /// Opens the table with this digest; `split` is its dataset's name for messages.
    ///
    /// # Errors
    /// No such table, another number of rows than pictures.
    pub fn open(context: &Context, digest: &str, images: &'a Images, split: &str) -> Result<Self> {
        let table = npy::Table::open(context.input_file(digest)?)?;
        check_rows(table.rows(), images.len(), split)?;
        Ok(Self { table, images, device: context.device })
    }

    /// Some rows as they are stored: [count, features], fp32.
    fn rows(&self, start: usize, count: usize) -> Result<Tensor> {
        let rows = self.table.read(start, count)?;
        check_finite(&rows, self.images, start)?;
        Ok(rows.f_to_device(self.device)?)
    }
}

impl Table for Stored<'_> {
    fn count(&self) -> usize {
        self.table.rows()
    }

    fn columns(&self) -> usize {
        self.table.columns()
    }

    fn block(&self, start: usize, size: usize) -> Result<Tensor> {
        Ok(normalised(&self.rows(start, size)?))
    }
}

fn check_rows(rows: usize, pictures: usize, split: &str) -> Result<()> {
    if rows != pictures {
        return Err(format!(
            "the vectors of {split} have {rows} rows, and the dataset has {pictures} pictures; one row for each picture is \
             needed, in the order of the dataset"
        )
        .into());
    }
    Ok(())
}

/// Two tables that are compared must have equally many columns.
///
/// # Errors
/// They have not.
pub fn check_columns(train: &dyn Table, test: &dyn Table) -> Result<()> {
    let (train, test) = (train.columns(), test.columns());
    if train == test {
        return Ok(());
    }
    Err(format!("the vectors of train have {train} numbers and those of test {test}; they are of different encoders")
        .into())
}

fn check_finite(part: &Tensor, images: &Images, start: usize) -> Result<()> {
    if finite(part) {
        return Ok(());
    }
    let fine = Vec::<bool>::try_from(part.f_isfinite()?.f_all_dim(1, false)?.to_device(Device::Cpu))?;
    let bad = fine.iter().filter(|&&fine| !fine).count();
    let first = fine.iter().position(|&fine| !fine).unwrap_or(0);
    Err(format!(
        "the features of `{}` are not finite (and those of {} more in its batch), so the encoder's weights are not usable",
        images.path(start + first),
        bad - 1
    )
    .into())
}

/// The projection head of an encoder, where its output is asked for.
///
/// # Errors
/// It has none.
pub fn head(encoder: &Encoder, layer: Layer) -> Result<Option<Head>> {
    if layer == Layer::Backbone {
        return Ok(None);
    }
    let network = encoder.need_network("the layer `head`")?;
    let head = Head::bind(&network.store).map_err(|_| {
        "this encoder has no projection head, so its output cannot be compared; leave `head` out, or give a pretrained encoder"
    })?;
    Ok(Some(head))
}

/// Rows scaled to length 1; a row of zeros stays one.
pub fn normalised(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2, [-1i64].as_slice(), true).clamp_min(1e-12)
}
