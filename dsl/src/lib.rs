//! The language of experiments: text to a checked program. Pure: no files, no clock, no environment.
