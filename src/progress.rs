//! Shows downloads on their way: bars on a terminal, a line at the start elsewhere; and the bar of a command's work.
//!
//! Owns [`WorkBar`], which `app` moves, and [`show`], a root task that `app` starts; asks `fill` how far each zip has come, a few times a second and only
//! while one is on its way. A fill does nothing for it but wake it once. The bars stand below the log lines, which the
//! logger writes through the same [`MultiProgress`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::fill::{Arriving, Fills};
use crate::module::ModuleVersion;

/// The bars move this often.
const TICK: Duration = Duration::from_millis(200);
/// More bars than this leave no room for the log; what is further on its way waits for a free place.
const BARS_MAX: usize = 8;
/// A smaller zip is there before a line about its start is of use, in bytes.
const ANNOUNCED_BYTES_MIN: u64 = 512 * 1024;

const KNOWN_LENGTH: &str =
    "{wide_msg} [{bar:20}] {percent:>3}% {decimal_total_bytes:>10} {decimal_bytes_per_sec:>12} {eta:>4}";
const UNKNOWN_LENGTH: &str = "{wide_msg} {decimal_bytes:>10} {decimal_bytes_per_sec:>12}";

const KNOWN_TOTAL: &str = "{wide_msg} [{bar:20}] {percent:>3}% {human_pos:>10} of {human_len} {eta:>4}";
const UNKNOWN_TOTAL: &str = "{wide_msg} {human_pos:>10}";

/// The bar of one command's work, below the lines that it prints; nothing where there is no terminal.
pub struct WorkBar {
    all: Option<MultiProgress>,
    bar: Option<ProgressBar>,
}

impl WorkBar {
    /// Makes one that is not to be seen before the first [`WorkBar::show`].
    pub fn new(all: Option<&MultiProgress>) -> Self {
        Self { all: all.cloned(), bar: None }
    }

    /// Shows how far the work has come. A `total` of 0 is one that is not known.
    pub fn show(&mut self, done: u64, total: u64, text: String) {
        let Some(all) = &self.all else { return };
        let bar = self.bar.get_or_insert_with(|| all.add(ProgressBar::no_length()));
        let length = (total > 0).then_some(total);
        if bar.length() != length || bar.position() == 0 {
            match length {
                Some(length) => bar.set_length(length),
                None => bar.unset_length(),
            }
            let template = if length.is_some() { KNOWN_TOTAL } else { UNKNOWN_TOTAL };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
        }
        bar.set_message(text);
        bar.set_position(done);
    }

    /// Does what prints to the terminal, without tearing the bar.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.all {
            Some(all) => all.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Shows the downloads of `fills` until `stop`: as bars if there are `bars`, else as log lines.
///
/// # Cancel safety
/// Bars that stand when the future is dropped stay until they are dropped too.
pub async fn show(fills: Arc<Fills>, bars: Option<MultiProgress>, stop: CancellationToken) {
    let show_all = async {
        match bars {
            Some(bars) => show_bars(&fills, &bars).await,
            None => show_lines(&fills).await,
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = show_all => {}
    }
}

async fn show_bars(fills: &Fills, all: &MultiProgress) {
    let mut bars = Bars { all, shown: BTreeMap::new() };
    loop {
        fills.grown().await;
        loop {
            // What is there within a tick needs no bar.
            sleep(TICK).await;
            let growing = fills.growing();
            bars.update(&growing);
            if growing.is_empty() {
                break;
            }
        }
    }
}

async fn show_lines(fills: &Fills) {
    let mut announced = BTreeSet::new();
    loop {
        fills.grown().await;
        let growing = fills.growing();
        for zip in &growing {
            if !announced.contains(&zip.version)
                && let Some(length) =
                    zip.length.filter(|length| *length > ANNOUNCED_BYTES_MIN && zip.received < *length)
            {
                log::info!("fetching {} bytes={length} upstream={}", zip.version, zip.upstream);
            }
        }
        announced = growing.into_iter().map(|zip| zip.version).collect();
    }
}

struct Bars<'a> {
    all: &'a MultiProgress,
    shown: BTreeMap<ModuleVersion, Bar>,
}

struct Bar {
    bar: ProgressBar,
    /// At first sight there is no speed to tell: a bar is shown at the second.
    is_visible: bool,
}

impl Drop for Bars<'_> {
    fn drop(&mut self) {
        self.update(&[]);
    }
}

impl Bars<'_> {
    fn update(&mut self, growing: &[Arriving]) {
        let is_growing = |version: &ModuleVersion| growing.iter().any(|zip| zip.version == *version);
        self.shown.retain(|version, Bar { bar, .. }| {
            let stays = is_growing(version);
            if !stays {
                bar.finish_and_clear();
                self.all.remove(bar);
            }
            stays
        });
        for zip in growing {
            if let Some(Bar { bar, is_visible }) = self.shown.get_mut(&zip.version) {
                bar.set_position(zip.received);
                if !*is_visible {
                    *bar = self.all.add(bar.clone());
                    *is_visible = true;
                    bar.tick();
                }
            } else if self.shown.len() < BARS_MAX {
                self.shown.insert(zip.version.clone(), Bar { bar: begin(zip), is_visible: false });
            }
        }
    }
}

fn begin(zip: &Arriving) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(zip.length, ProgressDrawTarget::hidden());
    let template = if zip.length.is_some() { KNOWN_LENGTH } else { UNKNOWN_LENGTH };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(zip.version.to_string());
    // What was there before, of a resumed download for example, is not this second's work.
    bar.update(|state| state.set_pos(zip.received));
    bar.reset_eta();
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arriving(name: &str, length: Option<u64>, received: u64) -> Arriving {
        Arriving { version: ModuleVersion::parse(name).unwrap(), length, received, upstream: Arc::from("") }
    }

    /// There is a bar for each download, at most so many, and none is left once they have ended.
    #[test]
    fn bars_follow_downloads() {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let mut bars = Bars { all: &all, shown: BTreeMap::new() };
        let (one, two) = ("example.com/one@v1.0.0", "example.com/two@v1.0.0");
        bars.update(&[arriving(one, Some(4_000_000), 0), arriving(two, None, 10)]);
        bars.update(&[arriving(one, Some(4_000_000), 1_000_000), arriving(two, None, 5000)]);
        let shown: Vec<_> = bars.shown.values().map(|shown| (shown.bar.position(), shown.bar.length())).collect();
        assert_eq!(shown, [(1_000_000, Some(4_000_000)), (5000, None)]);
        let many: Vec<Arriving> = (0..40).map(|n| arriving(&format!("example.com/m@v1.0.{n}"), Some(10), 1)).collect();
        bars.update(&many);
        assert_eq!(bars.shown.len(), BARS_MAX);
        bars.update(&[]);
        assert!(bars.shown.is_empty());
    }

    /// The bar of a command follows what it is told, and without a terminal there is none.
    #[test]
    fn a_bar_follows_the_work() {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let mut bar = WorkBar::new(Some(&all));
        for (done, total) in [(0, 0), (5, 0), (6, 10), (7, 20), (8, 0)] {
            bar.show(done, total, "verifying".to_owned());
            let shown = bar.bar.as_ref().unwrap();
            assert_eq!((shown.position(), shown.length()), (done, (total > 0).then_some(total)));
        }
        assert_eq!(bar.suspend(|| 7), 7);
        bar.clear();
        let mut nowhere = WorkBar::new(None);
        nowhere.show(1, 2, String::new());
        assert!(bar.bar.is_none() && nowhere.bar.is_none());
    }

    /// All forms of a bar can be drawn.
    #[test]
    fn templates_are_sound() {
        for template in [KNOWN_LENGTH, UNKNOWN_LENGTH, KNOWN_TOTAL, UNKNOWN_TOTAL] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
