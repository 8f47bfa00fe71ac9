//! Tests of the zip structure check: Go's vectors, their truncations, and archives built by hand.

use std::fs::File;
use std::io::Write;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::super::generate::vectors;
use super::directory::*;
use super::*;

fn module() -> ModuleVersion {
    ModuleVersion::parse("example.com/m@v1.0.0").unwrap()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn check(bytes: &[u8]) -> Result<(), ZipError> {
    check_structure(&file_of(bytes), bytes.len() as u64, &module())
}

/// The zips of the vectors, with what they are about.
fn zips() -> Vec<(String, Vec<u8>)> {
    let rows = vectors("zip_check");
    let field = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| (field(row, "why"), BASE64_STANDARD.decode(field(row, "zip_base64")).unwrap())).collect()
}

/// An archive put together by hand, field by field.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: u16,
}

impl Archive {
    fn with(mut self, name: &str, unpacked: u32, extra: &[u8]) -> Self {
        let offset = u32::try_from(self.bytes.len()).unwrap();
        self.local(name);
        self.header(name, [0, unpacked, offset], extra);
        self
    }

    fn local(&mut self, name: &str) {
        self.bytes.extend(LOCAL_SIGNATURE);
        self.bytes.extend([0; 22]);
        self.bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        self.bytes.extend([0; 2]);
        self.bytes.extend(name.as_bytes());
    }

    /// Figures are compressed size, unpacked size and offset.
    fn header(&mut self, name: &str, figures: [u32; 3], extra: &[u8]) {
        let [compressed, unpacked, offset] = figures.map(u32::to_le_bytes);
        let [name_bytes, extra_bytes] = [name.len(), extra.len()].map(|n| u16::try_from(n).unwrap().to_le_bytes());
        let parts: [&[u8]; 10] = [
            HEADER_SIGNATURE,
            &[0; 16],
            &compressed,
            &unpacked,
            &name_bytes,
            &extra_bytes,
            &[0; 10],
            &offset,
            name.as_bytes(),
            extra,
        ];
        self.directory.extend(parts.concat());
        self.entries = self.entries.wrapping_add(1);
    }

    /// Ends the archive with an end record that gives these figures for directory bytes and offset.
    fn end(&self, directory_bytes: u32, directory_offset: u32, comment: &[u8]) -> Vec<u8> {
        let mut end = [&self.bytes[..], &self.directory, END_SIGNATURE, &[0; 4]].concat();
        end.extend([self.entries.to_le_bytes(), self.entries.to_le_bytes()].concat());
        end.extend([directory_bytes.to_le_bytes(), directory_offset.to_le_bytes()].concat());
        end.extend(u16::try_from(comment.len()).unwrap().to_le_bytes());
        end.extend(comment);
        end
    }

    fn finish(&self) -> Vec<u8> {
        self.end(self.directory_bytes(), self.offset(), b"")
    }

    fn directory_bytes(&self) -> u32 {
        u32::try_from(self.directory.len()).unwrap()
    }

    fn offset(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap()
    }

    /// Ends the archive as a zip64 one, with its entry count and offsets only in the zip64 records.
    fn finish64(&self, entries: u64) -> Vec<u8> {
        let directory_offset = self.bytes.len() as u64;
        let end64_offset = directory_offset + self.directory.len() as u64;
        let mut bytes = [&self.bytes[..], &self.directory, END64_SIGNATURE, &[0; 20]].concat();
        for figure in [entries, entries, self.directory.len() as u64, directory_offset] {
            bytes.extend(figure.to_le_bytes());
        }
        bytes.extend([LOCATOR_SIGNATURE, &[0; 4][..], &end64_offset.to_le_bytes(), &1_u32.to_le_bytes()].concat());
        bytes.extend([END_SIGNATURE, &[0; 4][..], &[0xff; 12], &[0; 2]].concat());
        bytes
    }
}

fn good() -> Archive {
    Archive::default().with("example.com/m@v1.0.0/go.mod", 21, b"").with("example.com/m@v1.0.0/a.go", 10, b"")
}

/// Go's vectors are judged by their structure: rules about the names inside a module are not asked here.
#[test]
fn vectors_are_judged_by_structure() {
    for (why, bytes) in zips() {
        let result = check(&bytes);
        match why.as_str() {
            "good: bytes after the end have the same h1" => {
                assert!(matches!(result, Err(ZipError::TrailingBytes { bytes: 4 })), "{why}: {result:?}");
            }
            "file outside the prefix" | "absolute path" => {
                assert!(matches!(result, Err(ZipError::Prefix { .. })), "{why}: {result:?}");
            }
            "newline in a name" => assert!(matches!(result, Err(ZipError::Newline { .. })), "{why}: {result:?}"),
            _ => assert!(result.is_ok(), "{why}: {result:?}"),
        }
    }
}

/// A zip that was cut short is refused, wherever it was cut.
#[test]
fn every_truncation_is_refused() {
    for (why, bytes) in zips() {
        let file = file_of(&bytes);
        let whole = if why.contains("bytes after the end") { bytes.len() as u64 - 4 } else { bytes.len() as u64 };
        for length in (0..whole).rev() {
            file.set_len(length).unwrap();
            assert!(check_structure(&file, length, &module()).is_err(), "{why}: cut to {length} of {whole}");
        }
    }
}

/// A file shorter than its length says is an error of reading.
#[test]
fn missing_bytes_are_an_error() {
    let bytes = good().finish();
    let result = check_structure(&file_of(&bytes), bytes.len() as u64 + 1, &module());
    assert!(matches!(result, Err(ZipError::Io(_))), "{result:?}");
}

/// Another version's zip is refused, and the error names the entry and the prefix.
#[test]
fn another_versions_zip_is_refused() {
    let bytes = good().finish();
    let other = ModuleVersion::parse("example.com/m@v1.0.1").unwrap();
    let error = check_structure(&file_of(&bytes), bytes.len() as u64, &other).unwrap_err();
    let text = "zip entry \"example.com/m@v1.0.0/go.mod\": name does not begin with example.com/m@v1.0.1/";
    assert_eq!(error.to_string(), text);
}

/// What Go reads is accepted: no entries, a comment, bytes before the archive counted in the offsets or not.
#[test]
fn unusual_archives_are_accepted() {
    assert!(check(&Archive::default().finish()).is_ok());
    let archive = good();
    let (directory_bytes, offset) = (archive.directory_bytes(), archive.offset());
    assert!(check(&archive.end(directory_bytes, offset, &vec![b'c'; 65_535])).is_ok());
    assert!(check(&[b"before".to_vec(), archive.finish()].concat()).is_ok());
    let mut shifted = Archive { bytes: b"before".to_vec(), ..Archive::default() };
    shifted = shifted.with("example.com/m@v1.0.0/go.mod", 21, b"");
    assert!(check(&shifted.finish()).is_ok());
    // The end record's length of the directory is not believed where its offset leads to one.
    assert!(check(&archive.end(directory_bytes - 10, offset, b"")).is_ok());
}

/// The end record has to be the last thing in the file, and there has to be one.
#[test]
fn end_record_ends_the_file() {
    let mut bytes = good().finish();
    bytes.push(0);
    assert!(matches!(check(&bytes), Err(ZipError::TrailingBytes { bytes: 1 })));
    for bytes in [&b""[..], b"PK", &[0; 22], &vec![b'x'; 70_000]] {
        assert!(matches!(check(bytes), Err(ZipError::NoEnd { .. })));
    }
    let archive = good();
    let mut bytes = archive.end(archive.directory_bytes(), archive.offset(), b"comment");
    bytes.pop();
    assert!(matches!(check(&bytes), Err(ZipError::NoEnd { .. })));
}

/// A directory that is elsewhere, damaged, or has fewer or more entries than promised, is refused.
#[test]
fn directory_is_checked() {
    let archive = good();
    let (directory_bytes, offset) = (archive.directory_bytes(), archive.offset());
    let outside = archive.end(1 << 30, offset, b"");
    assert!(matches!(check(&outside), Err(ZipError::DirectoryOutside { .. })));
    let mut fewer = good();
    fewer.entries -= 1;
    assert!(matches!(check(&fewer.finish()), Err(ZipError::Directory { found: 2, expected: 1 })));
    let mut more = good();
    more.entries += 1;
    assert!(matches!(check(&more.finish()), Err(ZipError::Directory { found: 2, expected: 3 })));
    let mut damaged = archive.finish();
    damaged[archive.bytes.len()] ^= 1;
    assert!(matches!(check(&damaged), Err(ZipError::Directory { found: 0, expected: 2 })));
    // An offset that is too large moves every entry before the file.
    let moved = archive.end(directory_bytes, offset + 1000, b"");
    assert!(matches!(check(&moved), Err(ZipError::LocalHeader { .. })));
    let mut hole = archive.finish();
    hole[0] = 0;
    assert!(matches!(check(&hole), Err(ZipError::LocalHeader { offset: 0, .. })));
    let mut swallowing = good();
    let at = swallowing.directory.len() - "example.com/m@v1.0.0/a.go".len() - HEADER_BYTES;
    swallowing.directory[at + 32] = 22;
    assert!(matches!(check(&swallowing.finish()), Err(ZipError::Directory { found: 2, expected: 2 })));
}

/// Limits hold for the file, for all entries together and for the two files `go` reads whole.
#[test]
fn limits_hold() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(ZIP_BYTES_MAX + 1).unwrap();
    let result = check_structure(&file, ZIP_BYTES_MAX + 1, &module());
    assert!(matches!(result, Err(ZipError::TooLarge { .. })));
    let sizes = |sizes: &[(&str, u64)]| {
        let add = |archive: Archive, (name, bytes): &(&str, u64)| {
            archive.with(&format!("example.com/m@v1.0.0/{name}"), u32::try_from(*bytes).unwrap(), b"")
        };
        check(&sizes.iter().fold(Archive::default(), add).finish())
    };
    assert!(sizes(&[("a", ZIP_BYTES_MAX / 2), ("b", ZIP_BYTES_MAX / 2)]).is_ok());
    let result = sizes(&[("a", ZIP_BYTES_MAX / 2), ("b", ZIP_BYTES_MAX / 2), ("c", 1)]);
    assert!(matches!(result, Err(ZipError::UnpackedTooLarge { .. })));
    // A size of all ones without an extra field is taken as it stands.
    assert!(matches!(sizes(&[("a", ELSEWHERE)]), Err(ZipError::UnpackedTooLarge { .. })));
    for name in ["go.mod", "LICENSE"] {
        assert!(sizes(&[(name, TOP_FILE_BYTES_MAX)]).is_ok());
        assert!(matches!(sizes(&[(name, TOP_FILE_BYTES_MAX + 1)]), Err(ZipError::TopFileTooLarge { .. })));
    }
    assert!(sizes(&[("sub/LICENSE", TOP_FILE_BYTES_MAX + 1), ("folder/", ELSEWHERE)]).is_ok());
}

/// A zip64 archive is read by its own end record and extra fields.
#[test]
fn zip64_is_understood() {
    assert!(check(&good().finish64(2)).is_ok());
    assert!(matches!(check(&good().finish64(3)), Err(ZipError::Directory { found: 2, expected: 3 })));
    let name = "example.com/m@v1.0.0/a.go";
    let entry = |figures: [u32; 3], extra: &[u8]| {
        let mut archive = Archive::default();
        archive.local(name);
        archive.header(name, figures, extra);
        check(&archive.finish())
    };
    let field = |figures: &[u64]| {
        let bytes: Vec<u8> = figures.iter().flat_map(|figure| figure.to_le_bytes()).collect();
        [&[9, 9, 1, 0, 7, 1, 0][..], &u16::try_from(bytes.len()).unwrap().to_le_bytes(), &bytes].concat()
    };
    let ones = u32::MAX;
    assert!(entry([ones, ones, ones], &field(&[10, 10, 0])).is_ok());
    assert!(entry([0, 10, ones], &field(&[0])).is_ok());
    assert!(entry([ones, 10, 0], &field(&[10])).is_ok());
    assert!(
        matches!(entry([0, ones, 0], &field(&[1 << 40])), Err(ZipError::UnpackedTooLarge { bytes }) if bytes == 1 << 40)
    );
    assert!(matches!(entry([0, 10, ones], &field(&[7])), Err(ZipError::LocalHeader { offset: 7, .. })));
    assert!(matches!(entry([0, 10, ones], &field(&[u64::MAX])), Err(ZipError::LocalHeader { offset: -1, .. })));
    // An extra field without the figure, or none at all, makes it no entry.
    for extra in [&field(&[])[..], b"", &[1, 0, 8, 0, 1]] {
        assert!(matches!(entry([0, 10, ones], extra), Err(ZipError::Directory { found: 0, expected: 1 })), "{extra:?}");
    }
}

/// A zip64 locator that leads out of the file is refused; one that is none is passed over.
#[test]
fn zip64_locators_are_checked() {
    let bytes = good().finish64(2);
    let locator = bytes.len() - END_BYTES - LOCATOR_BYTES;
    for offset in [0, bytes.len() as u64 - 55, u64::MAX] {
        let mut bytes = bytes.clone();
        bytes[locator + 8..locator + 16].copy_from_slice(&offset.to_le_bytes());
        assert!(matches!(check(&bytes), Err(ZipError::DirectoryOutside { .. })), "{offset}");
    }
    let mut none = bytes;
    none[locator] = 0;
    assert!(matches!(check(&none), Err(ZipError::DirectoryOutside { .. })));
}

/// A directory larger than the window, and names as long as they can be, are read to their end.
#[test]
fn large_directories_are_streamed() {
    let mut archive = Archive::default();
    let long = format!("example.com/m@v1.0.0/{}", "n".repeat(60_000));
    for number in 0..70_000 {
        let name = format!("example.com/m@v1.0.0/{number}");
        archive.local(&name);
        let offset = archive.bytes.len() - LOCAL_BYTES - name.len();
        archive.header(&name, [0, 1, u32::try_from(offset).unwrap()], &[9, 9, 2, 0, 0, 0]);
    }
    archive = archive.with(&long, 1, &vec![0; 60_000]);
    // 70,001 entries: the end record has room for their number modulo 65,536 only.
    assert!(check(&archive.finish()).is_ok());
}

/// No flipped bit makes the check panic or read without end, and errors stay short.
#[test]
fn damage_is_survived() {
    let mut generator = fastrand::Rng::with_seed(7);
    for (_, bytes) in zips() {
        for _ in 0..200 {
            let mut damaged = bytes.clone();
            for _ in 0..generator.usize(1..4) {
                let at = generator.usize(..damaged.len());
                damaged[at] = generator.u8(..);
            }
            if let Err(error) = check(&damaged) {
                assert!(error.to_string().len() < 1_000, "{error}");
            }
        }
    }
}
