//! Turns a command line into a request to the service, carries it out and prints the answer.
//!
//! Called by `app` before it makes a runtime: a command needs none.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::cli::{Command, Invocation};
use crate::config::Config;
use crate::control::{Answer, Request, Rules, client};
use crate::housekeeping::Housekeeper;
use crate::logging;
use crate::store::gc::Limits;

/// The level of a service's log says what is going on; a command says that itself.
const COMMAND_LOG_LEVEL: &str = "warn";

/// Returns what the command line wants of the service; `None` to be the service.
pub(super) fn request(config: &Config, invocation: &Invocation) -> Option<Request> {
    match &invocation.command {
        Command::Serve | Command::CheckConfig | Command::Doctor { .. } => None,
        Command::Status => Some(Request::Status),
        Command::Gc { dry_run } => Some(Request::Gc { dry_run: *dry_run, rules: rules(config, invocation) }),
        Command::Pin { targets } => Some(Request::Pin(targets.clone())),
        Command::Pins => Some(Request::Pins),
        Command::Unpin { targets } => Some(Request::Unpin(targets.clone())),
    }
}

/// Rules given as flags hold for the run that is asked for; all others are the service's own.
fn rules(config: &Config, invocation: &Invocation) -> Rules {
    let given = |flag: &str| invocation.flags.contains_key(flag);
    Rules {
        age_max_s: given("max-cache-age").then(|| config.max_cache_age.map_or(0, |age| age.as_secs().max(1))),
        cache_bytes_max: given("max-cache-size").then(|| config.max_cache_size.unwrap_or(0)),
        free_bytes_min: given("min-free-space").then_some(config.min_free_space),
    }
}

/// Carries out a command and prints its answer.
pub(super) fn run(config: &Config, request: &Request) -> ExitCode {
    let is_default_level = config.log_level == "info";
    logging::start(if is_default_level { COMMAND_LOG_LEVEL } else { &config.log_level }, false, false);
    let mut code = super::EXIT_FAILURE;
    let mut out = io::stdout().lock();
    let mut is_read = true;
    let result = client::run(&config.cache_dir, limits(config), request, &mut |answer| match answer {
        // Whoever reads may stop reading; the work goes on.
        Answer::Line(line) => is_read = is_read && writeln!(out, "{line}").is_ok(),
        Answer::Working => {}
        Answer::Exit { code: told, error } => {
            code = told;
            if let Some(error) = error {
                complain(&error);
            }
        }
    });
    if let Err(err) = result {
        complain(&err.to_string());
        return ExitCode::from(super::EXIT_FAILURE);
    }
    ExitCode::from(code)
}

#[expect(clippy::print_stderr, reason = "a command's own words, which are no log")]
fn complain(text: &str) {
    eprintln!("larder: {text}");
}

/// Returns the configured limits in the words of housekeeping.
pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        age_max: config.max_cache_age,
        cache_bytes_max: config.max_cache_size,
        free_bytes_min: config.min_free_space,
    }
}

/// Makes the housekeeper of a service.
pub(super) fn housekeeper(config: &Config, cache: &Arc<Cache>, stop: &CancellationToken) -> Housekeeper {
    let in_use = (Arc::clone(&cache.fills), Arc::clone(&cache.readers));
    let root = cache.store.root().to_owned();
    Housekeeper::new(root, Arc::clone(&cache.index), in_use, limits(config), cache.clock.clone(), stop.clone())
}
