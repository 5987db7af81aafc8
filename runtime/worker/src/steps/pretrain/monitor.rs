//! What is watched while pretraining: kNN accuracy of a copy in eval mode, which the run itself does not notice.

use harness_protocol::steps::pretrain::{KnnMonitor, Monitor};

use super::Run;
use crate::context::Context;
use crate::data::Images;
use crate::error::Result;
use crate::metric::knn::accuracy;
use crate::steps::knn;

/// What the kNN monitor needs.
pub struct Watch {
    settings: KnnMonitor,
    train: Images,
    test: Images,
}

impl Watch {
    /// Opens what is looked at.
    ///
    /// # Errors
    /// A dataset that cannot be opened.
    pub fn open(context: &Context, monitor: Option<&Monitor>) -> Result<Option<Self>> {
        let Some(Monitor::Knn(settings)) = monitor else { return Ok(None) };
        let (train, test) = (context.images(settings.train.digest())?, context.images(settings.test.digest())?);
        Ok(Some(Self { settings: settings.clone(), train, test }))
    }
}

impl Run<'_> {
    /// Looks if it is time to.
    pub(super) fn look(&mut self, epoch: u64) -> Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        let settings = &watch.settings;
        let last = epoch + 1 == self.params.epochs;
        if !last && !(epoch + 1).is_multiple_of(settings.every) {
            return Ok(());
        }
        let task = knn::Task {
            train: &watch.train,
            test: &watch.test,
            k: usize::try_from(settings.k).unwrap_or(usize::MAX),
            temperature: settings.temperature,
            features: settings.features,
            transform: settings.transform,
        };
        let answer = knn::answer(self.context, &self.encoder()?, &task, |_| ())?;
        let (top1, _) = accuracy(&answer.votes, &answer.truth);
        self.point("knn_top1", epoch, top1);
        Ok(())
    }
}
