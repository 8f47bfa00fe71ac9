//! What the journal's lines come to, and which lines it needs for what has changed.
//!
//! Called by [`super::Unverified`] alone; never touches the disk.

use std::io;

use super::{CLIENTS_MAX, Kept, Key, Line, RECORDS_MAX, Record, SLACK_BYTES, State, encode, key_of, name_of};
use crate::clock::UnixSeconds;

impl State {
    /// Applies a line of the journal. Returns whether a journal of just what is left would have it, too.
    pub(super) fn apply(&mut self, line: Line, bytes: u64) -> bool {
        match line {
            Line::Add { name, record } => {
                let Some(key) = key_of(&name) else { return false };
                let is_new = !self.records.contains_key(&key);
                if is_new && self.records.len() >= RECORDS_MAX {
                    self.is_cut = true;
                    return false;
                }
                self.insert(key, record, bytes);
                is_new
            }
            Line::Served { name, served, more } => {
                if let Some(kept) = key_of(&name).and_then(|key| self.records.get_mut(&key)) {
                    kept.record.served.extend(served);
                    kept.record.served.truncate(CLIENTS_MAX);
                    kept.record.served_more = more;
                    kept.served_written = kept.record.served.len();
                }
                false
            }
            Line::Removed(name) => {
                if let Some(kept) = key_of(&name).and_then(|key| self.records.remove(&key)) {
                    self.live_bytes = self.live_bytes.saturating_sub(kept.bytes);
                }
                false
            }
        }
    }

    fn insert(&mut self, key: Key, record: Record, bytes: u64) {
        self.changed.remove(&key);
        let served_written = record.served.len();
        let kept = Kept { record, tried: UnixSeconds::default(), served_written, bytes };
        self.live_bytes += bytes;
        if let Some(old) = self.records.insert(key, kept) {
            self.live_bytes = self.live_bytes.saturating_sub(old.bytes);
        }
    }

    /// Inserts a record that has just been written, as it was a moment ago: what has come in since is kept.
    pub(super) fn insert_written(&mut self, key: &Key, mut record: Record, bytes: u64) {
        // Removed meanwhile, it is there again now.
        self.removed.retain(|removed| removed != key);
        let served_written = record.served.len();
        if let Some(known) = self.records.get(key) {
            record.served.clone_from(&known.record.served);
            record.served_more = known.record.served_more;
        }
        let is_changed = self.changed.contains(key);
        self.insert(key.clone(), record, bytes);
        if is_changed {
            self.changed.insert(key.clone());
        }
        if let Some(kept) = self.records.get_mut(key) {
            kept.served_written = served_written;
        }
    }

    pub(super) fn is_outgrown_by(&self, bytes: u64) -> bool {
        bytes > 2 * self.live_bytes + SLACK_BYTES
    }

    /// Returns the lines that the file does not have yet, which it is trusted to get.
    pub(super) fn take_unwritten(&mut self) -> Vec<u8> {
        let mut content = Vec::new();
        for key in std::mem::take(&mut self.removed) {
            content.extend(encode(&Line::Removed(name_of(&key))).unwrap_or_default());
        }
        for key in std::mem::take(&mut self.changed) {
            let Some(kept) = self.records.get_mut(&key) else { continue };
            let served = kept.record.served[kept.served_written..].to_vec();
            kept.served_written = kept.record.served.len();
            let line = Line::Served { name: name_of(&key), served, more: kept.record.served_more };
            let line = encode(&line).unwrap_or_default();
            kept.bytes += line.len() as u64;
            self.live_bytes += line.len() as u64;
            content.extend(line);
        }
        content
    }

    /// Returns a whole journal of what is left. What was not written is in it.
    pub(super) fn compact(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        for (key, kept) in &mut self.records {
            let line = encode(&Line::Add { name: name_of(key), record: kept.record.clone() })?;
            kept.bytes = line.len() as u64;
            kept.served_written = kept.record.served.len();
            content.extend(line);
        }
        self.live_bytes = content.len() as u64;
        self.removed.clear();
        self.changed.clear();
        Ok(content)
    }
}
