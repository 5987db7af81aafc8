//! Every code that a diagnostic may carry, explained with one example.

/// Codes with their explanations, ascending.
pub const EXPLANATIONS: &[(&str, &str)] = &[];

/// The explanation of a code, such as `E0107`; capital or small letters.
pub fn explain(code: &str) -> Option<&'static str> {
    EXPLANATIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, text)| *text)
}
