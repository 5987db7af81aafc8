//! Collects the pictures that cannot be used, so that one message names them all.

use crate::error::{Error, Result};

/// How many are named.
const NAMED: usize = 10;

/// Pictures that cannot be used, and why.
#[derive(Debug, Default)]
pub struct Bad {
    named: Vec<String>,
    count: usize,
}

impl Bad {
    /// One more: what is wrong with it, naming it.
    pub fn push(&mut self, problem: impl Into<String>) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(problem.into());
        }
    }

    /// Fails if there was any. `total` pictures were looked at.
    ///
    /// # Errors
    /// Names up to ten and counts all.
    pub fn check(self, total: usize) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let more = match self.count - self.named.len() {
            0 => String::new(),
            more => format!("\n  … and {more} more"),
        };
        Err(Error::Step(format!(
            "{} of {total} pictures cannot be used; repair or remove them:\n  {}{more}",
            self.count,
            self.named.join("\n  ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_are_named_and_all_counted() {
        assert!(Bad::default().check(5).is_ok());
        let mut bad = Bad::default();
        (0..12).for_each(|i| bad.push(format!("`{i}.jpg`: cut off")));
        let message = bad.check(40).unwrap_err().to_string();
        assert!(message.starts_with("12 of 40 pictures"), "{message}");
        assert!(message.contains("`9.jpg`") && !message.contains("`10.jpg`"), "{message}");
        assert!(message.ends_with("and 2 more"), "{message}");
    }
}
