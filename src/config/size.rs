//! Reads and prints sizes: `500MB`, `2GB`, `1.5TiB`, a plain number of bytes.
//!
//! Called by the settings table; calls nothing. `kB MB GB TB` count in thousands, as disks are sold, `KiB MiB GiB TiB`
//! in 1024; a bare letter (`50G`) counts in thousands too. Case does not matter.
//! Source: IEC 80000-13 for the prefixes.

/// Units in the order in which they are tried: a unit comes before those that are its end.
const UNITS_BYTES: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("b", 1),
];

/// Units for printing, largest first; the first that divides the size evenly is used.
const PRINTED_BYTES: [(&str, u64); 8] = [
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("kB", 1_000),
    ("KiB", 1 << 10),
];

/// More than 9 digits behind the point change nothing anyone could mean.
const FRACTION_DIGITS_MAX: usize = 9;

const EXPECTED: &str = "not a size: write a number of bytes or one with a unit, such as 500MB, 2GB or 1.5TiB";

/// Reads a size in bytes. The inverse of [`print()`].
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (number, unit_bytes) = UNITS_BYTES
        .into_iter()
        .find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?.trim_end(), bytes)))
        .unwrap_or((&lower, 1));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let fraction_is_number = !number.contains('.') || is_number(fraction);
    if !is_number(whole) || !fraction_is_number || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(EXPECTED.to_owned());
    }
    let too_big = || "the size is too big".to_owned();
    let whole_bytes = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(unit_bytes)).ok_or_else(too_big)?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| EXPECTED)?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| EXPECTED)? };
    let fraction_bytes = u64::try_from(fraction * u128::from(unit_bytes) / scale).map_err(|_| EXPECTED)?;
    whole_bytes.checked_add(fraction_bytes).ok_or_else(too_big)
}

/// Prints a size so that [`parse`] reads the same back.
pub(super) fn print(bytes: u64) -> String {
    let unit = PRINTED_BYTES.into_iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes read with and without units, and print as they would be written.
    #[test]
    fn sizes() {
        let cases = [
            ("0", 0, "0"),
            ("1234567", 1_234_567, "1234567"),
            ("500MB", 500_000_000, "500MB"),
            ("2GB", 2_000_000_000, "2GB"),
            ("2 GB", 2_000_000_000, "2GB"),
            ("2g", 2_000_000_000, "2GB"),
            ("1.5TiB", 1_649_267_441_664, "1536GiB"),
            ("64KiB", 65_536, "64KiB"),
            ("1b", 1, "1"),
            ("0.5kB", 500, "500"),
        ];
        for (text, bytes, printed) in cases {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(print(bytes), printed);
            assert_eq!(parse(printed), Ok(bytes));
        }
        for text in ["", "GB", "-1", "1.GB", ".5GB", "1e9", "1.2.3MB", "5XB", "0.0000000001TB", "99999999TB"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
