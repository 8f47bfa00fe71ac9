//! Packs many small records into one value of the database.
//!
//! sled keeps some 370 bytes of memory for each page of about twelve values, whatever their size, so a value for each
//! of a million things costs many megabytes for good. Records are therefore spread over a fixed number of buckets by a
//! hash of their key; a small cache has one record in a bucket, a large one dozens. Called by [`super`] and
//! [`super::database`]; pure.
//!
//! ```text
//! bucket  record…            in ascending order of their keys
//! record  shared: varint     how many bytes of the key are those of the key before it
//!         rest: varint, that many bytes of key
//!         value: varint, that many bytes
//! varint  seven bits a byte, lowest first, the top bit set on all but the last byte; at most ten bytes
//! ```
//!
//! Reading garbage gives an error, never a panic, and never takes more memory than the garbage has bytes, squared keys
//! aside: a key is at most [`KEY_BYTES_MAX`] long.

use std::collections::BTreeMap;

/// The longest key in bytes. A resource path beyond it is simply not remembered.
pub(super) const KEY_BYTES_MAX: usize = 4096;

/// The bytes do not follow the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// The records of one bucket.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Returns the value stored under `key`.
pub(super) fn find<'a>(bucket: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, Garbled> {
    let mut found = None;
    visit(bucket, |at, value| {
        if at == key {
            found = Some(value);
        }
    })?;
    Ok(found)
}

/// Returns all records, the inverse of [`pack`].
pub(super) fn unpack(bucket: &[u8]) -> Result<Records, Garbled> {
    let mut records = Records::new();
    visit(bucket, |key, value| {
        records.insert(key.to_vec(), value.to_vec());
    })?;
    Ok(records)
}

/// Returns the bytes of a bucket, the inverse of [`unpack`].
pub(super) fn pack(records: &Records) -> Vec<u8> {
    let mut bucket = Vec::new();
    let mut before: &[u8] = &[];
    for (key, value) in records {
        let shared = key.iter().zip(before).take_while(|(a, b)| a == b).count();
        put_varint(&mut bucket, shared as u64);
        put_bytes(&mut bucket, key.get(shared..).unwrap_or_default());
        put_bytes(&mut bucket, value);
        before = key;
    }
    bucket
}

/// Calls `each` with every key and value in turn.
pub(super) fn visit<'a>(bucket: &'a [u8], mut each: impl FnMut(&[u8], &'a [u8])) -> Result<(), Garbled> {
    let mut reader = Reader(bucket);
    let mut key = Vec::new();
    while !reader.0.is_empty() {
        let shared = reader.varint().and_then(|shared| usize::try_from(shared).map_err(|_| Garbled))?;
        let rest = reader.bytes()?;
        if shared > key.len() || shared + rest.len() > KEY_BYTES_MAX {
            return Err(Garbled);
        }
        key.truncate(shared);
        key.extend_from_slice(rest);
        each(&key, reader.bytes()?);
    }
    Ok(())
}

/// Appends a number.
pub(super) fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push((number & 0x7f) as u8);
}

/// Appends bytes with their number before them.
pub(super) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// Takes apart what the functions above put together.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Takes the next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes one byte.
    pub(super) fn byte(&mut self) -> Result<u8, Garbled> {
        self.take(1)?.first().copied().ok_or(Garbled)
    }

    /// Takes a number of four bytes, lowest first.
    pub(super) fn u32(&mut self) -> Result<u32, Garbled> {
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| Garbled)
    }

    /// Takes a number put by [`put_varint`].
    pub(super) fn varint(&mut self) -> Result<u64, Garbled> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(Garbled);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Garbled)
    }

    /// Takes bytes put by [`put_bytes`].
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let count = self.varint()?;
        self.take(usize::try_from(count).map_err(|_| Garbled)?)
    }

    /// Takes text put by [`put_bytes`].
    pub(super) fn text(&mut self) -> Result<&'a str, Garbled> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Garbled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is packed is unpacked again, and each record is found by its key.
    #[test]
    fn packs_and_unpacks() {
        let mut records = Records::new();
        for number in 0..40_u32 {
            let key = format!("example.com/owner{}/module@v1.{number}.0", number % 3);
            records.insert(key.into_bytes(), vec![7; (number * number) as usize]);
        }
        let bucket = pack(&records);
        assert_eq!(unpack(&bucket), Ok(records.clone()));
        for (key, value) in &records {
            assert_eq!(find(&bucket, key), Ok(Some(value.as_slice())));
        }
        assert_eq!(find(&bucket, b"absent"), Ok(None));
        assert_eq!(unpack(&[]), Ok(Records::new()));
    }

    /// Numbers of every length come back.
    #[test]
    fn numbers_round_trip() {
        for number in (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, u64::MAX - (1 << bit)]) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            assert_eq!(Reader(&bytes).varint(), Ok(number));
        }
    }

    /// No garbage and no cut makes the reader panic.
    #[test]
    fn garbage_is_an_error() {
        let mut random = fastrand::Rng::with_seed(3);
        let bucket = pack(&[(b"key".to_vec(), b"value".to_vec()), (b"keys".to_vec(), vec![1; 200])].into());
        for cut in 1..bucket.len() {
            assert!(unpack(&bucket[..cut]).is_err() || cut == 11, "cut at {cut}");
        }
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(..64)).map(|_| random.u8(..)).collect();
            let _ = unpack(&bytes);
        }
    }
}
