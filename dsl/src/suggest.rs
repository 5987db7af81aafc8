//! Nearest names.

/// The known name nearest to what was written, if it is near enough to be meant.
///
/// Damerau–Levenshtein distance (strsim's), at most a third of the longer name's length.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long words are no misspellings, and the distance takes quadratic time.
    if written.len() > 64 {
        return None;
    }
    let lower = written.to_lowercase();
    known
        .into_iter()
        .filter(|name| *name != written && name.len() <= 64)
        .filter_map(|name| {
            let distance = strsim::damerau_levenshtein(&lower, &name.to_lowercase());
            let allowed = (name.chars().count().max(written.chars().count()) / 3).max(1);
            // One letter for another is no hint at all.
            (distance <= allowed && distance < name.chars().count()).then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The question that goes into a help line.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|name| format!("did you mean `{name}`?"))
}

/// The nearest name as a question, or else what there is.
pub fn nearest_or_all(written: &str, known: &[&str]) -> Option<String> {
    did_you_mean(written, known.iter().copied()).or_else(|| list(known).map(|all| format!("there is {all}")))
}

/// `a`, `b` and `c`; none for no names. Long lists end in a count.
pub fn list(names: &[&str]) -> Option<String> {
    joined(names, "and")
}

/// `a`, `b` or `c`; none for no names. Long lists end in a count.
pub fn either(names: &[&str]) -> Option<String> {
    joined(names, "or")
}

fn joined(names: &[&str], word: &str) -> Option<String> {
    const MOST: usize = 12;
    let quoted: Vec<String> = names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(MOST);
    match (quoted.as_slice(), more) {
        ([], _) => None,
        (all, more) if more > 0 => Some(format!("{} and {more} more", all.join(", "))),
        ([only], _) => Some(only.clone()),
        ([before @ .., last], _) => Some(format!("{} {word} {last}", before.join(", "))),
    }
}
