//! Pictures to views: decoding, Pillow-exact operations, crops, counter-based random numbers. No torch.
