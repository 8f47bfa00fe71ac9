//! Does what a command wants, for a running service and for a command that is alone with the cache directory.
//!
//! Owns [`Desk`]. Called by the two sides of the conversation, so both give the same answers; calls `housekeeping`,
//! `store` for pins and alarms, and `cache` for what only a running service knows and for what takes the network.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::runtime::Handle;

use crate::cache::Cache;
use crate::clock::UnixSeconds;
use crate::control::teller::Teller;
use crate::control::text::{count, progress, rules, size, span};
use crate::control::verify::verification_lines;
use crate::control::{Answer, Request, Rules};
use crate::housekeeping::Housekeeper;
use crate::store::alarms::Alarms;
use crate::store::gc::{self, Mode, Reason, Removal, Report};
use crate::store::offline::knows_anything_of;
use crate::store::pins::Pin;

/// Where the answers come from.
pub struct Desk {
    /// The cache directory and its rules.
    pub housekeeper: Arc<Housekeeper>,
    /// What a person has to know.
    pub alarms: Arc<Alarms>,
    /// What takes the network: always there in a service, alone only for a request that
    /// [needs it](Request::needs_machinery).
    pub machinery: Option<Machinery>,
    /// The service, if it is running in this process.
    pub service: Option<Service>,
}

/// All that a service is made of, but for its server.
pub struct Machinery {
    /// The cache, with its way out.
    pub cache: Arc<Cache>,
    /// Where what waits for the network is waited for, by `block_on`: a request is answered on the blocking pool, or in
    /// the main thread.
    pub runtime: Handle,
    /// Held while the log is read: two audits would write one set.
    pub auditing: Mutex<()>,
}

/// A running service.
pub struct Service {
    /// When it began, by the steady clock.
    pub started: Instant,
}

/// Takes the lines of an answer.
type Say<'a> = dyn FnMut(String) + 'a;

impl Desk {
    /// Does what is asked, telling `say` each piece of the answer, the end included. For the blocking pool.
    pub fn answer(&self, request: &Request, say: &mut dyn FnMut(Answer)) {
        let result = self.work(request, &mut Teller::new(say, &self.housekeeper.clock));
        say(match result {
            Ok(()) => Answer::Exit { code: 0, error: None },
            Err(error) => Answer::Exit { code: 1, error: Some(error) },
        });
    }

    fn work(&self, request: &Request, teller: &mut Teller<'_>) -> Result<(), String> {
        match request {
            Request::Status => {
                self.status(&mut |text| teller.line(text));
                Ok(())
            }
            Request::Gc { dry_run, rules: given } => {
                let mode = if *dry_run { Mode::DryRun } else { Mode::Remove };
                self.gc(mode, *given, &mut |text| teller.line(text))
            }
            Request::Pin(targets) => self.pin(targets, &mut |text| teller.line(text)),
            Request::Pins => self.pins(&mut |text| teller.line(text)),
            Request::Unpin(targets) => self.unpin(targets, &mut |text| teller.line(text)),
            Request::Alarms => {
                self.list_alarms(teller);
                Ok(())
            }
            Request::ExportAlarm(id) => self.export_alarm(*id, teller),
            Request::ClearAlarms(ids) => self.clear_alarms(ids, teller),
            Request::Verify { repair } => self.verify(self.machinery()?, *repair, teller),
            Request::VerifySums { name, text } => self.verify_sums(self.machinery()?, name, text, teller),
            Request::Audit { from_start } => self.audit(self.machinery()?, *from_start, teller),
        }
    }

    fn machinery(&self) -> Result<&Machinery, String> {
        self.machinery.as_ref().ok_or_else(|| "this takes the network, and there is no way to it".to_owned())
    }

    fn status(&self, say: &mut Say<'_>) {
        let keeper = &*self.housekeeper;
        match &self.service {
            Some(service) => say(format!(
                "larder {}, running for {}",
                env!("CARGO_PKG_VERSION"),
                span(keeper.since(service.started))
            )),
            None => say(format!("larder {}, not running", env!("CARGO_PKG_VERSION"))),
        }
        say(format!("cache         {}", keeper.root.display()));
        self.say_stored(say);
        if let (Some(_), Some(Machinery { cache, .. })) = (&self.service, &self.machinery) {
            for upstream in cache.upstreams.all() {
                let state = upstream.down_reason().map_or_else(|| "ok".to_owned(), |reason| format!("down: {reason}"));
                say(format!("upstream      {}  {state}", upstream.name));
            }
            for zip in cache.fills.growing() {
                say(format!("downloading   {}  {}", zip.version, progress(zip.received, zip.length)));
            }
        }
        if let Some(Machinery { cache, .. }) = &self.machinery {
            verification_lines(cache).into_iter().for_each(&mut *say);
        }
        self.alarms_line().into_iter().for_each(&mut *say);
        if keeper.clock.trusted_now().is_some() {
            say("clock         trusted".to_owned());
        } else {
            say("clock         shows an impossible time: nothing is removed by age until it is set".to_owned());
        }
        say(format!("removes       {}", rules(keeper.limits)));
        match keeper.pins() {
            Ok(pins) => say(format!("pins          {}", pins.list().len())),
            Err(err) => say(format!("pins          {err}")),
        }
        if self.service.is_some() {
            let text = match keeper.last_run() {
                None => "not since the start".to_owned(),
                Some(run) => {
                    let ago = span(keeper.since(run.ended));
                    match run.outcome {
                        Ok(report) => format!("{ago} ago: {}", report_text(&report, Mode::Remove)),
                        Err(text) => format!("{ago} ago: {text}"),
                    }
                }
            };
            say(format!("housekeeping  {text}"));
        }
    }

    fn say_stored(&self, say: &mut Say<'_>) {
        let keeper = &*self.housekeeper;
        // What has come in during the last moments counts too.
        keeper.index.maintain();
        let totals = keeper.index.totals();
        let mut text = format!("{}, {}", count(totals.files, "file", "files"), size(totals.bytes));
        if let Ok(free) = gc::free_bytes(&keeper.root) {
            let _ = write!(text, "; {} free on the disk", size(free));
        }
        if !keeper.index.is_open() {
            text += "; the index is not open";
        }
        say(format!("stored        {text}"));
    }

    fn gc(&self, mode: Mode, given: Rules, say: &mut Say<'_>) -> Result<(), String> {
        let keeper = &*self.housekeeper;
        let now = keeper.clock.now();
        let limits = given.over(keeper.limits);
        let report = keeper
            .run(limits, mode, &mut |removal| say(removal_text(removal, mode, now)))
            .map_err(|err| err.to_string())?;
        say(report_text(&report, mode));
        if mode == Mode::DryRun {
            say(format!("the rules are: {}", rules(limits)));
        }
        match report.failures {
            0 => Ok(()),
            failures => Err(format!("{failures} could not be removed; the log says why")),
        }
    }

    fn pin(&self, targets: &[String], say: &mut Say<'_>) -> Result<(), String> {
        let wanted = parse(targets)?;
        let pins = self.housekeeper.pins().map_err(|err| err.to_string())?;
        for pin in &wanted {
            let is_new = pins.add(pin).map_err(|err| err.to_string())?;
            let path = match pin {
                Pin::Module(path) => path,
                Pin::Version(version) => version.path(),
            };
            // A typing error would keep nothing; a pin made before the first download is meant.
            let hint = match knows_anything_of(&self.housekeeper.root, path) {
                Ok(false) => "; nothing of this module is stored yet",
                Ok(true) | Err(_) => "",
            };
            say(format!("{} {pin}{hint}", if is_new { "pinned" } else { "already pinned" }));
        }
        Ok(())
    }

    fn unpin(&self, targets: &[String], say: &mut Say<'_>) -> Result<(), String> {
        let unwanted = parse(targets)?;
        let pins = self.housekeeper.pins().map_err(|err| err.to_string())?;
        let mut missing = Vec::new();
        for pin in &unwanted {
            if pins.remove(pin).map_err(|err| err.to_string())? {
                say(format!("unpinned {pin}"));
            } else {
                missing.push(pin.to_string());
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("not pinned: {}", missing.join(", "))) }
    }

    fn pins(&self, say: &mut Say<'_>) -> Result<(), String> {
        let pins = self.housekeeper.pins().map_err(|err| err.to_string())?;
        for pin in pins.list() {
            say(pin.to_string());
        }
        Ok(())
    }
}

/// All or none: a mistake in one name changes nothing.
fn parse(targets: &[String]) -> Result<Vec<Pin>, String> {
    let mut pins = Vec::new();
    for target in targets {
        pins.push(Pin::parse(target).map_err(|err| err.to_string())?);
    }
    Ok(pins)
}

fn removal_text(removal: &Removal, mode: Mode, now: UnixSeconds) -> String {
    let verb = match mode {
        Mode::DryRun => "would remove",
        Mode::Remove => "removed",
    };
    let why = match removal.reason {
        Reason::Age => "too old",
        Reason::Room => "to make room",
    };
    let unused = span(now.since(removal.last_used));
    format!("{verb} {}  {}  {why}, unused for {unused}", removal.version, size(removal.bytes))
}

fn report_text(report: &Report, mode: Mode) -> String {
    let verb = match mode {
        Mode::DryRun => "would remove",
        Mode::Remove => "removed",
    };
    let versions = count(report.versions, "module version", "module versions");
    let files = count(report.removed.files, "file", "files");
    let mut text = format!("{verb} {versions}, {files}, {}", size(report.removed.bytes));
    let _ = write!(text, " of {}", size(report.before.bytes));
    if report.kept_versions > 0 {
        let _ = write!(text, "; {} kept, pinned or in use", report.kept_versions);
    }
    if report.removed.bytes < report.needed_bytes {
        let _ = write!(text, "; {} have to go for the rules", size(report.needed_bytes));
    }
    if report.is_clock_wrong {
        text += "; nothing by age, the clock is not set";
    }
    text
}
