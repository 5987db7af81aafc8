//! Digests, action keys, a content store, records and their index. Knows no steps and no language.
