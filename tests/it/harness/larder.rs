//! The binary under test as a handle: start, ask, stop, kill, look at its cache directory and its log.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use reqwest::Method;
use reqwest::blocking::Response;
use rustix::process::{Pid, Signal};

use super::client::{Answer, send, try_request};
use super::{Host, Upstream, wait_for};

/// How a Larder is to be started.
pub(crate) struct Start {
    cache: Option<PathBuf>,
    upstream: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    host: Option<Host>,
}

impl Start {
    /// Begins with the given upstream list, in the notation of `-upstream`.
    pub(crate) fn upstream(list: &str) -> Self {
        Self { cache: None, upstream: list.to_owned(), args: Vec::new(), env: Vec::new(), host: None }
    }

    /// Begins with the given stand-in upstream.
    pub(crate) fn on(upstream: &Upstream) -> Self {
        Self::upstream(&upstream.url)
    }

    /// Begins with a configuration file, which names the upstreams.
    pub(crate) fn configured(file: &Path) -> Self {
        Self::upstream("").args(["-config", file.to_str().unwrap()])
    }

    /// Uses this cache directory instead of a new one.
    pub(crate) fn cache(mut self, cache: &Path) -> Self {
        self.cache = Some(cache.to_path_buf());
        self
    }

    /// Adds flags.
    pub(crate) fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(str::to_owned));
        self
    }

    /// Sets a variable; none of the test's own reach the binary, but PATH.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it on a host of the test's own network; clients reach it through the host's gate.
    pub(crate) fn inside(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Returns the command with everything but the flags.
    fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_larder");
        let mut command = self.host.as_ref().map_or_else(|| Command::new(program), |host| host.command(program));
        command.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("RUST_BACKTRACE", "1");
        command.envs(self.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    fn upstream_flag(&self) -> impl Iterator<Item = &str> {
        ["-upstream", &self.upstream].into_iter().take(if self.upstream.is_empty() { 0 } else { 2 })
    }

    fn is_told_what_to_verify(&self) -> bool {
        let says = |text: &str| text.contains("gosumdb");
        self.args.iter().any(|word| says(word))
            || self.env.iter().any(|(name, _)| name == "GOSUMDB")
            || self.configuration().is_some_and(|text| says(&text))
    }

    /// Returns the text of the configuration file, if there is one.
    fn configuration(&self) -> Option<String> {
        let at = self.args.iter().position(|word| word == "-config")?;
        std::fs::read_to_string(self.args.get(at + 1)?).ok()
    }

    /// Runs a subcommand instead of the service, with the same flags and the cache directory, to its end.
    pub(crate) fn subcommand(self, words: &[&str]) -> Output {
        let folder = super::temp_dir();
        let cache = self.cache.clone().unwrap_or_else(|| folder.path().join("cache"));
        let mut command = self.command();
        command.args(words).args(self.upstream_flag()).arg("-cache").arg(&cache).args(&self.args);
        command.output().unwrap()
    }

    /// Starts it and waits until it serves.
    pub(crate) fn run(self) -> Larder {
        let folder = super::temp_dir();
        let cache = self.cache.clone().unwrap_or_else(|| folder.path().join("cache"));
        let (ready, log) = (folder.path().join("ready"), folder.path().join("log"));
        let listen = self.host.as_ref().map_or(Ipv4Addr::LOCALHOST, Host::gate).to_string();
        let mut command = self.command();
        command.args(["-listen", &listen, "-port", "0"]).args(self.upstream_flag()).arg("-cache").arg(&cache);
        // What is slow by default, or depends on the machine's disk, unless the test has set it.
        for (flag, value) in [("-retry-backoff", "20ms"), ("-min-free-space", "0")] {
            if !self.args.iter().any(|word| word == flag) {
                command.args([flag, value]);
            }
        }
        // Verification has tests of its own; the others must not see its requests.
        if !self.is_told_what_to_verify() {
            command.args(["-gosumdb", "off", "-sumdbs", super::PUBLIC_DATABASE]);
        }
        command.arg("-ready-file").arg(&ready).args(&self.args);
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let child = command.spawn().unwrap();
        let mut larder = Larder { child: Some(child), cache, url: String::new(), log, folder };
        larder.url = wait_for("the ready file", || {
            let ended = larder.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "larder ended at start: {ended:?}: {}", larder.log());
            std::fs::read_to_string(&ready).ok().filter(|text| !text.is_empty())
        });
        larder.url = larder.url.trim().to_owned();
        larder
    }
}

/// A running, or ended, Larder.
pub(crate) struct Larder {
    child: Option<Child>,
    pub(crate) cache: PathBuf,
    pub(crate) url: String,
    log: PathBuf,
    /// Holds the default cache directory, the log and the ready file.
    #[expect(dead_code, reason = "dropped after the process, which removes the folder")]
    folder: tempfile::TempDir,
}

impl Larder {
    /// Starts one in front of `upstream` with a new cache directory.
    pub(crate) fn start(upstream: &Upstream) -> Self {
        Start::on(upstream).run()
    }

    /// Returns the address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// GETs a path and returns the whole answer.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    /// GETs a path with headers and returns the whole answer.
    #[track_caller]
    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request(Method::GET, path, headers)
    }

    /// GETs a path until the answer is from the store. A reader has the last byte a moment before the file has its final
    /// name, so what was just fetched may be followed once more as the download it still is.
    #[track_caller]
    pub(crate) fn hit(&self, path: &str) -> Answer {
        wait_for("an answer from the store", || Some(self.get(path).expect(200)).filter(Answer::is_hit))
    }

    /// GETs a path until the answer is no longer shared with a download that is just being finished: what is asked
    /// afterwards is decided anew.
    #[track_caller]
    pub(crate) fn settled(&self, path: &str) -> Answer {
        wait_for("an answer of its own", || {
            Some(self.get(path)).filter(|answer| !answer.header("cache-status").contains("collapsed"))
        })
    }

    /// Sends a request and returns the whole answer.
    #[track_caller]
    pub(crate) fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        match try_request(method, &format!("{}{path}", self.url), headers) {
            Ok(answer) => answer,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// GETs a path; an answer that breaks off is an error.
    pub(crate) fn try_get(&self, path: &str) -> Result<Answer, String> {
        try_request(Method::GET, &format!("{}{path}", self.url), &[])
    }

    /// GETs a path and returns as soon as the head of the answer is here.
    #[track_caller]
    pub(crate) fn open(&self, path: &str) -> Response {
        send(Method::GET, &format!("{}{path}", self.url), &[]).unwrap()
    }

    /// Returns what it has written to stderr.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns where a resource is stored.
    pub(crate) fn stored(&self, path: &str) -> PathBuf {
        self.cache.join(path.trim_start_matches('/'))
    }

    /// Returns whether a resource is stored under its final name.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.stored(path).is_file()
    }

    /// Returns the files in `.larder/tmp`, if there is such a folder.
    pub(crate) fn partials(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.cache.join(".larder/tmp")) else {
            return Vec::new();
        };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM without waiting.
    pub(crate) fn signal_term(&self) {
        signal(self.pid(), Signal::TERM);
    }

    /// Sends SIGINT, as Ctrl-C does, without waiting.
    pub(crate) fn signal_int(&self) {
        signal(self.pid(), Signal::INT);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let status = wait_for("the end of larder", || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// Stops it in the ordinary way and asserts that it ends well.
    pub(crate) fn stop(&mut self) {
        self.signal_term();
        let status = self.wait();
        assert!(status.success(), "larder ended with {status} after SIGTERM");
    }

    /// Runs a subcommand of the binary on this cache directory.
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        run_command(&self.cache, args)
    }
}

/// Ends a process as a power cut would; for a Larder that other threads are asking at that moment.
pub(crate) fn kill_process(pid: u32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: u32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Runs a subcommand of the binary on a cache directory.
pub(crate) fn run_command(cache: &Path, args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(args)
        .arg("-cache")
        .arg(cache)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

impl Drop for Larder {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            println!("--- the end of larder's log:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}
