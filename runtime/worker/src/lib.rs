//! The worker binary: models, losses, metrics and the steps that compute. The only crate that sees tch.
