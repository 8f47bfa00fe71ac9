//! What a file in a module may be called.
//!
//! Called by `rules`; calls `unicode`. Invariant: what passes is what Go's `module.CheckFilePath` lets pass, and such a
//! name is clean and relative. Source: Go 1.26, golang.org/x/mod/module/module.go; the Go module reference, "Module
//! zip files".

use super::super::Flaw;
use super::unicode::is_letter;

/// What is allowed beside letters and digits.
const PUNCTUATION: &str = "!#$%&()+,-.=@[]^_{}~ ";

/// Checks a file's name below the module's prefix.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_file_name(name: &str) -> Result<(), Flaw> {
    if name.is_empty() {
        return Err(Flaw::Empty);
    }
    name.split('/').try_for_each(check_element)
}

fn check_element(element: &str) -> Result<(), Flaw> {
    if element.is_empty() {
        return Err(Flaw::EmptyElement);
    }
    if element.bytes().all(|byte| byte == b'.') {
        return Err(Flaw::Dots);
    }
    if element.ends_with('.') {
        return Err(Flaw::TrailingDot);
    }
    let is_allowed = |c: &char| c.is_ascii_digit() || is_letter(*c) || PUNCTUATION.contains(*c);
    if let Some(c) = element.chars().find(|c| !is_allowed(c)) {
        return Err(Flaw::Char(c));
    }
    let stem = element.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let is_device = match stem.as_bytes() {
        b"CON" | b"PRN" | b"AUX" | b"NUL" => true,
        [b'C', b'O', b'M', digit] | [b'L', b'P', b'T', digit] => (b'1'..=b'9').contains(digit),
        _ => false,
    };
    if is_device { Err(Flaw::WindowsName) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are judged as Go judges them; the first flaw is the one that is named.
    #[test]
    fn names() {
        for good in
            ["a", "a/b.go", ".a", "-a", "a b", "é/ж.go", "~1", "a~1/b", "COM", "COM0", "com10", "conn", "xaux.go", "[]"]
        {
            assert_eq!(check_file_name(good), Ok(()), "{good}");
        }
        for (bad, flaw) in [
            ("", Flaw::Empty),
            ("/a", Flaw::EmptyElement),
            ("a//b", Flaw::EmptyElement),
            ("a/", Flaw::EmptyElement),
            (".", Flaw::Dots),
            ("a/../b", Flaw::Dots),
            ("a/...", Flaw::Dots),
            ("a./b", Flaw::TrailingDot),
            ("a\\b", Flaw::Char('\\')),
            ("a:b", Flaw::Char(':')),
            ("a\nb", Flaw::Char('\n')),
            // A mark and a digit that is no ASCII one are no letters.
            ("e\u{301}", Flaw::Char('\u{301}')),
            ("٣", Flaw::Char('٣')),
            ("con", Flaw::WindowsName),
            ("x/LPT9.tar.gz", Flaw::WindowsName),
        ] {
            assert_eq!(check_file_name(bad), Err(flaw), "{bad}");
        }
    }
}
