//! The real go command with empty caches of its own, pointed at one proxy.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A go command with a module folder to run in.
pub(crate) struct Go {
    folder: tempfile::TempDir,
    proxy: String,
    sumdb: String,
    env: Vec<(String, String)>,
}

impl Go {
    /// Makes one that asks `proxy` (any GOPROXY value) and no checksum database.
    pub(crate) fn new(proxy: &str) -> Self {
        let go = Self { folder: super::temp_dir(), proxy: proxy.to_owned(), sumdb: "off".to_owned(), env: Vec::new() };
        std::fs::create_dir(go.module()).unwrap();
        std::fs::write(go.module().join("go.mod"), "module example.com/user\n\ngo 1.21\n").unwrap();
        go
    }

    /// Verifies against this checksum database, a value of GOSUMDB, through the proxy.
    pub(crate) fn sumdb(mut self, name: &str) -> Self {
        name.clone_into(&mut self.sumdb);
        self
    }

    /// Sets one more variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Requires these module versions, written `PATH@VERSION`, in its go.mod file.
    pub(crate) fn require<Module: AsRef<str>>(self, modules: &[Module]) -> Self {
        for module in modules {
            self.expect(&["mod", "edit", &format!("-require={}", module.as_ref())]);
        }
        self
    }

    /// Returns the folder of its module.
    pub(crate) fn module(&self) -> PathBuf {
        self.folder.path().join("user")
    }

    /// Returns the module cache it fills, a folder in the layout of Go's own download cache.
    pub(crate) fn download_cache(&self) -> PathBuf {
        self.folder.path().join("mod/cache/download")
    }

    /// Runs it.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        Command::new("go")
            .args(args)
            .current_dir(self.module())
            .env("GOPROXY", &self.proxy)
            .env("GOSUMDB", &self.sumdb)
            .env("GOPATH", self.folder.path().join("path"))
            .env("GOMODCACHE", self.folder.path().join("mod"))
            .env("GOFLAGS", "-modcacherw")
            .env("GOTOOLCHAIN", "local")
            .env("GOENV", "off")
            .env_remove("GONOSUMDB")
            .env_remove("GONOPROXY")
            .env_remove("GOPRIVATE")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("the go command is needed")
    }

    /// Runs it and fails the test unless it succeeds; returns what it printed to stdout.
    #[track_caller]
    pub(crate) fn expect(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "go {}: {errors}", args.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
