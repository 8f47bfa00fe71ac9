//! One DNS server: its connection, how long it is waited for, and both families of a name's addresses.
//!
//! Owns [`Server`]. Called by `servers`; calls `exchange`, `https`, `reply` and its [`Reach`]. There is at most one
//! connection; it is made when a question needs it, by whoever comes first while the others wait, and is left alone once
//! it has been idle for [`IDLE_MAX`], because what stands between may have forgotten it without a word. A question that
//! is not answered within half of its limit is asked once more on a new connection.
//!
//! Invariants: no look-up takes longer than the limit it is given; at most [`QUESTIONS_MAX`] questions are on their way.
//! Sources: RFC 8305, section 3 (waiting for the other family); RFC 7766, section 6.2.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::net::candidates::{Miss, Sign};
use crate::net::dns::cache::interleave;
use crate::net::dns::exchange::{self, Connection, QUESTIONS_MAX};
use crate::net::dns::https::{self, KnownForm};
use crate::net::dns::quic::Quic;
use crate::net::dns::reply::{Data, Dress, Family, Meaning, Question, Reply};
use crate::net::dns::{Boxed, Reach, ServerConfig, Transport};
use crate::net::tls::Trust;
use crate::shutdown::Tasks;

/// Attempts for one question: each waits half of the limit for an answer, and one may be the one without EDNS.
const ATTEMPTS_MAX: usize = 3;
/// How long IPv6 addresses are waited for once there are IPv4 ones (RFC 8305, section 3).
const V6_PATIENCE: Duration = Duration::from_millis(50);
/// How long IPv4 addresses are waited for once there are IPv6 ones: longer, since many sites reach only the former.
const V4_PATIENCE: Duration = Duration::from_secs(1);
/// How long an answer is waited for on a connection that was made for an earlier question.
const REUSED_PATIENCE: Duration = Duration::from_secs(1);
/// A connection that was last used longer ago is not used again.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a server that did not understand EDNS, and answered without, is asked without.
const PLAIN_FOR: Duration = Duration::from_secs(3600);
/// Names that an alias leads to which are asked for one after the other.
const ALIASES_ASKED_MAX: usize = 8;

/// The addresses of one family that came too late to be waited for, with their TTL; nothing if none came.
pub(crate) type Late = Boxed<'static, Option<(Vec<IpAddr>, u32)>>;

/// What a server knows of a name.
pub(crate) enum Known {
    /// Addresses.
    Found {
        /// At least one; IPv6 and IPv4 mixed as `interleave` does.
        addresses: Vec<IpAddr>,
        /// For how many seconds they hold.
        ttl_s: u32,
        /// The other family, if it was not waited for.
        late: Option<Late>,
    },
    /// There are none.
    Absent {
        /// What is to be said about it.
        text: String,
        /// For how many seconds that holds, if the server said so.
        ttl_s: Option<u32>,
    },
}

/// What a server knows of one family of a name.
enum Half {
    Found(Vec<IpAddr>, u32),
    Absent { is_no_such_name: bool, ttl_s: Option<u32> },
}

/// Why one attempt failed.
enum Fault {
    /// There was no answer.
    Silent,
    /// Another one may go better.
    Again(String),
    /// Another one would end the same way.
    Over(String),
}

/// One try to have a question answered.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    question: &'a Question,
    dress: Dress,
    /// In all, connecting included.
    left: Duration,
    sign: Option<&'a Sign>,
}

struct Held {
    connection: Connection,
    number: u64,
    used: Instant,
    answered: Instant,
}

#[derive(Default)]
struct Slot {
    held: Option<Held>,
    made: u64,
    failed: Option<(Instant, String)>,
    /// Until when it is asked without EDNS.
    plain_until: Option<Instant>,
}

/// One DNS server.
pub(crate) struct Server {
    config: Arc<ServerConfig>,
    transport: Transport,
    reach: Arc<dyn Reach>,
    tls: Option<Arc<ClientConfig>>,
    quic: Option<Quic>,
    slot: Mutex<Slot>,
    connecting: tokio::sync::Mutex<()>,
    questions: Semaphore,
    form: Arc<KnownForm>,
    tasks: Tasks,
    clock: Clock,
}

impl Server {
    /// Makes one; nothing is connected yet. `transport` differs from the configured one where UDP has to go through
    /// a proxy.
    pub(crate) fn new(
        config: ServerConfig,
        transport: Transport,
        reach: Arc<dyn Reach>,
        trust: &Trust,
        tasks: Tasks,
        clock: Clock,
    ) -> Self {
        let tls = match transport {
            Transport::Udp | Transport::Tcp | Transport::Quic => None,
            // Some servers refuse whoever names a protocol they do not.
            Transport::Tls => Some(trust.client(&[])),
            Transport::Https => Some(trust.client(&[b"h2", b"http/1.1"])),
        };
        let quic = (transport == Transport::Quic).then(|| Quic::new(trust));
        Self {
            config: Arc::new(config),
            transport,
            reach,
            tls,
            quic,
            slot: Mutex::default(),
            connecting: tokio::sync::Mutex::new(()),
            questions: Semaphore::new(QUESTIONS_MAX),
            form: Arc::default(),
            tasks,
            clock,
        }
    }

    /// Returns its name as people write it.
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    #[cfg(test)]
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Looks up both families of a name, within `limit` in all. A connection that is made is a sign of life.
    ///
    /// # Errors
    /// The server is out of order, or could not say; with its name in front.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the questions; the connection stays.
    pub(crate) async fn lookup(
        self: &Arc<Self>,
        name: &str,
        limit: Duration,
        sign: Option<Sign>,
    ) -> Result<Known, Miss<String>> {
        let mut four = Box::pin(Arc::clone(self).half(name.to_owned(), Family::V4, limit, sign.clone()));
        let mut six = Box::pin(Arc::clone(self).half(name.to_owned(), Family::V6, limit, sign));
        let (known4, known6, late): (_, _, Option<Late>) = tokio::select! {
            known4 = &mut four => match known4 {
                Ok(Half::Found(..)) => match timeout(V6_PATIENCE, &mut six).await {
                    Ok(known6) => (Some(known4), Some(known6), None),
                    Err(_) => (Some(known4), None, Some(late(six))),
                },
                // The name does not exist for any family.
                Ok(Half::Absent { is_no_such_name: true, .. }) => (Some(known4), None, None),
                Ok(Half::Absent { .. }) | Err(_) => (Some(known4), Some(six.await), None),
            },
            known6 = &mut six => match known6 {
                Ok(Half::Found(..)) => match timeout(V4_PATIENCE, &mut four).await {
                    Ok(known4) => (Some(known4), Some(known6), None),
                    Err(_) => (None, Some(known6), Some(late(four))),
                },
                // What is said about IPv6 alone is not believed of the name: some servers say "no such name" for what
                // they know only in IPv4 (RFC 4074, section 4.2).
                Ok(Half::Absent { .. }) | Err(_) => (Some(four.await), Some(known6), None),
            },
        };
        self.both(name, known4, known6, late)
    }

    fn both(
        &self,
        name: &str,
        known4: Option<Result<Half, Miss<String>>>,
        known6: Option<Result<Half, Miss<String>>>,
        late: Option<Late>,
    ) -> Result<Known, Miss<String>> {
        let (mut v4, mut v6, mut ttl_s) = (Vec::new(), Vec::new(), u32::MAX);
        if let Some(Ok(Half::Found(addresses, half_ttl_s))) = &known4 {
            (v4, ttl_s) = (addresses.clone(), ttl_s.min(*half_ttl_s));
        }
        if let Some(Ok(Half::Found(addresses, half_ttl_s))) = &known6 {
            (v6, ttl_s) = (addresses.clone(), ttl_s.min(*half_ttl_s));
        }
        if !v4.is_empty() || !v6.is_empty() {
            return Ok(Known::Found { addresses: interleave(v6, v4), ttl_s, late });
        }
        let mut ttl_s = None;
        let mut is_no_such_name = false;
        for (is_v4, half) in [(true, known4), (false, known6)] {
            match half {
                Some(Ok(Half::Absent { is_no_such_name: is_none, ttl_s: half_ttl_s })) => {
                    is_no_such_name |= is_v4 && is_none;
                    ttl_s = match (ttl_s, half_ttl_s) {
                        (Some(one), Some(other)) => Some(u32::min(one, other)),
                        (one, other) => one.or(other),
                    };
                }
                Some(Err(Miss::Dead(text))) => return Err(Miss::Dead(format!("{}: {text}", self.config.name))),
                Some(Err(Miss::Unable(text))) => {
                    return Err(Miss::Unable(format!("{}: {name}: {text}", self.config.name)));
                }
                Some(Ok(Half::Found(..))) | None => {}
            }
        }
        let what = if is_no_such_name { "no such name" } else { "the name has no address" };
        Ok(Known::Absent { text: format!("{}: {name}: {what}", self.config.name), ttl_s })
    }

    /// Looks up one family, following aliases that the answers do not follow themselves.
    async fn half(
        self: Arc<Self>,
        name: String,
        family: Family,
        limit: Duration,
        sign: Option<Sign>,
    ) -> Result<Half, Miss<String>> {
        let began = self.clock.steady();
        let (mut current, mut ttl_s) = (name, u32::MAX);
        for _ in 0..ALIASES_ASKED_MAX {
            let question = Question::new(&current, family).map_err(Miss::Unable)?;
            let left = limit.saturating_sub(self.clock.steady().duration_since(began));
            let reply = self.ask(&question, left, sign.as_ref()).await.map_err(Miss::Dead)?;
            match reply.meaning(&question) {
                Meaning::Addresses(addresses, last_ttl_s) => return Ok(Half::Found(addresses, ttl_s.min(last_ttl_s))),
                Meaning::Absent { is_no_such_name, ttl_s } => return Ok(Half::Absent { is_no_such_name, ttl_s }),
                Meaning::Failure(text) => return Err(Miss::Unable(text)),
                Meaning::Alias(target, alias_ttl_s) => (current, ttl_s) = (target, ttl_s.min(alias_ttl_s)),
            }
        }
        Err(Miss::Unable("its aliases do not end".to_owned()))
    }

    /// Asks one question, if need be again.
    async fn ask(&self, question: &Question, limit: Duration, sign: Option<&Sign>) -> Result<Reply, String> {
        let began = self.clock.steady();
        let left = || limit.saturating_sub(self.clock.steady().duration_since(began));
        let Ok(Ok(_permit)) = timeout(limit, self.questions.acquire()).await else {
            return Err(format!("more than {QUESTIONS_MAX} questions are waiting for it"));
        };
        let mut last = None;
        let mut is_plain = self.slot().plain_until.is_some_and(|until| began < until);
        for _ in 0..ATTEMPTS_MAX {
            if left().is_zero() {
                break;
            }
            let dress = if is_plain { Dress::Plain } else { Dress::Edns };
            match self.attempt(Attempt { question, dress, left: left(), sign }).await {
                Ok(reply) if dress == Dress::Edns && is_of_the_nineties(&reply) => {
                    is_plain = true;
                    last = Some(Ok(reply));
                }
                Ok(reply) => {
                    // Only if that was the reason: others say the same of a single name.
                    if matches!(&last, Some(Ok(_))) && !is_of_the_nineties(&reply) {
                        self.slot().plain_until = Some(self.clock.steady() + PLAIN_FOR);
                    }
                    return Ok(reply);
                }
                Err(Fault::Silent) => last = None,
                Err(Fault::Again(text)) => last = Some(Err(text)),
                Err(Fault::Over(text)) => return Err(text),
            }
        }
        last.unwrap_or_else(|| Err(silence(limit)))
    }

    async fn attempt(&self, attempt: Attempt<'_>) -> Result<Reply, Fault> {
        if self.transport != Transport::Udp {
            return self.ask_connected(attempt).await;
        }
        let Attempt { question, dress, left, .. } = attempt;
        let began = self.clock.steady();
        let left = || left.saturating_sub(self.clock.steady().duration_since(began));
        let addresses = timeout(left(), self.reach.addresses(&self.config)).await;
        let addresses = addresses.map_err(|_| Fault::Silent)?.map_err(Fault::Over)?;
        let asked = exchange::ask_datagram(&addresses, self.config.port, question, dress);
        // The whole time for one socket: an answer that comes late to another one would be lost.
        let reply = match timeout(left(), asked).await {
            Ok(reply) => reply.map_err(Fault::Over)?,
            Err(_) => return Err(Fault::Silent),
        };
        let (reply, why) = match reply {
            Some(reply) if !reply.is_truncated => return Ok(reply),
            Some(reply) => (reply, "the answer is too long for UDP"),
            None => (Reply::default(), "forged answers come over UDP"),
        };
        let left = left();
        match self.ask_connected(Attempt { left, ..attempt }).await {
            Ok(reply) => Ok(reply),
            // What did fit is true all the same.
            Err(_) if reply.records.iter().any(|record| matches!(record.data, Data::Address(_))) => Ok(reply),
            Err(fault) => {
                let text = match fault {
                    Fault::Silent => silence(left),
                    Fault::Again(text) | Fault::Over(text) => text,
                };
                Err(Fault::Over(format!("{why}, and over TCP: {text}")))
            }
        }
    }

    async fn ask_connected(&self, attempt: Attempt<'_>) -> Result<Reply, Fault> {
        let Attempt { question, dress, left, sign } = attempt;
        let began = self.clock.steady();
        let (connection, number, is_new) = match timeout(left, self.connection(began)).await {
            Ok(connection) => connection.map_err(Fault::Over)?,
            Err(_) => return Err(Fault::Over(format!("no connection within {} s", seconds(left)))),
        };
        let asked_at = self.clock.steady();
        // One that was silent since it was last used may have died without a word.
        let left = left.saturating_sub(asked_at.duration_since(began));
        let limit = if is_new { left } else { REUSED_PATIENCE.min(left / 2) };
        if let Some(sign) = sign.filter(|_| is_new) {
            sign.give();
        }
        match timeout(limit, connection.ask(question, dress)).await {
            Ok(Ok(reply)) => {
                self.note_answer(number);
                Ok(reply)
            }
            Ok(Err(text)) => {
                self.discard(number, None);
                // It may just have been closed for being idle, or by a server that was started anew.
                Err(if is_new { Fault::Over(text) } else { Fault::Again(text) })
            }
            Err(_) => {
                self.discard(number, Some(asked_at));
                Err(Fault::Silent)
            }
        }
    }

    /// Returns the connection, its number, and whether it was made just now; makes one if there is none.
    async fn connection(&self, since: Instant) -> Result<(Connection, u64, bool), String> {
        if let Some((connection, number)) = self.held() {
            return Ok((connection, number, false));
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some((connection, number)) = self.held() {
            return Ok((connection, number, false));
        }
        // Somebody tried while we were waiting; it would end the same way.
        if let Some((at, text)) = &self.slot().failed
            && *at >= since
        {
            return Err(text.clone());
        }
        let made = self.connect().await;
        let now = self.clock.steady();
        let mut slot = self.slot();
        match made {
            Ok(connection) => {
                slot.made += 1;
                let number = slot.made;
                slot.held = Some(Held { connection: connection.clone(), number, used: now, answered: now });
                Ok((connection, number, true))
            }
            Err(text) => {
                slot.failed = Some((now, text.clone()));
                Err(text)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let config = &self.config;
        if let Some(quic) = &self.quic {
            let addresses = self.reach.addresses(config).await?;
            return quic.connect(&addresses, config.port, &config.host).await.map(Connection::Quic);
        }
        let stream = self.reach.open(config, self.tls.as_ref()).await?;
        if self.transport == Transport::Https {
            let form = Arc::clone(&self.form);
            let connection = https::Connection::over(stream, Arc::clone(config), form, &self.tasks).await?;
            return Ok(Connection::Https(connection));
        }
        Ok(Connection::over(stream, &self.tasks))
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> Option<(Connection, u64)> {
        let now = self.clock.steady();
        let mut slot = self.slot();
        slot.held.take_if(|held| now.duration_since(held.used) > IDLE_MAX);
        let held = slot.held.as_mut()?;
        held.used = now;
        Some((held.connection.clone(), held.number))
    }

    fn note_answer(&self, number: u64) {
        let now = self.clock.steady();
        if let Some(held) = self.slot().held.as_mut().filter(|held| held.number == number) {
            held.answered = now;
        }
    }

    /// Forgets a connection; with `unless_answered_since`, only if nothing has come over it since then.
    fn discard(&self, number: u64, unless_answered_since: Option<Instant>) {
        self.slot().held.take_if(|held| {
            held.number == number && unless_answered_since.is_none_or(|asked_at| held.answered < asked_at)
        });
    }
}

fn late(half: impl Future<Output = Result<Half, Miss<String>>> + Send + 'static) -> Late {
    Box::pin(async move {
        match half.await {
            Ok(Half::Found(addresses, ttl_s)) => Some((addresses, ttl_s)),
            Ok(Half::Absent { .. }) | Err(_) => None,
        }
    })
}

/// Tells whether a server may not know EDNS: FORMERR, NOTIMP and BADVERS are what those say (RFC 6891, section 7).
fn is_of_the_nineties(reply: &Reply) -> bool {
    matches!(reply.code, 1 | 4 | 16)
}

fn silence(limit: Duration) -> String {
    format!("no answer within {} s", seconds(limit))
}

fn seconds(limit: Duration) -> f64 {
    (limit.as_secs_f64() * 10.0).round() / 10.0
}
