//! Tests of the h1 hash: Go's vectors, real modules, streams in pieces of every size, memory, sorted runs.

use std::fs::File;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::super::generate::vectors;
use super::directory::*;
use super::hash::*;
use super::stream::*;
use super::tests_archive::*;
use super::*;

/// Hashes a stream that comes in pieces of so many bytes.
fn stream(bytes: &[u8], prefix: &str, piece_bytes: usize) -> Result<H1, Odd> {
    let mut hasher = StreamHasher::new(prefix);
    for piece in bytes.chunks(piece_bytes) {
        let result = hasher.push(piece);
        assert!(hasher.held_bytes() <= bytes_max(hasher.entries()));
        result?;
    }
    hasher.finish()
}

/// Hashes by runs, one for each `entries` entries that fit memory.
fn by_runs(bytes: &[u8], prefix: &str) -> Result<(H1, usize), HashError> {
    let mut runs = Vec::new();
    write_runs(bytes, bytes.len() as u64, prefix, |run| {
        let mut kept = Vec::new();
        run.write_to(&mut kept).unwrap();
        runs.push(kept);
        Ok::<_, HashError>(())
    })?;
    let mut readers: Vec<&[u8]> = runs.iter().map(Vec::as_slice).collect();
    Ok((merge_runs(&mut readers, prefix)?, runs.len()))
}

fn whole(bytes: &[u8], prefix: &str) -> Result<H1, HashError> {
    let result = hash(bytes, bytes.len() as u64, prefix);
    let merged = by_runs(bytes, prefix).map(|(h1, _)| h1);
    assert_eq!(result.as_ref().ok(), merged.as_ref().ok(), "{result:?} {merged:?}");
    result
}

/// A go.mod file and a zip of the vectors have the hash that Go gave them.
#[test]
fn vectors_have_go_s_hashes() {
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    for row in vectors("dirhash").as_array().unwrap() {
        let files = row["files"].as_object().unwrap();
        if let Some(content) = files.get("go.mod").filter(|_| files.len() == 1) {
            assert_eq!(H1::of_go_mod(content.as_str().unwrap().as_bytes()).to_string(), text(row, "h1"));
        }
        let items: Vec<Item> = files
            .iter()
            .map(|(name, content)| Item {
                name: name.clone().into(),
                ..Item::new("", content.as_str().unwrap().as_bytes())
            })
            .collect();
        let bytes = plain(&items);
        assert_eq!(whole(&bytes, "").unwrap().to_string(), text(row, "h1"));
        assert_eq!(stream(&bytes, "", 7).unwrap().to_string(), text(row, "h1"));
    }
    for row in vectors("zip_check").as_array().unwrap() {
        let bytes = BASE64_STANDARD.decode(text(row, "zip_base64")).unwrap();
        let h1 = whole(&bytes, "").map(|h1| h1.to_string()).unwrap_or_default();
        assert_eq!(h1, text(row, "h1"), "{}", row["why"]);
        if let Ok(streamed) = stream(&bytes, "", 5) {
            assert_eq!(streamed.to_string(), h1, "{}", row["why"]);
        }
    }
}

/// Every module of the fixtures has the hash the checksum database knows, from its stream and from its file.
#[test]
fn real_modules_have_the_known_hashes() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tree");
    let mut seen = 0;
    for row in vectors("modules").as_array().unwrap() {
        let field = |key: &str| row[key].as_str().unwrap();
        let stem = tree.join(field("stem"));
        if let Ok(bytes) = std::fs::read(stem.with_added_extension("mod")) {
            assert_eq!(H1::of_go_mod(&bytes).to_string(), field("mod_h1"), "{}", field("stem"));
        }
        let Ok(bytes) = std::fs::read(stem.with_added_extension("zip")) else { continue };
        let prefix = format!("{}@{}/", field("path"), field("version"));
        assert_eq!(whole(&bytes, &prefix).unwrap().to_string(), field("zip_h1"), "{}", field("stem"));
        let file = File::open(stem.with_added_extension("zip")).unwrap();
        assert_eq!(hash(&file, bytes.len() as u64, &prefix).unwrap().to_string(), field("zip_h1"));
        for piece_bytes in [1000, 1 << 20] {
            assert_eq!(stream(&bytes, &prefix, piece_bytes).unwrap().to_string(), field("zip_h1"), "{}", field("stem"));
        }
        seen += 1;
    }
    assert!(seen > 2, "{seen} modules");
}

/// Only the one spelling of a hash is read, and it is printed again.
#[test]
fn hashes_are_parsed() {
    let text = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let h1 = H1::parse(text).unwrap();
    assert_eq!((h1.to_string().as_str(), format!("{h1:?}").as_str()), (text, text));
    assert_eq!(h1.as_bytes()[0], 0xe3);
    for bad in ["", "h1:", "h2:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", &text[..text.len() - 1], "h1:AAAA"] {
        assert_eq!(H1::parse(bad), None, "{bad}");
    }
    assert_eq!(H1::parse(&text.replace('U', "V").replace("FV=", "FV==")), None);
}

/// All kinds of entries that a stream can hold are hashed from it, whatever the pieces it comes in.
#[test]
fn streams_of_every_kind_are_hashed() {
    let mut items = Vec::new();
    for number in 0..16 {
        let content = [&b""[..], b"package m\n", &[7; 600], &[0; 1]][number % 4];
        let mut item = Item::new(&format!("{number}.go"), content);
        // The long descriptor of an empty content begins like a short one; that is odd.
        (item.is_deflated, item.is_zip64) = (number & 4 == 0, number & 8 == 0 && !content.is_empty());
        item.has_descriptor = number & 1 == 0;
        items.push(item);
    }
    let folder = Item { is_deflated: false, has_descriptor: false, ..Item::new("folder/", b"") };
    items.push(folder);
    let larger = [
        Item::new("large", &vec![7; 200_000]),
        Item { is_deflated: false, has_descriptor: false, ..Item::new("stored", &vec![7; 200_000]) },
    ];
    let bytes = plain(&larger);
    for piece_bytes in [1000, bytes.len()] {
        assert_eq!(stream(&bytes, PREFIX, piece_bytes), Ok(whole(&bytes, PREFIX).unwrap()));
    }
    for is_zip64 in [false, true] {
        let bytes = archive(&items, &(0..items.len()).collect::<Vec<_>>(), is_zip64);
        let h1 = whole(&bytes, PREFIX).unwrap();
        for piece_bytes in [1, 2, 3, 29, 64, 1 << 16, bytes.len()] {
            assert_eq!(stream(&bytes, PREFIX, piece_bytes), Ok(h1), "pieces of {piece_bytes}");
        }
        let mut generator = fastrand::Rng::with_seed(3);
        for _ in 0..50 {
            let mut hasher = StreamHasher::new(PREFIX);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(generator.usize(..=rest.len().min(500)));
                hasher.push(piece).unwrap();
                rest = after;
            }
            assert_eq!(hasher.finish(), Ok(h1));
        }
        for length in 0..bytes.len() {
            assert!(stream(&bytes[..length], PREFIX, 4096).is_err(), "cut to {length}");
        }
    }
    assert_eq!(stream(&plain(&[]), PREFIX, 100), Ok(whole(&plain(&[]), "").unwrap()));
}

/// A byte that is changed anywhere never gives another hash by stream than by file: it is odd, wrong, or does not matter.
#[test]
fn flipped_bytes_are_never_taken_for_another_content() {
    let items =
        [Item::new("go.mod", b"module example.com/m\n"), Item::new("a.go", b"package m // and more and more\n")];
    let good = plain(&items);
    let h1 = whole(&good, PREFIX).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let (streamed, read) = (stream(&bytes, PREFIX, 100), hash(&bytes[..], bytes.len() as u64, PREFIX));
            if let Ok(streamed) = streamed {
                assert_eq!(Some(streamed), read.as_ref().ok().copied(), "bit {bit} of byte {at}");
                assert_eq!(streamed, h1, "bit {bit} of byte {at}");
            }
        }
    }
}

/// What only the finished file can tell is said to be odd, with the place.
#[test]
fn odd_streams_are_named() {
    let items = [Item::new("a.go", b"package m\n"), Item::new("b.go", b"package m\n")];
    let good = plain(&items);
    let first = good.windows(4).position(|four| four == b"PK\x07\x08").unwrap();
    let directory = good.windows(4).position(|four| four == HEADER_SIGNATURE).unwrap();
    let end = good.len() - END_BYTES;
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        stream(&bytes, PREFIX, 11)
    };
    assert_eq!(changed(0), Err(Odd::Record(0)));
    assert_eq!(changed(8), Err(Odd::Entry(0)));
    assert_eq!(changed(LOCAL_BYTES), Err(Odd::Name(0)));
    assert_eq!(changed(first + 4), Err(Odd::Descriptor(first as u64)));
    assert_eq!(changed(directory + 42), Err(Odd::Directory(directory as u64)));
    assert_eq!(changed(directory + 16), Err(Odd::Directory(directory as u64)));
    assert_eq!(changed(end + 16), Err(Odd::End(end as u64)));
    assert_eq!(stream(&[&good[..], b"x"].concat(), PREFIX, 11), Err(Odd::Trailing));
    assert_eq!(stream(&good[..end], PREFIX, 11), Err(Odd::Cut(end as u64)));
    assert_eq!(stream(&archive(&items, &[1, 0], false), PREFIX, 11), Err(Odd::Directory(directory as u64)));
    assert_eq!(
        stream(&archive(&items, &[0], false), PREFIX, 11).unwrap_err().to_string(),
        format!("end of zip differs at offset {}", {
            let shorter = archive(&items, &[0], false);
            shorter.len() - END_BYTES
        })
    );
    let mut damaged = good.clone();
    damaged[LOCAL_BYTES + items[0].name.len()] = 0xff;
    assert_eq!(stream(&damaged, PREFIX, 11), Err(Odd::Data(0)));
    let mut hasher = StreamHasher::new(PREFIX);
    assert_eq!(hasher.push(b"<html>"), Err(Odd::Record(0)));
    assert_eq!(hasher.push(&good), Err(Odd::Record(0)));
    assert_eq!(hasher.finish(), Err(Odd::Record(0)));
}

/// Of a small zip that unpacks to far more than any module, no more is unpacked than a module may have.
#[test]
fn unpacked_size_is_limited() {
    // 64 MB of zeros, in 65 KB.
    let zeros = Item::new("zeros", &vec![0; 64 << 20]);
    let nine: Vec<Item> =
        (0..9).map(|number| Item { name: format!("{PREFIX}{number}").into(), ..zeros.clone() }).collect();
    let bytes = plain(&nine);
    assert!(bytes.len() < 1 << 20);
    assert!(matches!(
        hash(&bytes[..], bytes.len() as u64, PREFIX),
        Err(HashError::Zip(ZipError::UnpackedTooLarge { .. }))
    ));
    assert_eq!(stream(&bytes, PREFIX, 4096), Err(Odd::UnpackedTooLarge));
    // What the directory promises is the limit for each entry.
    let mut bytes = plain(&nine[..1]);
    let header = bytes.windows(4).position(|four| four == HEADER_SIGNATURE).unwrap();
    bytes[header + 24..header + 28].copy_from_slice(&1000_u32.to_le_bytes());
    let result = hash(&bytes[..], bytes.len() as u64, PREFIX);
    assert!(matches!(result, Err(HashError::Content { flaw: ContentFlaw::Size, .. })), "{result:?}");
}

/// What is wrong with an entry is said; of two entries of one name only the last one counts.
#[test]
fn entries_that_cannot_be_read_are_named() {
    let item = Item { has_descriptor: false, ..Item::new("a.go", b"package m\n") };
    let bytes = plain(std::slice::from_ref(&item));
    let header = bytes.windows(4).position(|four| four == HEADER_SIGNATURE).unwrap();
    for (at, value, text) in [
        (0, 0, "no local header where the directory says"),
        (header + 10, 12, "unsupported compression method 12"),
        (header + 24, 9, "unpacked size differs from the directory's"),
        (header + 16, 1, "checksum error"),
        (LOCAL_BYTES + item.name.len(), 0xff, "damaged data"),
    ] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        let error = whole(&bytes, PREFIX).unwrap_err().to_string();
        assert_eq!(error, format!("zip entry \"{PREFIX}a.go\": {text}"));
        assert!(stream(&bytes, PREFIX, 100).is_err());
        // The same entry, behind one that is damaged: nobody reads that one.
        let second = plain(&[item.clone(), item.clone()]);
        if at != 0 && at < header {
            let mut second = second;
            second[at] = value;
            assert_eq!(whole(&second, PREFIX).unwrap(), whole(&plain(&[item.clone(), item.clone()]), PREFIX).unwrap());
        }
    }
    let folder = plain(&[Item::new("folder/", b"content")]);
    let error = whole(&folder, PREFIX).unwrap_err().to_string();
    assert_eq!(error, format!("zip entry \"{PREFIX}folder/\": folder with content"));
    let newline = plain(&[Item::new("a\nb", b"")]);
    assert!(matches!(whole(&newline, PREFIX), Err(HashError::Zip(ZipError::Newline { .. }))));
    assert!(matches!(whole(&bytes, "example.com/other@v1.0.0/"), Err(HashError::Zip(ZipError::Prefix { .. }))));
}

/// As many entries as memory is meant for are hashed in it, with names as long as they come; more go through runs.
#[test]
fn memory_is_bounded_by_the_number_of_entries() {
    let make = |entries: usize| {
        let items: Vec<Item> = (0..entries)
            .map(|number| {
                let mut item =
                    Item::new(&format!("internal/some/package/of/a/large/module/file_{number:06}_generated.go"), b"");
                (item.is_deflated, item.has_descriptor) = (false, false);
                item
            })
            .collect();
        archive(&items, &(0..entries).collect::<Vec<_>>(), entries >= 0xffff)
    };
    let bytes = make(ENTRIES_MAX);
    let h1 = hash(&bytes[..], bytes.len() as u64, PREFIX).unwrap();
    assert_eq!(stream(&bytes, PREFIX, 1 << 16), Ok(h1));
    let bytes = make(ENTRIES_MAX + 1);
    assert_eq!(stream(&bytes, PREFIX, 1 << 16), Err(Odd::TooManyEntries));
    let result = hash(&bytes[..], bytes.len() as u64, PREFIX);
    assert!(matches!(result, Err(HashError::TooManyEntries { entries: ENTRIES_MAX })), "{result:?}");
    assert_eq!(by_runs(&bytes, PREFIX).unwrap().1, 2);
    // Few entries, with the longest names there are.
    let long: Vec<Item> = (0..300).map(|number| Item::new(&format!("{number}/{}", "n".repeat(65_000)), b"")).collect();
    let bytes = plain(&long);
    assert_eq!(stream(&bytes, PREFIX, 1 << 16), Err(Odd::TooManyEntries));
    assert!(matches!(hash(&bytes[..], bytes.len() as u64, PREFIX), Err(HashError::TooManyEntries { .. })));
    let (h1, runs) = by_runs(&bytes, PREFIX).unwrap();
    assert!(runs > 1, "{runs}");
    // The summary of 300 empty files, made by hand.
    let mut names: Vec<&[u8]> = long.iter().map(|item| &item.name[..]).collect();
    names.sort_unstable();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ".as_bytes();
    let summary: Vec<u8> = names.iter().flat_map(|name| [empty, name, b"\n"].concat()).collect();
    assert_eq!(h1.as_bytes(), &digest_of(&summary));
}

/// A run that was cut short, or cannot be read, is an error of reading.
#[test]
fn broken_runs_are_an_error() {
    let bytes = plain(&[Item::new("a.go", b"package m\n")]);
    let mut kept = Vec::new();
    write_runs(&bytes[..], bytes.len() as u64, PREFIX, |run| {
        run.write_to(&mut kept).map_err(|err| HashError::Zip(err.into()))
    })
    .unwrap();
    for length in 1..kept.len() {
        assert!(matches!(merge_runs(&mut [&kept[..length]], PREFIX), Err(HashError::Zip(ZipError::Io(_)))), "{length}");
    }
    assert!(merge_runs(&mut [&kept[..]], PREFIX).is_ok());
}
