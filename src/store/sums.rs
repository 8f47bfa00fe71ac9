//! The sums that lie beside stored bytes, so that a later reading can tell whether the medium still has what was stored.
//!
//! Owns the extended attribute and the `.ziphash`. Called where a file gets its name ([`super::blob`], [`super::Store`]) and
//! by [`super::scrub`] and [`super::adopt`], which compare; calls nothing but the system. Invariants: a sum is set before
//! its file gets its name, and never describes other bytes than those. A file system without extended attributes, or a copy
//! made without them, costs the sum and nothing else.
//!
//! ```text
//! user.larder.crc32   attribute of a stored file: the CRC-32 of its bytes (as in zips), 8 lower-case hex digits
//! VERSION.ziphash     beside VERSION.zip: its h1, `h1:` and base64, without a newline, as the go command writes it
//! ```

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::module::zip::hash::H1;

const ATTRIBUTE: &str = "user.larder.crc32";
const DIGITS: usize = 8;

/// No hash is longer than this with what people's tools put behind it, in bytes.
const ZIPHASH_BYTES_MAX: u64 = 64;

/// What is known of a zip when it has been judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZipSums {
    /// Its h1 hash.
    pub h1: Option<H1>,
    /// The CRC-32 of its bytes.
    pub crc32: Option<u32>,
}

/// What stands in a `.ziphash`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ZipHash {
    /// There is none.
    Absent,
    /// A hash.
    Stored(H1),
    /// No hash, or not the bytes that Larder wrote.
    Damaged,
}

/// Notes the CRC-32 of all bytes of `file` in its attribute. Where that cannot be done the file simply has none.
pub fn set(file: &File, crc32: u32) {
    log_failure(rustix::fs::fsetxattr(file, ATTRIBUTE, format!("{crc32:08x}").as_bytes(), XattrFlags::empty()));
}

/// Takes the attribute away: nothing is known of the bytes to come.
pub(super) fn clear(file: &File) {
    match rustix::fs::fremovexattr(file, ATTRIBUTE) {
        Err(Errno::NODATA) => {}
        result => log_failure(result),
    }
}

/// Returns the CRC-32 that was noted, if there is one in its one spelling.
pub fn get(file: &File) -> Option<u32> {
    // One more than there have to be, so that a longer value is seen to be longer.
    let mut value = [0; DIGITS + 1];
    let bytes = match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut value) {
        Ok(bytes) => bytes,
        Err(Errno::NODATA | Errno::RANGE) => return None,
        Err(err) => {
            log_failure(Err(err));
            return None;
        }
    };
    let text = value.get(..bytes).and_then(|value| std::str::from_utf8(value).ok())?;
    let is_one_spelling = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_one_spelling.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Reads the hash beside the zip at `zip`.
///
/// # Errors
/// What the system says, other than that there is none.
pub(super) fn zip_hash(zip: &Path) -> io::Result<ZipHash> {
    let file = match File::open(zip.with_extension("ziphash")) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(ZipHash::Absent),
        other => other?,
    };
    let mut content = Vec::new();
    (&file).take(ZIPHASH_BYTES_MAX).read_to_end(&mut content)?;
    // A flipped bit mostly leaves another well-formed hash.
    if get(&file).is_some_and(|stored| stored != crc32fast::hash(&content)) {
        return Ok(ZipHash::Damaged);
    }
    let h1 = std::str::from_utf8(&content).ok().and_then(|text| H1::parse(text.trim_end()));
    Ok(h1.map_or(ZipHash::Damaged, ZipHash::Stored))
}

fn log_failure(result: rustix::io::Result<()>) {
    match result {
        // NOTSUP and OPNOTSUPP are one number on Linux.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(err) => log::debug!("extended attribute {ATTRIBUTE}: {err}"),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the files they need")]
mod tests {
    use super::*;
    use crate::resource::Resource;
    use crate::store::Store;
    use crate::store::testing::{Tree, try_commit_zip};

    /// What is set is read again; what is no sum in its one spelling is none; a file without one has none.
    #[test]
    fn sums_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("x")).unwrap();
        assert_eq!(get(&file), None);
        clear(&file);
        for crc32 in [0, 1, 0x00ab_cdef, u32::MAX] {
            set(&file, crc32);
            assert_eq!(get(&file), Some(crc32));
        }
        let mut value = [0; 64];
        let bytes = rustix::fs::fgetxattr(&file, ATTRIBUTE, &mut value).unwrap();
        assert_eq!(&value[..bytes], b"ffffffff");
        for bad in
            ["", "0000000", "000000000", "0000000000000000", "FFFFFFFF", "+fffffff", "0x000000", "\u{e9}\u{e9}ab"]
        {
            rustix::fs::fsetxattr(&file, ATTRIBUTE, bad.as_bytes(), XattrFlags::empty()).unwrap();
            assert_eq!(get(&file), None, "{bad}");
        }
        clear(&file);
        assert_eq!(get(&file), None);
    }

    /// A hash is known from its text, with or without a newline; anything else is damaged, a text that is not the one
    /// written included.
    #[test]
    fn zip_hashes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (zip, path) = (folder.path().join("v1.0.0.zip"), folder.path().join("v1.0.0.ziphash"));
        assert_eq!(zip_hash(&zip).unwrap(), ZipHash::Absent);
        let text = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let h1 = H1::parse(text).unwrap();
        for (content, known) in [
            (text.to_owned(), ZipHash::Stored(h1)),
            (format!("{text}\n"), ZipHash::Stored(h1)),
            (String::new(), ZipHash::Damaged),
            (text.replace('U', "V"), ZipHash::Damaged),
            (text.repeat(3), ZipHash::Damaged),
        ] {
            std::fs::write(&path, &content).unwrap();
            assert_eq!(zip_hash(&zip).unwrap(), known, "{content}");
        }
        std::fs::write(&path, text).unwrap();
        set(&File::open(&path).unwrap(), crc32fast::hash(text.as_bytes()));
        assert_eq!(zip_hash(&zip).unwrap(), ZipHash::Stored(h1));
        std::fs::write(&path, text.replacen('D', "E", 1)).unwrap();
        assert_eq!(zip_hash(&zip).unwrap(), ZipHash::Damaged);
    }

    /// What gets its name has its sums: a small file its CRC, a zip what is known of it. A hash of another zip that lay
    /// there does not outlive it, nor does the CRC of an attempt that failed.
    #[test]
    fn stored_files_have_their_sums() {
        let tree = Tree::new();
        let store = Store::open_root(tree.root()).unwrap();
        let [zip, info] = ["zip", "info"].map(|kind| Resource::parse(&format!("a.com/m/@v/v1.0.0.{kind}")).unwrap());
        let crc32 = |resource: &Resource| get(&File::open(tree.path(&resource.path())).unwrap());
        let stored = store.commit_bytes(&info, b"text").unwrap();
        assert_eq!((get(&stored.file), crc32(&info)), (Some(0x3b8b_a7c7), Some(0x3b8b_a7c7)));
        let h1 = H1::of_go_mod(b"");
        let hash = || std::fs::read_to_string(tree.path("a.com/m/@v/v1.0.0.ziphash")).ok();
        try_commit_zip(&store, &zip, b"one", ZipSums { h1: Some(h1), crc32: Some(7) }).unwrap();
        assert_eq!((hash(), crc32(&zip)), (Some(h1.to_string()), Some(7)));
        try_commit_zip(&store, &zip, b"two", ZipSums::default()).unwrap();
        assert_eq!((hash(), crc32(&zip)), (None, None));
        // The hash comes first: where the zip cannot get its name, the hash is there.
        std::fs::remove_file(tree.path(&zip.path())).unwrap();
        std::fs::create_dir(tree.path(&zip.path())).unwrap();
        try_commit_zip(&store, &zip, b"three", ZipSums { h1: Some(h1), crc32: Some(9) }).unwrap_err();
        assert_eq!(hash(), Some(h1.to_string()));
        std::fs::remove_dir(tree.path(&zip.path())).unwrap();
        try_commit_zip(&store, &zip, b"four", ZipSums::default()).unwrap();
        assert_eq!((hash(), crc32(&zip)), (None, None));
    }
}
