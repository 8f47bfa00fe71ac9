//! `larder doctor`: builds the parts of the service, hands them to `doctor` and prints what that finds.
//!
//! Called by `main` with whatever came of reading the configuration, since a mistake there is the first finding. Takes no
//! lock and asks no service.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::Arc;

use url::Url;

use crate::app::way_out::{Trusts, WayOut};
use crate::app::{EXIT_FAILURE, announce, upstreams};
use crate::cache::Cache;
use crate::check::{Check, Outcome};
use crate::clock::Clock;
use crate::config::{Config, ConfigErrors, Loaded, NetworkMode, process_environment};
use crate::doctor::latest::Latest;
use crate::doctor::print::{Form, Printer};
use crate::doctor::{self, Database, Subject, Upstream};
use crate::logging;
use crate::server::admin::Checks;
use crate::shutdown::Tasks;

/// The parts warn of what the report says anyway.
const LOG_LEVEL: &str = "error";
const STEP: &str = "configuration";

/// Walks the way out and prints what was found; fails if anything did.
pub fn main(loaded: Result<Loaded, ConfigErrors>, is_json: bool) -> ExitCode {
    let mut printer = Printer::new(io::stdout(), form(is_json));
    let examined = match loaded {
        Ok(loaded) => examine(&loaded, &mut printer),
        Err(errors) => mistakes(&errors, &mut printer),
    };
    // Whoever reads may stop reading, and then wants to know nothing more.
    match examined.and_then(|()| printer.finish()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::from(EXIT_FAILURE),
    }
}

/// Returns what tells, for `/health?verbose`, how the same steps went when the service last took them.
pub(super) fn latest(config: &Config, way_out: &WayOut, cache: &Cache) -> Checks {
    let latest = Latest {
        routes: way_out.routes(),
        upstreams: Arc::clone(&cache.upstreams),
        cache_dir: config.cache_dir.clone(),
        free_bytes_min: config.min_free_space,
        clock: cache.clock.clone(),
    };
    Arc::new(move || latest.checks())
}

/// Marks are for people who look at them now, and do not mind colour.
fn form(is_json: bool) -> Form {
    let environment = process_environment();
    let is_set = |name| environment.get(name).is_some_and(|value| !value.is_empty());
    let is_dumb = environment.get("TERM").is_some_and(|value| value == "dumb");
    if is_json {
        Form::Json
    } else if io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb {
        Form::Marks
    } else {
        Form::Words
    }
}

fn mistakes<W: Write>(errors: &ConfigErrors, printer: &mut Printer<W>) -> io::Result<()> {
    errors.mistakes.iter().try_for_each(|mistake| {
        printer.show(Check::new(STEP, "", Outcome::Fail, mistake).hint("nothing else is looked at before it is mended"))
    })
}

fn examine<W: Write>(loaded: &Loaded, printer: &mut Printer<W>) -> io::Result<()> {
    let config = &loaded.config;
    logging::start(if config.log_level == "info" { LOG_LEVEL } else { &config.log_level }, false, false);
    let trusts = match Trusts::load(loaded) {
        Ok(trusts) => trusts,
        Err(errors) => return mistakes(&errors, printer),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let subject = {
        // Parts of the way out are made within a runtime.
        let _entered = runtime.enter();
        subject(config, &trusts)
    };
    let subject = match subject {
        Ok(subject) => subject,
        Err(mistake) => return mistakes(&ConfigErrors { mistakes: vec![mistake] }, printer),
    };
    let file = config
        .config_file
        .as_ref()
        .map_or_else(|| "in order; no file is read".to_owned(), |path| format!("{} is in order", path.display()));
    printer.show(Check::new(STEP, "", Outcome::Pass, file))?;
    for warning in &loaded.warnings {
        printer.show(Check::new(STEP, "", Outcome::Warn, warning))?;
    }
    let mut shown = Ok(());
    runtime.block_on(doctor::examine(&subject, |check| {
        if shown.is_ok() {
            shown = printer.show(check);
        }
    }));
    // A look-up by the system's resolver that hangs must not keep the program.
    runtime.shutdown_background();
    shown
}

/// Returns what is to be looked at.
///
/// # Errors
/// Credentials that cannot be sent; the text does not repeat them.
fn subject(config: &Config, trusts: &Trusts) -> Result<Subject, String> {
    let clock = Clock::system();
    let way_out = WayOut::new(config, trusts, &Tasks::new(), &clock);
    let parts = upstreams::config(config, &way_out)?;
    let public = parts.entries.into_iter().map(|entry| Upstream { source: entry.source, is_private: false });
    let private = parts.private.into_iter().map(|(_, source)| Upstream { source, is_private: true });
    let database = config.gosumdb.as_ref().and_then(|database| {
        let name = database.name.to_string();
        let url = match &database.url {
            Some(url) => url.split_credentials().0,
            None => Url::parse(&format!("https://{name}")).ok()?,
        };
        Some(Database { name, url, egress: way_out.of_all().clone() })
    });
    let listen = config.socket_addresses();
    let goproxy = announce::reachable(*listen.first().ok_or("no address to listen on")?);
    Ok(Subject {
        upstreams: public.chain(private).collect(),
        database,
        trust: trusts.upstreams().clone(),
        is_offline: config.network_mode == NetworkMode::Offline,
        cache_dir: config.cache_dir.clone(),
        free_bytes_min: config.min_free_space,
        listen,
        goproxy,
        clock,
    })
}
