//! Lists of pictures as they are published: a path at the start of each line, perhaps something behind it.

/// The path of each line that has one, with the line's number from 1: up to white space or a comma, without a leading
/// `/` or `./`. A line without a path in its first field, such as a CSV's heading, cannot be told and is a path too.
pub(crate) fn paths(text: &str) -> impl Iterator<Item = (usize, &str)> {
    fields(text).map(|(number, path, _)| (number, path))
}

/// As [`paths`], with the second field of the line, if it has one.
pub(crate) fn fields(text: &str) -> impl Iterator<Item = (usize, &str, Option<&str>)> {
    text.trim_start_matches('\u{feff}').lines().enumerate().filter_map(|(index, line)| {
        let mut fields = line.split(|c: char| c.is_whitespace() || c == ',').filter(|field| !field.is_empty());
        let path = fields.next()?;
        Some((index + 1, path.trim_start_matches("./").trim_start_matches('/'), fields.next()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_published_lists() {
        let text = "/a/airfield/00000001.jpg 0\r\n\n./b.jpg\nimg,1,2\n";
        assert_eq!(paths(text).collect::<Vec<_>>(), [(1, "a/airfield/00000001.jpg"), (3, "b.jpg"), (4, "img")]);
        assert_eq!(fields(text).next(), Some((1, "a/airfield/00000001.jpg", Some("0"))));
    }
}
