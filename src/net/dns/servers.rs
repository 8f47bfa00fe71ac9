//! Several DNS servers in order of preference.
//!
//! Owns [`Servers`]. Called by `names`, `bootstrap` and `resolver`; calls `server` and `candidates`. That a name does not
//! exist is an answer, and final; a server that fails, refuses or is silent sends the question to the next one.
//!
//! Invariant: a look-up takes at most [`LOOKUP_LIMIT`], however many servers there are.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use crate::check::{Check, Outcome};
use crate::clock::Clock;
use crate::net::candidates::{Candidates, Last, Miss};
use crate::net::dns::server::{Known, Server};

/// How long a look-up may take in all.
pub(crate) const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

struct Place {
    server: Arc<Server>,
    is_dead: AtomicBool,
}

/// The servers.
pub(crate) struct Servers {
    places: Candidates<Place>,
    clock: Clock,
}

impl Servers {
    /// Makes a list of at least one.
    pub(crate) fn new(servers: Vec<Server>, clock: Clock) -> Self {
        let place = |server| Place { server: Arc::new(server), is_dead: AtomicBool::new(false) };
        Self { places: Candidates::new(servers.into_iter().map(place), clock.clone()), clock }
    }

    /// Returns what the first server that can tell knows of `name`, and that server's name.
    ///
    /// # Errors
    /// What each server said, joined by `; `.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the questions, and blames nobody.
    pub(crate) async fn lookup(&self, name: &str) -> Result<(Known, String), String> {
        let began = self.clock.steady();
        let asked = self.places.first_in(self.places.order(), async |index, sign| {
            let left = LOOKUP_LIMIT.saturating_sub(self.clock.steady().duration_since(began));
            self.places.item(index).server.lookup(name, left, Some(sign)).await
        });
        let outcome = asked.await;
        self.tell_changes();
        match outcome {
            Ok((index, known)) => Ok((known, self.places.item(index).server.name().to_owned())),
            Err(misses) => Err(misses.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; ")),
        }
    }

    /// Says in the log, once per change, who is out of order and who is well again.
    fn tell_changes(&self) {
        for (place, last) in self.places.iter() {
            let Some(last) = last else { continue };
            if place.is_dead.swap(last.is_dead, Ordering::Relaxed) == last.is_dead {
                continue;
            }
            let name = place.server.name();
            match last.failure {
                Some(reason) if last.is_dead => {
                    log::warn!("DNS server is out of order server={name} reason={}", without_name(&reason, name));
                }
                Some(_) | None => log::info!("DNS server works again server={name}"),
            }
        }
    }

    /// Returns what each server did when it was last asked.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let now = self.clock.steady();
        let check = |(place, last): (&Place, Option<Last>)| {
            let name = place.server.name();
            let Some(last) = last else { return Check::new("dns", name, Outcome::Skip, "not asked yet") };
            let (outcome, text) = match &last.failure {
                None => (Outcome::Pass, "answers".to_owned()),
                Some(reason) => {
                    let outcome = if last.is_dead { Outcome::Fail } else { Outcome::Warn };
                    (outcome, without_name(reason, name).to_owned())
                }
            };
            let mut check = Check::new("dns", name, outcome, text).took(last.took);
            check.age = Some(now.saturating_duration_since(last.at));
            check
        };
        self.places.iter().map(check).collect()
    }

    /// Asks every server itself, beside each other, and returns what each said and how long it took.
    pub(crate) async fn probe(&self, name: &str) -> Vec<(String, Result<Vec<IpAddr>, String>, Duration)> {
        let ask = async |place: &Place| {
            let began = self.clock.steady();
            let said = match place.server.lookup(name, LOOKUP_LIMIT, None).await {
                Ok(Known::Found { addresses, .. }) => Ok(addresses),
                Ok(Known::Absent { text, .. }) | Err(Miss::Dead(text) | Miss::Unable(text)) => Err(text),
            };
            (place.server.name().to_owned(), said, self.clock.steady().duration_since(began))
        };
        join_all(self.places.iter().map(|(place, _)| ask(place))).await
    }
}

fn without_name<'a>(reason: &'a str, name: &str) -> &'a str {
    reason.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(reason)
}
