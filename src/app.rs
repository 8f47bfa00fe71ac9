//! Wires everything together from the bottom up, owns the root tasks, and stops them in order.
//!
//! Called by `main`. The only module that knows both the configuration and the parts it is for. Stopping goes the other
//! way round: no new requests, running answers end, fills stop and keep what they have, the index is flushed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use indicatif::MultiProgress;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cache::sweep::Verifying;
use crate::cache::takers::Takers;
use crate::cache::{self, Cache};
use crate::cli::Invocation;
use crate::clock::Clock;
use crate::config::{Config, ConfigErrors, Loaded, is_under_journal};
use crate::fill::Fills;
use crate::fill::download::{self, Downloader};
use crate::fill::small::SmallFiles;
use crate::logging;
use crate::server::access::AllowList;
use crate::server::admin::Admin;
use crate::server::handler::Handler;
use crate::server::{self, ConnectionLimits, listener};
use crate::shutdown::Tasks;
use crate::store::adopt::Adoption;
use crate::store::index::Index;
use crate::store::{self, Store};
use crate::upstream::UpstreamList;

mod announce;
mod commands;
pub mod doctor;
mod root_tasks;
mod scrub;
mod upstreams;
mod verification;
mod way_out;

use way_out::{Trusts, WayOut};

/// Running answers get this long after the signal to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// Fills and housekeeping get this long after that; together below systemd's 90 s and a container's 30.
const TASKS_DEADLINE: Duration = Duration::from_secs(5);
/// Threads that may wait for the disk at the same time.
const BLOCKING_THREADS_MAX: usize = 32;
/// Something failed that is not the configuration.
const EXIT_FAILURE: u8 = 1;

/// Runs what the command line asks for.
///
/// # Errors
/// Files that the configuration names and that cannot be used: mistakes like any other in it.
pub fn main(loaded: &Loaded, invocation: &Invocation) -> Result<ExitCode, ConfigErrors> {
    let config = &loaded.config;
    if let Some(code) = commands::run(loaded, invocation) {
        return Ok(code);
    }
    let bars = logging::start(&config.log_level, is_under_journal(), config.log_requests);
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    let trusts = Trusts::load(loaded)?;
    let runtime = match new_runtime() {
        Ok(runtime) => runtime,
        Err(err) => return Ok(failed(&format!("cannot start the runtime: {err}"))),
    };
    let result = runtime.block_on(serve(config, &trusts, bars));
    // Threads that wait for a dead disk must not keep the program.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => failed(&text),
    })
}

/// Returns what `check-config` prints: every value, and which way upstreams would be reached. Asks nobody.
///
/// # Errors
/// Files that the configuration names and that cannot be used.
pub fn check_config(loaded: &Loaded) -> Result<String, ConfigErrors> {
    let trusts = Trusts::load(loaded)?;
    // Parts of the way out are made within a runtime, though they begin nothing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let _entered = runtime.as_ref().map(tokio::runtime::Runtime::enter);
    let way_out = WayOut::new(&loaded.config, &trusts, &Tasks::new(), &Clock::system());
    Ok(loaded.report(&announce::way_out_lines(&loaded.config, &way_out)))
}

fn new_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("larder")
        .build()
}

fn failed(text: &str) -> ExitCode {
    log::error!("{text}");
    ExitCode::from(EXIT_FAILURE)
}

/// Serves until a signal says otherwise.
async fn serve(config: &Config, trusts: &Trusts, bars: Option<MultiProgress>) -> Result<(), String> {
    let clock = Clock::system();
    let stop = CancellationToken::new();
    let hurry = stop_on_signals(&stop)?;
    listener::raise_open_files();
    let store =
        Arc::new(Store::open_root(&config.cache_dir).map_err(|err| format!("cannot use the cache directory: {err}"))?);
    // Two groups: what serves clients ends first, what works for the cache after it.
    let (serving, working) = (Tasks::new(), Tasks::new());
    let way_out = WayOut::new(config, trusts, &working, &clock);
    let listeners = listen(config)?;
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let cache = build_cache(config, &way_out, &store, &working, &clock)?;
    let keeper = Arc::new(commands::housekeeper(config, &cache, &stop));
    let indexed = root_tasks::keep_index(&cache, &working, &stop);
    root_tasks::keep_house(&keeper, &cache, config.cleanup_interval, indexed, &working);
    root_tasks::take_commands(&keeper, &cache, &working);
    root_tasks::catch_up(&cache, &working);
    root_tasks::scrub(&cache, (config.scrub_interval, config.scrub_rate), &working);
    root_tasks::show_progress(&cache, bars, &working);

    let handler = Arc::new(Handler {
        admin: Admin {
            cache: Arc::clone(&cache),
            started: clock.steady(),
            checks: doctor::latest(config, &way_out, &cache),
            looking: Arc::default(),
        },
        cache: Arc::clone(&cache),
        log_requests: config.log_requests,
        clock: clock.clone(),
    });
    announce::print(config, &way_out, &addresses);
    let server_config = server::Config {
        limits: ConnectionLimits {
            max_connections: usize::try_from(config.max_connections).unwrap_or(usize::MAX),
            max_per_client: usize::try_from(config.max_connections_per_client).unwrap_or(usize::MAX),
        },
        allow: if config.allow.is_empty() {
            AllowList::office(clock.clone())
        } else {
            AllowList::only(config.allow.clone())
        },
        drain_deadline: DRAIN_DEADLINE,
    };
    if let (Some(path), Some(address)) = (&config.ready_file, addresses.first()) {
        let text = format!("http://{}\n", announce::reachable(*address));
        store.write_outside(path, text.as_bytes()).map_err(|err| format!("cannot write the ready file: {err}"))?;
    }
    let handle = move |request, connection| Arc::clone(&handler).handle(request, connection);
    tokio::select! {
        () = server::serve(listeners, handle, server_config, clock, &serving, stop.clone()) => {}
        () = hurry.cancelled() => log::warn!("stopping at once: running answers are cut off"),
    }

    log::info!("stopping");
    stop.cancel();
    serving.drain(if hurry.is_cancelled() { Duration::ZERO } else { TASKS_DEADLINE }).await;
    if !working.drain(TASKS_DEADLINE).await {
        log::warn!("some downloads did not stop in time; they are resumed at the next start");
    }
    let index = Arc::clone(&cache.index);
    let closed = store::blocking(move || {
        index.close();
        Ok(())
    });
    closed.await.map_err(|err| err.to_string())?;
    log::info!("stopped");
    Ok(())
}

fn build_cache(
    config: &Config,
    way_out: &WayOut,
    store: &Arc<Store>,
    working: &Tasks,
    clock: &Clock,
) -> Result<Arc<Cache>, String> {
    let upstreams = Arc::new(UpstreamList::new(upstreams::config(config, way_out)?, working.clone()));
    let index = Arc::new(Index::opening(store.root()));
    let parts = verification::Parts { store, index: &index, upstreams: &upstreams, tasks: working, clock };
    let verifier = Arc::new(verification::verifier(config, way_out, &parts)?);
    let downloads = download::Config {
        connections: usize::try_from(config.download_connections).unwrap_or(1),
        downloads_max: config.max_concurrent_downloads.map_or(0, |max| usize::try_from(max).unwrap_or(0)),
    };
    let downloader = Downloader::new(
        &downloads,
        Arc::clone(store),
        Arc::clone(&upstreams),
        Arc::clone(&verifier),
        working.token().clone(),
    );
    Ok(Arc::new(Cache {
        config: cache::Config {
            network_mode: upstreams::network_mode(config.network_mode),
            fresh_for: config.fresh_for,
        },
        store: Arc::clone(store),
        index: Arc::clone(&index),
        adoption: Arc::new(Adoption::of(store.root())),
        fills: Fills::new(working.clone()),
        readers: Arc::default(),
        disk_full: tokio::sync::Notify::new(),
        small_files: SmallFiles::new(Arc::clone(&upstreams), Arc::clone(&verifier)),
        verifier,
        takers: Takers::default(),
        verifying: Verifying::default(),
        upstreams,
        downloader,
        clock: clock.clone(),
    }))
}

fn listen(config: &Config) -> Result<Vec<TcpListener>, String> {
    let inherited = listener::adopt().map_err(|err| err.to_string())?;
    if !inherited.is_empty() {
        let ports: Vec<u16> =
            inherited.iter().filter_map(|listener| Some(listener.local_addr().ok()?.port())).collect();
        if !ports.contains(&config.port) {
            log::warn!(
                "serving on the sockets handed over, ports {ports:?}, and not on the configured port {}",
                config.port
            );
        }
        return Ok(inherited);
    }
    if config.listen.is_empty() {
        return listener::bind(&[], config.port).map_err(|err| err.to_string());
    }
    // Those of one port together: an IPv6 socket must leave IPv4 to the others, and a free port is chosen for all.
    let mut rest = config.socket_addresses();
    let mut listeners = Vec::new();
    while let Some(port) = rest.first().map(SocketAddr::port) {
        let (together, others): (Vec<SocketAddr>, Vec<_>) = rest.into_iter().partition(|to| to.port() == port);
        let addresses: Vec<IpAddr> = together.iter().map(SocketAddr::ip).collect();
        listeners.extend(listener::bind(&addresses, port).map_err(|err| err.to_string())?);
        rest = others;
    }
    Ok(listeners)
}

/// Lets the first signal stop Larder. Returns what a second one cancels: somebody does not want to wait.
fn stop_on_signals(stop: &CancellationToken) -> Result<CancellationToken, String> {
    let hurry = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind).map_err(|err| format!("cannot listen for signals: {err}"))?;
        let (stop, hurry) = (stop.clone(), hurry.clone());
        Tasks::new().spawn("signals", async move {
            while signals.recv().await.is_some() {
                if stop.is_cancelled() {
                    hurry.cancel();
                }
                stop.cancel();
            }
        });
    }
    Ok(hurry)
}
