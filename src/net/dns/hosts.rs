//! The file of hosts, `/etc/hosts`: read as it stands, never by the system's resolver.
//!
//! Owns [`Hosts`]. Called by `names`. The file may be large (lists of unwanted hosts have a hundred thousand lines), so it
//! is not kept: it is read from its beginning when a name is not known otherwise, and [`Hosts::change`] tells when
//! something that is remembered has to be forgotten. Source: hosts(5); RFC 6761, section 6.3 (`localhost`).

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::SplitAsciiWhitespace;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::net::dns::cache::interleave;

/// Bytes of the file that are read.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Addresses of one name that are kept.
const ADDRESSES_MAX: usize = 16;
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of the file from another.
pub(super) type Mark = Option<(SystemTime, u64)>;

/// The file of hosts.
#[derive(Debug)]
pub(crate) struct Hosts {
    path: PathBuf,
    seen: Mutex<(Option<Instant>, Mark)>,
    clock: Clock,
}

impl Hosts {
    /// Makes one of the file at `path`, which need not be there.
    pub(crate) fn new(path: &Path, clock: Clock) -> Self {
        Self { path: path.to_owned(), seen: Mutex::new((None, None)), clock }
    }

    /// Returns the state of the file if it is another one than the one last noted. Looks at most once a second.
    pub(super) fn change(&self) -> Option<Mark> {
        let now = self.clock.steady();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = seen.0.is_none();
        if seen.0.is_some_and(|at| now.duration_since(at) < LOOK_EVERY) {
            return None;
        }
        let about = std::fs::metadata(&self.path).ok();
        let mark = about.and_then(|about| Some((about.modified().ok()?, about.len())));
        seen.0 = Some(now);
        if is_first {
            seen.1 = mark;
        }
        (seen.1 != mark).then_some(mark)
    }

    /// Notes that everything is done that a change asks for.
    pub(super) fn note(&self, mark: Mark) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).1 = mark;
    }

    /// Returns those of `names` that the file has.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the reading to end by itself.
    pub(super) async fn among(&self, names: HashSet<String>) -> HashSet<String> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mut found = HashSet::new();
            each_line(&path, |_, words| {
                found.extend(words.map(plain).filter(|name| names.contains(name)));
            });
            found
        });
        reading.await.unwrap_or_default()
    }

    /// Returns the addresses of `name`, best first; none if the file does not have it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the reading to end by itself.
    pub(crate) async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name == "localhost" || name.ends_with(".localhost") {
            return vec![IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];
        }
        let (path, name) = (self.path.clone(), plain(name));
        tokio::task::spawn_blocking(move || read(&path, &name)).await.unwrap_or_default()
    }
}

fn read(path: &Path, name: &str) -> Vec<IpAddr> {
    let (mut v6, mut v4) = (Vec::new(), Vec::new());
    each_line(path, |address, mut words| {
        if !words.any(|word| word.strip_suffix('.').unwrap_or(word).eq_ignore_ascii_case(name)) {
            return;
        }
        let Ok(address) = address.parse::<IpAddr>() else { return };
        let family = if address.is_ipv6() { &mut v6 } else { &mut v4 };
        if family.len() < ADDRESSES_MAX && !family.contains(&address) {
            family.push(address);
        }
    });
    interleave(v6, v4)
}

/// Calls `with` with the address and the names of each line: `ADDRESS NAME NAME… # remark`.
fn each_line(path: &Path, mut with: impl FnMut(&str, SplitAsciiWhitespace<'_>)) {
    let Ok(file) = File::open(path) else { return };
    let mut reader = BufReader::new(file.take(FILE_BYTES_MAX));
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Ok(text) = std::str::from_utf8(&line) else { continue };
        let mut words = text.split('#').next().unwrap_or_default().split_ascii_whitespace();
        if let Some(address) = words.next() {
            with(address, words);
        }
    }
}

fn plain(word: &str) -> String {
    word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// The file is read as hosts(5) says, several lines of one name add up, and what is broken is passed over.
    #[tokio::test]
    async fn lines() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "192.0.2.1 A.example other # c.example\n#192.0.2.9 a.example\n2001:db8::1\ta.example.\n\
                    nonsense a.example\n192.0.2.2 b.example\n192.0.2.1 a.example\n192.0.2.3 a.example";
        file.write_all(text.as_bytes()).unwrap();
        file.write_all(b"\n\xff\xff a.example\n192.0.2.4 d.example").unwrap();
        let clock = Clock::system();
        let hosts = Hosts::new(file.path(), clock.clone());
        let shown = async |name| hosts.addresses(name).await.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown("a.example").await, ["2001:db8::1", "192.0.2.1", "192.0.2.3"]);
        assert_eq!(shown("other").await, ["192.0.2.1"]);
        assert_eq!(shown("d.example").await, ["192.0.2.4"]);
        assert_eq!(shown("c.example").await, [""; 0]);
        assert_eq!(shown("x.localhost").await, ["::1", "127.0.0.1"]);
        let asked = ["a.example", "c.example", "d.example"].map(str::to_owned);
        let named = hosts.among(HashSet::from(asked)).await;
        assert_eq!(named, HashSet::from(["a.example".to_owned(), "d.example".to_owned()]));
        assert_eq!(hosts.change(), None);
        file.write_all(b"\n").unwrap();
        assert_eq!(hosts.change(), None, "looked at within the second");
        for _ in 0..2 {
            clock.advance(Duration::from_secs(2));
            assert!(hosts.change().is_some(), "nobody has noted it");
        }
        clock.advance(Duration::from_secs(2));
        hosts.note(hosts.change().unwrap());
        clock.advance(Duration::from_secs(2));
        assert_eq!(hosts.change(), None);
    }

    /// A file that is not there has no names.
    #[tokio::test]
    async fn no_file() {
        let hosts = Hosts::new(Path::new("/nonexistent/hosts"), Clock::system());
        assert!(hosts.addresses("a.example").await.is_empty());
    }
}
