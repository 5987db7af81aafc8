//! Nearest names.

/// The known name nearest to what was written, if it is near enough to be meant and no other is as near.
///
/// Damerau–Levenshtein distance (strsim's), at most a third of the longer name's length. Names whose digits differ are
/// different things and no misspellings of each other: `seed2` and `seed1`, `top10` and `top1`.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    match all_nearest(written, known).as_slice() {
        [(only, true)] => Some(only),
        _ => None,
    }
}

/// The nearest names that are near enough, each with whether its digits are those of what was written.
fn all_nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<(&'a str, bool)> {
    // Long words are no misspellings, and the distance takes quadratic time.
    if written.len() > 64 {
        return Vec::new();
    }
    let lower = written.to_lowercase();
    let digits = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
    let own = digits(written);
    let mut found: Vec<(bool, usize, &str)> = known
        .into_iter()
        .filter(|name| *name != written && name.len() <= 64)
        .filter_map(|name| {
            let distance = strsim::damerau_levenshtein(&lower, &name.to_lowercase());
            let allowed = (name.chars().count().max(written.chars().count()) / 3).max(1);
            // One letter for another is no hint at all.
            let near = distance <= allowed && distance < name.chars().count();
            near.then(|| (digits(name) != own, distance, name))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    let Some(&(other, distance, _)) = found.first() else { return Vec::new() };
    let best = found.iter().take_while(|(others, far, _)| (*others, *far) == (other, distance));
    best.map(|(others, _, name)| (*name, !others)).collect()
}

/// The question that goes into a help line, or what is near without being meant for sure.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let found = all_nearest(written, known);
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    match found.first()? {
        (_, true) => either(&names).map(|names| format!("did you mean {names}?")),
        (_, false) if names.len() == 1 => Some(format!("the nearest name is `{}`", names[0])),
        (_, false) => list(&names).map(|names| format!("the nearest names are {names}")),
    }
}

/// The nearest name as a question, or else what there is.
pub fn nearest_or_all(written: &str, known: &[&str]) -> Option<String> {
    if let found @ [(_, true), ..] = all_nearest(written, known.iter().copied()).as_slice() {
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        return either(&names).map(|names| format!("did you mean {names}?"));
    }
    // A beginning or a continuation of the word comes before the whole list: `linear`, `batchsize`.
    let begins = |name: &&&str| {
        name.len() >= 3 && written.len() >= 3 && (name.starts_with(written) || written.starts_with(**name))
    };
    let begun: Vec<&str> = known.iter().filter(begins).copied().collect();
    let digits = |name: &str| name.chars().any(|c| c.is_ascii_digit());
    if !begun.is_empty() && begun.len() < 4 && !digits(written) {
        return either(&begun).map(|names| format!("perhaps {names}"));
    }
    list(known).map(|all| format!("there is {all}"))
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
