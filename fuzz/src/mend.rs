//! Mends zips that mutation broke: without it hardly one would come past its first checksum.
//!
//! Called by `targets/zip.rs` for half of the mutations; calls nothing of Larder, whose reading is under test. Invariant:
//! only figures change, never the length: what the directory says of an entry is made to fit to the data, and what the end
//! record says to the directory, where those can be found.

use zlib_rs::{Inflate, InflateFlush, Status};

/// How much of an entry is unpacked to learn its checksum.
const UNPACKED_BYTES_MAX: usize = 1 << 20;

/// Makes the figures of a zip fit to each other, as far as that is easy.
pub fn mend(zip: &mut [u8]) {
    let Some(end) = find_last(zip, b"PK\x05\x06").filter(|end| end + 22 <= zip.len()) else { return };
    let headers: Vec<usize> = find_all(&zip[..end], b"PK\x01\x02");
    let locals: Vec<usize> = find_all(&zip[..end], b"PK\x03\x04");
    let Some(directory) = headers.first().copied() else { return };
    for (number, header) in headers.iter().copied().enumerate() {
        if header + 46 > end {
            break;
        }
        // An offset that leads to no header is made to lead to the one at the same place in the order.
        let mut at = field(zip, header + 42, 4);
        if !locals.contains(&at) {
            let Some(local) = locals.get(number) else { continue };
            at = *local;
            set(zip, header + 42, 4, at);
        }
        mend_entry(zip, header, at, directory);
    }
    set(zip, end + 8, 2, headers.len());
    set(zip, end + 10, 2, headers.len());
    if !zip[directory..end].windows(4).any(|bytes| bytes == b"PK\x06\x06") {
        set(zip, end + 12, 4, end - directory);
        set(zip, end + 16, 4, directory);
    }
}

/// Writes size and checksum of the data into the entry's headers, and into its descriptor.
fn mend_entry(zip: &mut [u8], header: usize, local: usize, directory: usize) {
    if local.checked_add(30).is_none_or(|after| after > directory) {
        return;
    }
    let data = local + 30 + field(zip, local + 26, 2) + field(zip, local + 28, 2);
    if data > directory {
        return;
    }
    let is_deflated = field(zip, header + 10, 2) == 8;
    let (compressed_bytes, content) = if is_deflated {
        let Some(unpacked) = unpack(&zip[data..directory]) else { return };
        unpacked
    } else {
        let stored_bytes = field(zip, header + 20, 4);
        if stored_bytes > directory - data {
            return;
        }
        (stored_bytes, zip[data..data + stored_bytes].to_vec())
    };
    let figures = [crc32fast::hash(&content) as usize, compressed_bytes, content.len()];
    for (number, figure) in figures.into_iter().enumerate() {
        set(zip, header + 16 + 4 * number, 4, figure);
    }
    let descriptor = data + compressed_bytes;
    let has_descriptor = field(zip, header + 8, 2) & 8 != 0;
    let at = if !has_descriptor {
        local + 14
    } else if zip[descriptor..].starts_with(b"PK\x07\x08") && descriptor + 16 <= directory {
        descriptor + 4
    } else {
        return;
    };
    for (number, figure) in figures.into_iter().enumerate() {
        set(zip, at + 4 * number, 4, figure);
    }
}

/// Inflates what begins here. Returns how long it was, and what came out.
fn unpack(data: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut inflate = Inflate::new(false, 15);
    let mut content = vec![0; UNPACKED_BYTES_MAX];
    let status = inflate.decompress(data, &mut content, InflateFlush::Finish);
    content.truncate(usize::try_from(inflate.total_out()).ok()?);
    matches!(status, Ok(Status::StreamEnd)).then_some((usize::try_from(inflate.total_in()).ok()?, content))
}

fn find_all(bytes: &[u8], signature: &[u8; 4]) -> Vec<usize> {
    bytes.windows(4).enumerate().filter(|(_, window)| window == signature).map(|(at, _)| at).collect()
}

fn find_last(bytes: &[u8], signature: &[u8; 4]) -> Option<usize> {
    bytes.windows(4).rposition(|window| window == signature)
}

/// Reads a little-endian figure.
fn field(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().rev().fold(0, |figure, byte| figure << 8 | usize::from(*byte))
}

/// Writes a little-endian figure.
fn set(bytes: &mut [u8], at: usize, width: usize, figure: usize) {
    bytes[at..at + width].copy_from_slice(&figure.to_le_bytes()[..width]);
}
