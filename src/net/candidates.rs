//! Several servers that do the same, in order of preference: DNS servers, proxies. The dead ones are passed over.
//!
//! Owns [`Candidates`]. Called by `resolver` and `proxy`; calls `clock`. The first one is asked; when it fails, or is
//! silent for [`PATIENCE`], the next is asked beside it, and the first good answer counts. Whoever failed by its own
//! fault, or was still silent when another one answered, cools down: it is asked again only when nobody else is left, or
//! when its time is over, and then by one request first.
//!
//! Invariant: as long as there is one candidate, there is somebody to ask; a cool-down never makes a request fail.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use crate::clock::Clock;

/// How long a candidate may be silent before the next one is asked beside it.
pub const PATIENCE: Duration = Duration::from_millis(700);
/// How long a dead candidate is left alone at first; it doubles from there.
pub const COOL_DOWN_MIN: Duration = Duration::from_secs(30);
/// How long a dead candidate is left alone at most.
pub const COOL_DOWN_MAX: Duration = Duration::from_secs(300);
/// One silent for so long when its race is given up has had its chance.
const CHANCE: Duration = Duration::from_millis(2500);
/// One that did what it should so recently, and is slow now, is slow for this target.
const PROVEN_FOR: Duration = Duration::from_secs(10);
/// How long one request tries a candidate that has cooled down before others do so too.
const TRIAL: Duration = Duration::from_secs(5);

/// Why a candidate gave no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss<E> {
    /// It is out of order itself.
    Dead(E),
    /// It works, but could not help with this.
    Unable(E),
}

impl<E> Miss<E> {
    /// Returns what was wrong, whoever is to blame.
    pub fn into_inner(self) -> E {
        match self {
            Self::Dead(error) | Self::Unable(error) => error,
        }
    }
}

/// What a candidate did when it was last asked.
#[derive(Clone, Debug)]
pub struct Last {
    /// When its answer came, or it was given up.
    pub at: Instant,
    /// How long that took.
    pub took: Duration,
    /// What was wrong, if anything.
    pub failure: Option<String>,
    /// Whether it was out of order itself.
    pub is_dead: bool,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    cool_until: Option<Instant>,
    /// Whether somebody tries it again, so that others need not.
    is_tried: bool,
    last: Option<Last>,
}

/// By which a candidate that is being asked shows that it works, though its answer is not there yet.
#[derive(Clone, Debug)]
pub struct Sign {
    clock: Clock,
    last: Arc<Mutex<Instant>>,
    told: Arc<Told>,
}

/// What is known of a candidate that is being asked.
#[derive(Debug, Default)]
struct Told {
    /// It has done something itself.
    has_begun: AtomicBool,
    /// What is waited for is not up to it.
    is_waiting: AtomicBool,
    /// It is not to be judged by a race that is given up.
    is_spared: AtomicBool,
}

impl Sign {
    /// Makes one; silence begins now.
    pub(super) fn new(clock: Clock) -> Self {
        let last = Arc::new(Mutex::new(clock.steady()));
        Self { clock, last, told: Arc::default() }
    }

    /// Says that the candidate has just done something.
    pub fn give(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = self.clock.steady();
    }

    /// Says as [`Sign::give`] that the candidate has just done something, by which it has been reached itself.
    pub fn has_begun(&self) {
        self.told.has_begun.store(true, Ordering::Relaxed);
        self.give();
    }

    /// Waits for something that is not up to the candidate, and for which it is not blamed.
    ///
    /// # Cancel safety
    /// As that of `other`.
    pub async fn waiting_for<T>(&self, other: impl Future<Output = T>) -> T {
        self.told.is_waiting.store(true, Ordering::Relaxed);
        let result = other.await;
        self.told.is_waiting.store(false, Ordering::Relaxed);
        self.give();
        result
    }

    /// Says that nothing is to be learnt of the candidate if the race is given up: what it is asked may take long.
    pub fn spare(&self) {
        self.told.is_spared.store(true, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        self.clock.steady().duration_since(*self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Candidate<T> {
    item: T,
    state: Mutex<State>,
}

/// Candidates in order of preference, at least one.
#[derive(Debug)]
pub struct Candidates<T> {
    all: Vec<Candidate<T>>,
    clock: Clock,
}

impl<T> Candidates<T> {
    /// Makes a list; none of them is known to be dead.
    pub fn new(items: impl IntoIterator<Item = T>, clock: Clock) -> Self {
        let all = items.into_iter().map(|item| Candidate { item, state: Mutex::default() });
        Self { all: all.collect(), clock }
    }

    /// Returns each candidate with what it did when last asked, in order of preference.
    pub fn iter(&self) -> impl Iterator<Item = (&T, Option<Last>)> {
        (0..self.all.len()).map(|index| (&self.all[index].item, self.state(index).last.clone()))
    }

    /// Returns the candidates to ask, in order: those that are well, then those that cool down.
    pub fn order(&self) -> Vec<usize> {
        let now = self.clock.steady();
        let is_cool = |index: &usize| self.state(*index).cool_until.is_some_and(|until| now < until);
        let (cool, well): (Vec<usize>, Vec<usize>) = (0..self.all.len()).partition(is_cool);
        well.into_iter().chain(cool).collect()
    }

    /// Returns the first of [`Candidates::order`].
    pub fn preferred(&self) -> usize {
        let now = self.clock.steady();
        let is_well = |index: &usize| self.state(*index).cool_until.is_none_or(|until| until <= now);
        (0..self.all.len()).find(is_well).unwrap_or(0)
    }

    /// Tells whether a candidate did what it should when it was last asked, and not longer than `within` ago.
    pub fn is_proven(&self, index: usize, within: Duration) -> bool {
        let now = self.clock.steady();
        let state = self.state(index);
        state.last.as_ref().is_some_and(|last| last.failure.is_none() && now.duration_since(last.at) <= within)
    }

    /// Returns the candidate of this index.
    pub fn item(&self, index: usize) -> &T {
        &self.all[index].item
    }

    fn state(&self, index: usize) -> MutexGuard<'_, State> {
        self.all[index].state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a candidate is being asked: if it had to cool down, it is on trial.
    fn note_asked(&self, index: usize) {
        let now = self.clock.steady();
        let mut state = self.state(index);
        if state.cool_until.is_some_and(|until| until <= now) {
            state.cool_until = Some(now + TRIAL);
            state.is_tried = true;
        }
    }

    /// Notes that a candidate did what it should.
    pub fn note_good(&self, index: usize, took: Duration) {
        let last = Last { at: self.clock.steady(), took, failure: None, is_dead: false };
        *self.state(index) = State { last: Some(last), ..State::default() };
    }

    /// Notes that a candidate is well, though it could not help.
    pub fn note_unable(&self, index: usize, took: Duration, failure: String) {
        let last = Last { at: self.clock.steady(), took, failure: Some(failure), is_dead: false };
        *self.state(index) = State { last: Some(last), ..State::default() };
    }

    /// Notes that a candidate is out of order; returns whether that is news.
    pub fn note_dead(&self, index: usize, took: Duration, failure: String) -> bool {
        let now = self.clock.steady();
        let mut state = self.state(index);
        let was_well = state.cool_until.is_none();
        if state.is_tried || state.cool_until.is_none_or(|until| until <= now) {
            let pause = COOL_DOWN_MIN.saturating_mul(1 << state.failures.min(8)).min(COOL_DOWN_MAX);
            state.failures = state.failures.saturating_add(1);
            state.cool_until = Some(now + pause);
            state.is_tried = false;
        }
        state.last = Some(Last { at: now, took, failure: Some(failure), is_dead: true });
        was_well
    }

    /// Returns the first good answer, with the index of the candidate that gave it. `ask` takes a candidate's index.
    ///
    /// # Errors
    /// What each of those asked said, in the order it was said.
    ///
    /// # Cancel safety
    /// Dropping the future abandons all that were asked, and blames those who were silent for long.
    pub async fn first<R, E, F, A>(&self, ask: F) -> Result<(usize, R), Vec<(usize, E)>>
    where
        E: std::fmt::Display,
        F: Fn(usize) -> A,
        A: Future<Output = Result<R, Miss<E>>>,
    {
        self.first_in(self.order(), |index, _| ask(index)).await
    }

    /// Does as [`Candidates::first`] with an order given, and silence counted from the last [`Sign`] a candidate gave.
    ///
    /// # Errors
    /// What each of those asked said, in the order it was said.
    ///
    /// # Cancel safety
    /// Dropping the future abandons all that were asked, and blames those who were silent for long.
    pub async fn first_in<R, E, F, A>(&self, order: Vec<usize>, ask: F) -> Result<(usize, R), Vec<(usize, E)>>
    where
        E: std::fmt::Display,
        F: Fn(usize, Sign) -> A,
        A: Future<Output = Result<R, Miss<E>>>,
    {
        let mut waiting = order.into_iter();
        let mut asked = FuturesUnordered::new();
        let mut race = Race { of: self, silent: Vec::new() };
        let mut misses = Vec::new();
        loop {
            if let Some(index) = waiting.next() {
                self.note_asked(index);
                let sign = Sign::new(self.clock.clone());
                let answer = ask(index, sign.clone());
                race.silent.push(Asked { index, began: self.clock.steady(), sign });
                asked.push(async move { (index, answer.await) });
            } else if asked.is_empty() {
                return Err(misses);
            }
            let has_next = waiting.len() > 0;
            loop {
                // Nobody else is asked while one of those asked is getting on.
                let silence = race.silent.iter().map(|one| one.sign.silence()).min().unwrap_or_default();
                if has_next && silence >= PATIENCE {
                    break;
                }
                tokio::select! {
                    Some((index, result)) = asked.next() => {
                        if let Some(answer) = self.note(index, result, &mut race.silent, &mut misses) {
                            return Ok((index, answer));
                        }
                        break;
                    }
                    () = sleep(PATIENCE.saturating_sub(silence)), if has_next => {}
                }
            }
        }
    }

    /// Notes what one of those asked said; returns its answer if it is a good one.
    fn note<R, E: std::fmt::Display>(
        &self,
        index: usize,
        result: Result<R, Miss<E>>,
        silent: &mut Vec<Asked>,
        misses: &mut Vec<(usize, E)>,
    ) -> Option<R> {
        let now = self.clock.steady();
        let began = silent.iter().find(|one| one.index == index).map_or(now, |one| one.began);
        let took = now.duration_since(began);
        silent.retain(|one| one.index != index);
        match result {
            Ok(answer) => {
                self.note_good(index, took);
                self.blame_the_silent(&std::mem::take(silent));
                return Some(answer);
            }
            Err(Miss::Dead(error)) => {
                self.note_dead(index, took, error.to_string());
                misses.push((index, error));
            }
            Err(Miss::Unable(error)) => {
                self.note_unable(index, took, error.to_string());
                misses.push((index, error));
            }
        }
        None
    }

    fn blame_the_silent(&self, silent: &[Asked]) {
        for one in silent {
            // Whoever was asked only just now, or was getting on, has had no chance.
            let silence = one.sign.silence();
            if silence >= PATIENCE {
                self.note_silent(one, format!("silent for {} ms while another one answered", silence.as_millis()));
            }
        }
    }

    /// Notes a silence. One that was well a moment ago, and has been reached, has a slow target; but not twice in a row.
    fn note_silent(&self, one: &Asked, text: String) {
        if one.sign.told.is_waiting.load(Ordering::Relaxed) {
            return;
        }
        let took = self.clock.steady().duration_since(one.began);
        if one.sign.told.has_begun.load(Ordering::Relaxed) && self.is_proven(one.index, PROVEN_FOR + took) {
            self.note_unable(one.index, took, text);
        } else {
            self.note_dead(one.index, took, text);
        }
    }
}

/// Those who have been asked and have not answered yet. Dropped before there is an answer, it still tells who was silent
/// for so long that whoever asks next need not find out again.
struct Race<'a, T> {
    of: &'a Candidates<T>,
    silent: Vec<Asked>,
}

impl<T> Drop for Race<'_, T> {
    fn drop(&mut self) {
        for one in &self.silent {
            let silence = one.sign.silence();
            if silence >= CHANCE && !one.sign.told.is_spared.load(Ordering::Relaxed) {
                let text = format!("no answer for {} s", (silence.as_secs_f64() * 10.0).round() / 10.0);
                self.of.note_silent(one, text);
            }
        }
    }
}

/// One that has been asked and has not answered yet.
struct Asked {
    index: usize,
    began: Instant,
    sign: Sign,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Candidates<&'static str> {
        Candidates::new(["a", "b", "c"], Clock::system())
    }

    async fn ask(list: &Candidates<&'static str>, dead: &[&str], silent: &[&str]) -> Result<&'static str, Vec<String>> {
        let asked = list.first(async |index| {
            let name = list.item(index);
            if silent.contains(name) {
                std::future::pending::<()>().await;
            }
            if dead.contains(name) { Err(Miss::Dead(format!("{name} is dead"))) } else { Ok(*name) }
        });
        asked.await.map(|(_, name)| name).map_err(|misses| misses.into_iter().map(|(_, text)| text).collect())
    }

    /// The first is asked while it is well; once found dead it is passed over until it has cooled down.
    #[tokio::test]
    async fn dead_ones_are_passed_over() {
        let list = three();
        assert_eq!(ask(&list, &[], &[]).await, Ok("a"));
        assert_eq!(ask(&list, &["a"], &[]).await, Ok("b"));
        assert_eq!(list.order(), [1, 2, 0]);
        assert_eq!(ask(&list, &[], &[]).await, Ok("b"));
        list.clock.advance(COOL_DOWN_MIN);
        assert_eq!(ask(&list, &[], &[]).await, Ok("a"));
        assert_eq!(list.order(), [0, 1, 2]);
    }

    /// When all are dead all are still asked, and each says why.
    #[tokio::test]
    async fn nobody_is_left_out_for_good() {
        let list = three();
        for _ in 0..2 {
            let said = ask(&list, &["a", "b", "c"], &[]).await.unwrap_err();
            assert_eq!(said, ["a is dead", "b is dead", "c is dead"]);
        }
        assert_eq!(ask(&list, &["a", "b"], &[]).await, Ok("c"));
    }

    /// A silent one costs the patience once, and nothing while it cools down.
    #[tokio::test]
    async fn silence_costs_once() {
        let list = three();
        assert_eq!(ask(&list, &[], &["a"]).await, Ok("b"));
        assert_eq!(list.order(), [1, 2, 0]);
        let (_, seen) = list.iter().next().unwrap();
        let said = seen.unwrap().failure.unwrap();
        assert!(said.starts_with("silent for ") && said.ends_with(" ms while another one answered"), "{said}");
    }

    /// One that gets on, however slowly, is not hurried and not blamed.
    #[tokio::test]
    async fn signs_of_life_count() {
        let list = three();
        let asked = list.first_in(list.order(), async |index, sign| {
            for _ in 0..3 {
                sleep(PATIENCE * 2 / 3).await;
                sign.give();
            }
            if index == 0 { Ok::<_, Miss<String>>(list.item(index)) } else { Err(Miss::Dead("asked".to_owned())) }
        });
        assert_eq!(*asked.await.unwrap().1, "a");
        assert!(list.iter().skip(1).all(|(_, last)| last.is_none()));
    }

    /// Who is silent for long is noted also when nobody waits for the end; who waits for something else himself is not,
    /// nor who was well a moment ago and has been reached, unless it happens again.
    #[tokio::test]
    async fn a_race_that_is_given_up_teaches() {
        let given_up = async |list: &Candidates<&'static str>, after: Duration, does: fn(&Sign)| {
            let asked = list.first_in(vec![0], async |_, sign| {
                does(&sign);
                sign.waiting_for(tokio::task::yield_now()).await;
                list.clock.advance(after);
                std::future::pending::<Result<(), Miss<String>>>().await
            });
            assert!(tokio::time::timeout(Duration::from_millis(1), asked).await.is_err());
            list.iter().next().unwrap().1.map(|last| (last.failure, last.is_dead))
        };
        let said = |is_dead| Some((Some("no answer for 3 s".to_owned()), is_dead));
        let long = Duration::from_secs(3);
        assert_eq!(given_up(&three(), Duration::from_secs(1), |_| {}).await, None);
        assert_eq!(given_up(&three(), long, |_| {}).await, said(true));
        assert_eq!(given_up(&three(), long, Sign::spare).await, None);
        let waits = |sign: &Sign| sign.told.is_waiting.store(true, Ordering::Relaxed);
        let list = three();
        let asked = list.first_in(vec![0], async |_, sign| {
            waits(&sign);
            list.clock.advance(long);
            std::future::pending::<Result<(), Miss<String>>>().await
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), asked).await.is_err());
        assert!(list.iter().next().unwrap().1.is_none());
        let list = three();
        list.note_good(0, Duration::ZERO);
        assert_eq!(given_up(&list, long, Sign::has_begun).await, said(false));
        assert_eq!(given_up(&list, long, Sign::has_begun).await, said(true));
    }

    /// Of many requests, one tries the one that has cooled down; the others go on as before.
    #[tokio::test]
    async fn one_tries_for_all() {
        let list = three();
        ask(&list, &["a"], &[]).await.unwrap();
        list.clock.advance(COOL_DOWN_MIN);
        assert_eq!((list.preferred(), list.order()), (0, vec![0, 1, 2]));
        list.note_asked(0);
        assert_eq!((list.preferred(), list.order()), (1, vec![1, 2, 0]));
        assert!(!list.note_dead(0, Duration::ZERO, "still".to_owned()));
        list.clock.advance(COOL_DOWN_MIN);
        assert_eq!(list.preferred(), 1);
        list.clock.advance(COOL_DOWN_MIN);
        assert_eq!(list.preferred(), 0);
    }
}
