//! Zips made for tests: every field can be set, and a seed makes thousands of them, good, odd and damaged.

use fastrand::Rng;
use zlib_rs::{Deflate, DeflateFlush, Status};

use super::directory::*;

pub(super) const PREFIX: &str = "example.com/m@v1.0.0/";

/// How an entry is written.
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of the format, and all combinations are tried")]
#[derive(Clone)]
pub(super) struct Item {
    pub(super) name: Vec<u8>,
    pub(super) content: Vec<u8>,
    pub(super) is_deflated: bool,
    /// Sizes and CRC behind the data, not before it.
    pub(super) has_descriptor: bool,
    /// Sizes in zip64 fields, also in the descriptor.
    pub(super) is_zip64: bool,
    pub(super) is_symlink: bool,
}

impl Item {
    pub(super) fn new(name: &str, content: &[u8]) -> Self {
        let name = format!("{PREFIX}{name}").into_bytes();
        let content = content.to_vec();
        Self { name, content, is_deflated: true, has_descriptor: true, is_zip64: false, is_symlink: false }
    }
}

pub(super) fn deflated(content: &[u8]) -> Vec<u8> {
    let mut deflate = Deflate::new(6, false, 15);
    let mut output = vec![0; content.len() + content.len() / 100 + 64];
    assert_eq!(deflate.compress(content, &mut output, DeflateFlush::Finish), Ok(Status::StreamEnd));
    output.truncate(usize::try_from(deflate.total_out()).unwrap());
    output
}

/// Writes the entries, then a directory in the given order of them.
pub(super) fn archive(items: &[Item], order: &[usize], is_zip64: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut headers = Vec::new();
    for item in items {
        let offset = bytes.len();
        let data = if item.is_deflated { deflated(&item.content) } else { item.content.clone() };
        headers.push(write_entry(&mut bytes, item, &data, offset));
    }
    let directory = bytes.len() as u64;
    for index in order {
        bytes.extend(&headers[*index]);
    }
    write_end(&mut bytes, order.len() as u64, directory, is_zip64);
    bytes
}

/// The entries in order, as the go command would write them.
pub(super) fn plain(items: &[Item]) -> Vec<u8> {
    archive(items, &(0..items.len()).collect::<Vec<_>>(), false)
}

fn write_entry(bytes: &mut Vec<u8>, item: &Item, data: &[u8], offset: usize) -> Vec<u8> {
    let crc = crc32fast::hash(&item.content).to_le_bytes();
    let [compressed, unpacked, offset] = [data.len(), item.content.len(), offset].map(|n| u32::try_from(n).unwrap());
    let wide = |figures: &[u32]| {
        let figures: Vec<u8> = figures.iter().flat_map(|n| u64::from(*n).to_le_bytes()).collect();
        [&[1, 0][..], &u16::try_from(figures.len()).unwrap().to_le_bytes(), &figures].concat()
    };
    let flags = if item.has_descriptor { 8_u16 } else { 0 }.to_le_bytes();
    let method = if item.is_deflated { 8_u16 } else { 0 }.to_le_bytes();
    let shared = [&flags[..], &method, &[0; 4]].concat();
    let name_bytes = u16::try_from(item.name.len()).unwrap().to_le_bytes();
    let (mut sizes, mut extra) = ([compressed, unpacked], Vec::new());
    if item.is_zip64 {
        (sizes, extra) = ([u32::MAX; 2], wide(&[unpacked, compressed]));
    }
    let local_sizes = if item.has_descriptor && item.is_deflated && !item.is_zip64 { [0; 2] } else { sizes };
    let local_crc = if item.has_descriptor { [0; 4] } else { crc };
    bytes.extend([LOCAL_SIGNATURE, &[20, 0][..], &shared, &local_crc].concat());
    bytes.extend(local_sizes.map(u32::to_le_bytes).concat());
    bytes.extend([&name_bytes[..], &u16::try_from(extra.len()).unwrap().to_le_bytes(), &item.name, &extra].concat());
    bytes.extend(data);
    if item.has_descriptor {
        bytes.extend([&b"PK\x07\x08"[..], &crc].concat());
        for size in [compressed, unpacked] {
            let size = u64::from(size).to_le_bytes();
            bytes.extend(&size[..if item.is_zip64 { 8 } else { 4 }]);
        }
    }
    let mode = if item.is_symlink { 0o120_777_u32 << 16 } else { 0 };
    let extra = if item.is_zip64 { wide(&[unpacked, compressed, offset]) } else { Vec::new() };
    let offset = if item.is_zip64 { u32::MAX } else { offset };
    let mut header = [HEADER_SIGNATURE, &[20, 3, 20, 0][..], &shared, &crc].concat();
    header.extend(sizes.map(u32::to_le_bytes).concat());
    header.extend([&name_bytes[..], &u16::try_from(extra.len()).unwrap().to_le_bytes(), &[0; 6]].concat());
    header.extend([&mode.to_le_bytes()[..], &offset.to_le_bytes(), &item.name, &extra].concat());
    header
}

fn write_end(bytes: &mut Vec<u8>, entries: u64, directory: u64, is_zip64: bool) {
    let directory_bytes = bytes.len() as u64 - directory;
    let mut figures = [entries, directory_bytes, directory];
    if is_zip64 {
        let end64 = bytes.len() as u64;
        bytes.extend(
            [&END64_SIGNATURE[..], &44_u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8], &entries.to_le_bytes()].concat(),
        );
        bytes.extend(figures.map(u64::to_le_bytes).concat());
        bytes.extend([LOCATOR_SIGNATURE, &[0; 4][..], &end64.to_le_bytes(), &1_u32.to_le_bytes()].concat());
        figures = [0xffff, u64::from(u32::MAX), u64::from(u32::MAX)];
    }
    let [entries, directory_bytes, directory] = figures;
    let entries = u16::try_from(entries & 0xffff).unwrap().to_le_bytes();
    bytes.extend([END_SIGNATURE, &[0; 4][..], &entries, &entries].concat());
    bytes.extend([directory_bytes, directory].map(|n| u32::try_from(n).unwrap().to_le_bytes()).concat());
    bytes.extend([0; 2]);
}

/// Names that keep the rules, and names that do not, or do not together.
const NAMES: [&str; 44] = [
    "go.mod",
    "a.go",
    "b.go",
    "LICENSE",
    "x/y.go",
    "x/z.go",
    "X/q.go",
    "x",
    "x/",
    "sub/go.mod",
    "GO.MOD",
    "A.go",
    "é.go",
    "É.go",
    "aux.go",
    "a b",
    "dir/LPT1.x/f",
    "../up",
    "/abs",
    "a//b",
    "a/./b",
    "a./b",
    "tail.",
    "back\\slash",
    "q?",
    "new\nline",
    "ſ.go",
    "s.go",
    "S.go",
    "K.go",
    "k.go",
    "\u{212a}.go",
    "٣",
    "e\u{301}",
    "日本.txt",
    "sub/",
    "sub/x",
    "",
    "/",
    "deep/er/and/deeper/file.go",
    "~1",
    "a~1.go",
    "ß",
    "ẞ",
];

fn content(generator: &mut Rng) -> Vec<u8> {
    let bytes = [0, 1, 10, 300, 3_000][generator.usize(..5)];
    let is_random = generator.bool();
    (0..bytes).map(|at: usize| if is_random { generator.u8(..) } else { b"go mod "[at % 7] }).collect()
}

/// A made-up archive; most keep the rules.
pub(super) fn made_up(generator: &mut Rng) -> Vec<u8> {
    let is_wild = generator.u8(..3) == 0;
    let mut items: Vec<Item> = Vec::new();
    for number in 0..generator.usize(..7) {
        let wild = NAMES[generator.usize(..NAMES.len())];
        let tame = [format!("f{number}.go"), format!("sub{}/f{number}.go", generator.u8(..3)), format!("d{number}/")];
        let name = if is_wild { wild } else { &tame[generator.usize(..tame.len())] };
        let mut item = Item::new(name, &content(generator));
        item.is_deflated = generator.u8(..3) > 0;
        item.has_descriptor = generator.bool();
        item.is_zip64 = generator.u8(..8) == 0;
        item.is_symlink = generator.u8(..20) == 0;
        if name.ends_with('/') && generator.u8(..8) > 0 {
            item = Item { content: Vec::new(), is_deflated: false, has_descriptor: false, ..item };
        }
        if is_wild && generator.u8(..20) == 0 {
            item.name =
                [b"example.com/other@v1.0.0/f", &b"example.com/m@v1.0.0/\xff"[..], b""][generator.usize(..3)].into();
        }
        items.push(item);
    }
    let mut order: Vec<usize> = (0..items.len()).collect();
    if generator.u8(..6) == 0 {
        generator.shuffle(&mut order);
    }
    if generator.u8(..12) == 0 {
        order.pop();
    }
    let mut bytes = archive(&items, &order, generator.u8(..6) == 0);
    if generator.u8(..15) == 0 {
        bytes.splice(0..0, b"before".iter().copied());
    }
    if generator.u8(..15) == 0 {
        let behind = [b"behind".to_vec(), vec![7; 1_010], vec![0; 66_000]];
        bytes.extend(&behind[generator.usize(..3)]);
    }
    bytes
}

/// What figures in records are changed to.
const FIGURES: [u64; 13] =
    [0, 1, 8, 20, 0xff, 0xffff, 0xffff_fffe, 0xffff_ffff, 1 << 32, 1 << 62, 1 << 63, u64::MAX - 9, u64::MAX];

/// Damages an archive: bytes anywhere, figures in a record, a piece taken out or doubled, the end cut off.
pub(super) fn damage(generator: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..generator.usize(1..3) {
        if bytes.is_empty() {
            return;
        }
        let at = generator.usize(..bytes.len());
        match generator.u8(..10) {
            0 | 1 => bytes[at] ^= 1 << generator.u8(..8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + generator.usize(1..40)).min(bytes.len()))),
            4 => {
                let piece = bytes[at..(at + generator.usize(1..80)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => damage_record(generator, bytes),
        }
    }
}

/// Changes a field of some record.
fn damage_record(generator: &mut Rng, bytes: &mut [u8]) {
    let is_record = |at: &usize| bytes[*at..].starts_with(b"PK") && bytes.get(at + 2).is_some_and(|byte| *byte < 9);
    let records: Vec<usize> = (0..bytes.len()).filter(is_record).collect();
    let Some(record) = generator.choice(&records) else { return };
    // Odd offsets are no fields, but lengths of names begin anywhere below this one as well.
    let field = record + 2 * generator.usize(2..30);
    let figure = if generator.bool() { FIGURES[generator.usize(..FIGURES.len())] } else { generator.u64(..300) };
    let width = [1, 2, 4, 4, 8][generator.usize(..5)];
    if let Some(bytes) = bytes.get_mut(field..field + width) {
        bytes.copy_from_slice(&figure.to_le_bytes()[..width]);
    }
}
