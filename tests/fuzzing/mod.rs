//! What has to hold of the pure modules, whatever bytes come from outside.
//!
//! Called by the fuzz targets in `fuzz/`, which make up the bytes, and by `tests/it/corpus.rs`, which replays those that are
//! kept; calls `module`, `sumdb` and `resource`. Invariant: a function here panics only where Larder is wrong. How each
//! reads its bytes is drawn at its file, so that cases can be written by hand.

mod database;
mod zips;

use larder::resource::{REQUEST_PATH_BYTES_MAX, Resource};
use larder::sumdb::tile::TILE_WIDTH_FULL;
use larder::sumdb::{Tile, TileLevel};

pub use database::{lookup, note};
pub use zips::zip;

/// A target's name, which is also the name of its corpus, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] =
    [("lookup", lookup), ("note", note), ("request", request), ("tile", tile), ("zip", zip)];

/// The bytes are the path of a request, with its slash, or a path below the root, without one.
pub fn request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(resource) = Resource::parse(text) {
        assert_eq!(resource.path(), text, "a second spelling");
        check_resource(&resource);
    }
    if let Ok(resource) = Resource::from_request_path(text) {
        check_resource(&resource);
    }
}

fn check_resource(resource: &Resource) {
    let path = resource.path();
    assert_eq!(Resource::parse(&path).as_ref(), Ok(resource), "{path}");
    assert_eq!(path, resource.to_string());
    assert!(path.split('/').all(|element| !matches!(element, "" | "." | "..")), "{path}");
    assert!(!path.bytes().any(|byte| byte == 0 || byte == b'\\'), "{path}");
    let url_path = format!("/{}", resource.url_path());
    assert!(url_path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#'), "{url_path}");
    if url_path.len() <= REQUEST_PATH_BYTES_MAX {
        assert_eq!(Resource::from_request_path(&url_path).as_ref(), Ok(resource), "{url_path}");
    }
}

/// The bytes are a tile's path and, behind a NUL byte, the size of a tree (8 bytes, little-endian) and bytes of a tile.
pub fn tile(data: &[u8]) {
    let (path, rest) = split(data, 0);
    let Some(tile) = std::str::from_utf8(path).ok().and_then(|path| Tile::parse(path).ok()) else { return };
    assert_eq!(tile.to_string().as_bytes(), path, "a second spelling");
    assert_eq!(Tile::new(tile.level(), tile.index(), tile.width()), Some(tile));
    assert!(tile.full().covers(&tile));
    let (tree_size, bytes) =
        rest.split_first_chunk().map_or((0, rest), |(size, rest)| (u64::from_le_bytes(*size), rest));
    if let Some(cut) = tile.cut(bytes) {
        assert_eq!(Some(cut.len() as u64), tile.bytes());
        assert!(bytes.starts_with(cut));
    }
    if let Some(in_tree) = Tile::in_tree(tile.level(), tile.index(), tree_size) {
        assert_eq!((in_tree.level(), in_tree.index()), (tile.level(), tile.index()));
        assert!(in_tree.full().covers(&in_tree));
        assert_eq!(Tile::parse(&in_tree.to_string()), Ok(in_tree));
        let hashes = match tile.level() {
            TileLevel::Data => u128::from(tree_size),
            TileLevel::Hashes(level) => u128::from(tree_size) >> (8 * u32::from(level)).min(127),
        };
        let end = u128::from(in_tree.index()) * u128::from(TILE_WIDTH_FULL) + u128::from(in_tree.width());
        assert!(end <= hashes && (end == hashes || !in_tree.is_partial()), "{in_tree} in {tree_size}");
    }
}

/// Splits at the first such byte, which is in neither half. Without one the second half is empty.
fn split(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    data.iter().position(|byte| *byte == at).map_or((data, &[]), |place| (&data[..place], &data[place + 1..]))
}
