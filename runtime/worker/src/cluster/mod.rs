//! Structure without labels: K-means, principal components, and the assignment of clusters to classes.

pub mod assign;
pub mod kmeans;
pub mod pca;

pub use assign::assign;
pub use kmeans::{Clustering, Settings, cluster};
