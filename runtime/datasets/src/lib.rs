//! Datasets: folder, tar and zip trees, their manifests, and the procedural scenes. No torch.
