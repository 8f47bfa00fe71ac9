//! The command verify: judges what is stored, or compares a go.sum file with the checksum database.
//!
//! Called by [`Desk`] alone.

use crate::control::desk::{Desk, Machinery};
use crate::control::teller::Teller;

impl Desk {
    /// Judges all that is stored. Ends early when `self.housekeeper.stop` says so.
    #[expect(clippy::unused_self, reason = "filled in by the part that judges")]
    pub(super) fn verify(&self, _: &Machinery, _repair: bool, _: &mut Teller<'_>) -> Result<(), String> {
        Err("not built yet".to_owned())
    }

    /// Compares the go.sum file `name`, which holds `text`, with the checksum database.
    #[expect(clippy::unused_self, reason = "filled in by the part that judges")]
    pub(super) fn verify_sums(
        &self,
        _: &Machinery,
        _name: &str,
        _text: &str,
        _: &mut Teller<'_>,
    ) -> Result<(), String> {
        Err("not built yet".to_owned())
    }
}
