//! Turns a command line into requests to the service, carries them out and prints the answers.
//!
//! Called by `app` before it makes a runtime: a command that talks to a service needs none, and one that is alone makes
//! the parts of a service only for what takes the network. It neither listens nor starts a root task then.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::MultiProgress;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::app::way_out::{Trusts, WayOut};
use crate::cache::Cache;
use crate::cli::{Command, Invocation};
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::control::desk::{Desk, Machinery};
use crate::control::{Answer, REQUEST_BYTES_MAX, Request, Rules, client, teller};
use crate::housekeeping::Housekeeper;
use crate::logging;
use crate::progress::WorkBar;
use crate::shutdown::Tasks;
use crate::store::Store;
use crate::store::gc::Limits;

/// The level of a service's log says what is going on; a command says that itself.
const COMMAND_LOG_LEVEL: &str = "warn";
/// Tasks of a command that is alone get this long at its end.
const TASKS_DEADLINE: Duration = Duration::from_secs(1);

/// Carries out what the command line wants of the service, and prints the answer. Returns the exit code, of several
/// requests the worst; `None` to be the service.
pub(super) fn run(loaded: &Loaded, invocation: &Invocation) -> Option<ExitCode> {
    let config = &loaded.config;
    let requests = requests(config, invocation)?;
    let is_default_level = config.log_level == "info";
    let bars = logging::start(if is_default_level { COMMAND_LOG_LEVEL } else { &config.log_level }, false, false);
    let codes = requests.map(|request| match request {
        Ok(request) => carry_out(loaded, &request, bars.as_ref()),
        Err(text) => {
            complain(&text);
            super::EXIT_FAILURE
        }
    });
    Some(ExitCode::from(codes.max().unwrap_or(super::EXIT_FAILURE)))
}

/// One request after the other, or why there is none.
type Requests<'a> = Box<dyn Iterator<Item = Result<Request, String>> + 'a>;

fn requests<'a>(config: &Config, invocation: &'a Invocation) -> Option<Requests<'a>> {
    let request = match &invocation.command {
        Command::Serve | Command::CheckConfig | Command::Doctor { .. } => return None,
        Command::Status => Request::Status,
        Command::Gc { dry_run } => Request::Gc { dry_run: *dry_run, rules: rules(config, invocation) },
        Command::Pin { targets } => Request::Pin(targets.clone()),
        Command::Pins => Request::Pins,
        Command::Unpin { targets } => Request::Unpin(targets.clone()),
        Command::Alarms => Request::Alarms,
        Command::ExportAlarm { id } => Request::ExportAlarm(*id),
        Command::ClearAlarms { ids } => Request::ClearAlarms(ids.clone()),
        Command::Verify { repair } => Request::Verify { repair: *repair },
        Command::VerifySums { files } => return Some(Box::new(files.iter().map(|file| sums(file)))),
        Command::Audit { from_start } => Request::Audit { from_start: *from_start },
    };
    Some(Box::new(std::iter::once(Ok(request))))
}

/// Reads a go.sum file: the command does, since the service may not be allowed to.
fn sums(name: &str) -> Result<Request, String> {
    let mut text = String::new();
    let read = File::open(Path::new(name)).and_then(|file| file.take(REQUEST_BYTES_MAX).read_to_string(&mut text));
    let read = read.map_err(|err| format!("{name}: {err}"))?;
    if read as u64 == REQUEST_BYTES_MAX {
        return Err(format!("{name}: too long for a go.sum file"));
    }
    Ok(Request::VerifySums { name: name.to_owned(), text })
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

/// Carries out a request, prints its answer and returns its exit code.
fn carry_out(loaded: &Loaded, request: &Request, bars: Option<&MultiProgress>) -> u8 {
    let config = &loaded.config;
    let mut code = super::EXIT_FAILURE;
    let mut out = io::stdout().lock();
    let (mut is_read, mut bar) = (true, WorkBar::new(bars));
    let mut alone = Alone::default();
    let make_desk = |store: &Arc<Store>| {
        if request.needs_machinery() {
            alone.make_desk(loaded, store)
        } else {
            client::plain_desk(store, limits(config))
        }
    };
    // Whoever reads may stop reading; the work goes on.
    let mut print = |content: &[u8], bar: &WorkBar| {
        is_read = is_read && bar.suspend(|| out.write_all(content).and_then(|()| out.flush()).is_ok());
    };
    let result = client::run(&config.cache_dir, request, make_desk, &mut |answer| match answer {
        Answer::Line(line) => print(format!("{line}\n").as_bytes(), &bar),
        Answer::Bytes(piece) => print(&teller::decode(&piece).unwrap_or_default(), &bar),
        Answer::Progress { done, total, text } => bar.show(done, total, text),
        Answer::Working => {}
        Answer::Exit { code: told, error } => {
            code = told;
            bar.clear();
            if let Some(error) = error {
                complain(&error);
            }
        }
    });
    bar.clear();
    alone.end();
    if let Err(err) = result {
        complain(&err.to_string());
        return super::EXIT_FAILURE;
    }
    code
}

/// What a command that is alone has made of the configuration.
#[derive(Default)]
struct Alone {
    runtime: Option<Runtime>,
    tasks: Tasks,
}

impl Alone {
    fn make_desk(&mut self, loaded: &Loaded, store: &Arc<Store>) -> Result<Desk, client::Error> {
        let no_machinery = client::Error::NoMachinery;
        let (config, clock) = (&loaded.config, Clock::system());
        let trusts = Trusts::load(loaded).map_err(|err| no_machinery(err.to_string()))?;
        let runtime = super::new_runtime().map_err(|err| no_machinery(format!("cannot start the runtime: {err}")))?;
        let entered = runtime.enter();
        let way_out = WayOut::new(config, &trusts, &self.tasks, &clock);
        let cache = super::build_cache(config, &way_out, store, &self.tasks, &clock).map_err(no_machinery)?;
        drop(entered);
        let desk = Desk {
            housekeeper: Arc::new(housekeeper(config, &cache, &CancellationToken::new())),
            alarms: Arc::clone(cache.verifier.alarms()),
            machinery: Some(Machinery { cache, runtime: runtime.handle().clone(), auditing: Mutex::default() }),
            service: None,
        };
        self.runtime = Some(runtime);
        Ok(desk)
    }

    fn end(self) {
        if let Some(runtime) = self.runtime {
            runtime.block_on(self.tasks.drain(TASKS_DEADLINE));
            runtime.shutdown_timeout(TASKS_DEADLINE);
        }
    }
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
