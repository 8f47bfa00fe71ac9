//! The logger: `env_logger` on stderr, with the journal's priorities where stderr is the journal, and above the
//! progress bars where it is a terminal.
//!
//! Called by `app`, once; calls nothing of Larder's own. Source of the priorities: `sd-daemon(3)`.

use std::io::{IsTerminal as _, Write as _};

use indicatif::MultiProgress;
use log::{Level, Log, Metadata, Record};

/// A logger whose lines do not tear the bars that stand below them.
struct AboveBars {
    logger: env_logger::Logger,
    bars: MultiProgress,
}

impl Log for AboveBars {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.logger.matches(record) {
            self.bars.suspend(|| self.logger.log(record));
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// Starts the logger with the levels of `filter` (the syntax of `RUST_LOG`). Called once, before anything is logged.
///
/// Requests are logged where they are asked for, whatever the levels.
///
/// Returns where progress bars can be shown, if stderr is a terminal.
pub fn start(filter: &str, is_under_journal: bool, log_requests: bool) -> Option<MultiProgress> {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter);
    if log_requests {
        builder.filter_module("request", log::LevelFilter::Info);
    }
    let is_terminal = std::io::stderr().is_terminal();
    // systemd hands over a pipe to the journal, which stamps and ranks each line itself.
    if is_under_journal && !is_terminal {
        builder.format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), record.args()));
    } else {
        builder
            .format(|out, record| writeln!(out, "{} {:<5} {}", out.timestamp_seconds(), record.level(), record.args()));
    }
    let logger = builder.build();
    let level = logger.filter();
    let bars = is_terminal.then(MultiProgress::new);
    let logger: Box<dyn Log> = match bars.clone() {
        Some(bars) => Box::new(AboveBars { logger, bars }),
        None => Box::new(logger),
    };
    // A second logger in one process is a test's business; the first one stays.
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(level);
    }
    bars
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
