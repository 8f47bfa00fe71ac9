//! The logger: `env_logger` on stderr, with the journal's priorities where stderr is the journal.

use std::io::{IsTerminal as _, Write as _};

use log::Level;

/// Starts the logger with the levels of `filter` (the syntax of `RUST_LOG`). Called once, before anything is logged.
pub fn start(filter: &str, is_under_journal: bool) {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter);
    // systemd hands over a pipe to the journal, which stamps and ranks each line itself.
    if is_under_journal && !std::io::stderr().is_terminal() {
        builder.format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), record.args()));
    } else {
        builder
            .format(|out, record| writeln!(out, "{} {:<5} {}", out.timestamp_seconds(), record.level(), record.args()));
    }
    // A second logger in one process is a test's business; the first one stays.
    let _ = builder.try_init();
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
