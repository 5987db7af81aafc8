//! bash: a line as it stands is cut into words here, since bash itself cuts at `=` and `:` and leaves quotes in.

use super::WORDS;
use clap::Command;
use clap_complete::env::EnvCompleter;
use std::ffi::OsString;
use std::io::{Error, Write};
use std::path::Path;

/// bash's side: the line up to the cursor and what is behind it are given as they stand, and so is what ends a word.
/// `read` instead of an array's parentheses, in which `[…]` would be taken for a pattern of files.
const SCRIPT: &str = r#"_harness_complete() {
    local IFS=$'\n' answer
    compopt +o nospace 2> /dev/null
    COMPREPLY=()
    while IFS= read -r answer; do
        COMPREPLY+=("$answer")
    done < <(VAR=bash _HARNESS_BREAKS="$COMP_WORDBREAKS" COMPLETER -- \
        "${COMP_LINE:0:COMP_POINT}" "${COMP_LINE:COMP_POINT}" 2> /dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" =~ [=/:]$ ]]; then
        compopt -o nospace 2> /dev/null
    fi
}
if [[ "${BASH_VERSINFO[0]}" -gt 4 || "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 ]]; then
    complete -o nosort -F _harness_complete BIN
else
    complete -F _harness_complete BIN
fi
"#;

/// bash, at every TAB.
pub struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        var: &str,
        _name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let completer = escaped(completer, Quote::None);
        buf.write_all(SCRIPT.replace("VAR", var).replace("BIN", bin).replace("COMPLETER", &completer).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let [before, behind] = [0, 1].map(|at| args.get(at).map(|part| part.to_string_lossy()).unwrap_or_default());
        let breaks = std::env::var("_HARNESS_BREAKS").unwrap_or_else(|_| " \t\n\"'><=;|&(:".into());
        let (mut words, last) = split(&before, &breaks);
        let index = words.len();
        words.push(last.text.clone());
        let (rest, tail) = split(&behind, &breaks);
        // What directly follows the cursor belongs to the word that is being completed.
        let joined = !behind.is_empty() && !behind.starts_with(char::is_whitespace);
        let _ =
            WORDS.set(words.iter().cloned().chain(rest.into_iter().skip(joined.into())).chain([tail.text]).collect());
        let words = words.into_iter().map(OsString::from).collect();
        for candidate in clap_complete::engine::complete(command, words, index, current_dir)? {
            // Of the word, bash replaces what stands behind the last sign that ends one.
            let kept = last.text.get(..last.kept).unwrap_or_default();
            if let Some(new) = candidate.get_value().to_str().and_then(|value| value.strip_prefix(kept))
                && !new.contains('\n')
            {
                writeln!(buf, "{}", escaped(new, last.quote))?;
            }
        }
        Ok(())
    }
}

/// The quotes that a place is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// A word that may go on.
#[derive(Debug, PartialEq, Eq)]
struct Last {
    /// Without quotes and backslashes.
    text: String,
    /// Bytes of it before what bash replaces.
    kept: usize,
    quote: Quote,
}

/// Cuts a line into words as bash does, the last of them as far as it goes.
fn split(line: &str, breaks: &str) -> (Vec<String>, Last) {
    let mut words = Vec::new();
    let fresh = || Last { text: String::new(), kept: 0, quote: Quote::None };
    let mut word = fresh();
    let mut begun = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (word.quote, character) {
            (Quote::None, blank) if blank.is_whitespace() => {
                if begun {
                    words.push(std::mem::replace(&mut word, fresh()).text);
                }
                begun = false;
                continue;
            }
            (Quote::None, '\'' | '"') => {
                word.quote = if character == '"' { Quote::Double } else { Quote::Single };
                word.kept = word.text.len();
            }
            (Quote::Single, '\'') | (Quote::Double, '"') => word.quote = Quote::None,
            (Quote::None, '\\') => word.text.extend(characters.next()),
            (Quote::Double, '\\') if matches!(characters.peek(), Some('"' | '\\' | '$' | '`')) => {
                word.text.extend(characters.next());
            }
            // Another command begins.
            (Quote::None, ';' | '|' | '&') => {
                words.clear();
                word = fresh();
                begun = false;
                continue;
            }
            (quote, other) => {
                word.text.push(other);
                if quote == Quote::None && breaks.contains(other) {
                    word.kept = word.text.len();
                }
            }
        }
        begun = true;
    }
    // `NAME=value` before the command.
    let is_set = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    let set = words.iter().take_while(|word| is_set(word)).count();
    words.drain(..set);
    (words, word)
}

/// A text as it is written within quotes, or outside.
fn escaped(text: &str, quote: Quote) -> String {
    let mut out = String::new();
    for (at, character) in text.chars().enumerate() {
        match quote {
            Quote::Single if character == '\'' => out.push_str("'\\'"),
            Quote::Double if "\"\\$`".contains(character) => out.push('\\'),
            // A tilde at the beginning is the home folder, in what was typed and so in what goes on from it.
            Quote::None if !character.is_alphanumeric() && !"_-./=:,@%+~".contains(character) => out.push('\\'),
            Quote::None if character == '~' && at > 0 => out.push('\\'),
            _ => {}
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_as_bash_does() {
        let breaks = " \t\n\"'><=;|&(:";
        let last = |text: &str, kept, quote| Last { text: text.into(), kept, quote };
        let cut = |line: &str| split(line, breaks);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(cut("harness why "), (words(&["harness", "why"]), last("", 0, Quote::None)));
        assert_eq!(cut("X=1 harness a\\ b c"), (words(&["harness", "a b"]), last("c", 0, Quote::None)));
        assert_eq!(cut("make; harness 'a b'/c"), (words(&["harness"]), last("a b/c", 0, Quote::None)));
        assert_eq!(cut("harness nn[size="), (words(&["harness"]), last("nn[size=", 8, Quote::None)));
        assert_eq!(cut("harness nn\\[size=4"), (words(&["harness"]), last("nn[size=4", 8, Quote::None)));
        assert_eq!(cut("harness 'nn[size=4"), (words(&["harness"]), last("nn[size=4", 0, Quote::Single)));
        assert_eq!(cut("harness \"a\\\" b"), (words(&["harness"]), last("a\" b", 0, Quote::Double)));
    }

    #[test]
    fn names_with_blanks_are_escaped() {
        assert_eq!(escaped("my dir/é[1]", Quote::None), "my\\ dir/é\\[1\\]");
        assert_eq!(escaped("it's", Quote::Single), "it'\\''s");
        assert_eq!(escaped("a \"b\" $c", Quote::Double), "a \\\"b\\\" \\$c");
    }
}
