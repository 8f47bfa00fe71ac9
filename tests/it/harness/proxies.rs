//! Real proxies on a host of a test's own network: danted and microsocks, tinyproxy and squid, stunnel in front.
//!
//! Called by the tests of the way out. Each runs in the foreground with a configuration of its own in the host's folder
//! and listens on the host's addresses, both families; whatever the machine's own packages are set to plays no part. It
//! is ready when it takes a connection.
//!
//! Sources: danted.conf(5), microsocks(1), tinyproxy.conf(5), squid.conf of squid 5, stunnel(8).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Certificate, Host, Process};

/// The user that proxies with a password know.
pub(crate) const USER: &str = "user";

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Danted,
    Microsocks,
    Tinyproxy,
    Squid,
}

impl Program {
    /// Returns the password it knows, if it is started with one, and that password as it is written in a URL.
    ///
    /// tinyproxy takes letters, digits and few signs only; in a URL any of them may be percent-encoded all the same.
    pub(crate) fn password(self) -> (&'static str, &'static str) {
        match self {
            Self::Danted | Self::Microsocks | Self::Squid => ("Hors:e@Batt/ery 9%", "Hors%3Ae%40Batt%2Fery%209%25"),
            Self::Tinyproxy => ("Horse.Battery-9", "Hor%73e.Battery-9"),
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Danted => "danted",
            Self::Microsocks => "microsocks",
            Self::Tinyproxy => "tinyproxy",
            Self::Squid => "squid",
        }
    }
}

/// A running proxy; it ends when dropped.
pub(crate) struct Server {
    process: Process,
    port: u16,
    /// Where it writes whom it served, if not to its output.
    log: Option<PathBuf>,
    #[expect(dead_code, reason = "dropped after the process, which removes the folder")]
    folder: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts one that leads everywhere, for everybody or for the user with the password of [`Program::password`].
    /// If the program is not installed it prints so and returns `None`: the test is left out.
    #[track_caller]
    pub(crate) fn start(program: Program, host: &Host, port: u16, has_password: bool) -> Option<Self> {
        is_installed(program.command())?;
        let password = has_password.then(|| program.password().0);
        let server = match program {
            Program::Danted => danted(host, port, password, ""),
            Program::Microsocks => microsocks(host, port, password),
            Program::Tinyproxy => tinyproxy(host, port, password, ""),
            Program::Squid => squid(host, port, password, ""),
        };
        Some(server.ready(host))
    }

    /// Starts one for everybody that does not lead to `port_refused`.
    #[track_caller]
    pub(crate) fn refusing(program: Program, host: &Host, port: u16, port_refused: u16) -> Option<Self> {
        is_installed(program.command())?;
        let server = match program {
            Program::Danted => {
                let rule = format!("to: 0/0 port = {port_refused}\n log: connect error\n");
                danted(host, port, None, &format!("socks block {{ from: 0/0 {rule}}}\n"))
            }
            Program::Squid => {
                squid(host, port, None, &format!("acl closed port {port_refused}\nhttp_access deny closed\n"))
            }
            // It names what is allowed, not what is not.
            Program::Tinyproxy => tinyproxy(host, port, None, &format!("ConnectPort {}\n", port_refused ^ 1)),
            Program::Microsocks => panic!("microsocks refuses nothing"),
        };
        Some(server.ready(host))
    }

    /// Starts stunnel: TLS on `port`, what is inside it goes to `inner` on the same host.
    #[track_caller]
    pub(crate) fn tls(host: &Host, port: u16, certificate: &Certificate, inner: &Server) -> Option<Self> {
        is_installed("stunnel")?;
        let mut text = "foreground = yes\npid =\ndebug = info\nsyslog = no\n".to_owned();
        let target = SocketAddr::from((host.v4(), inner.port));
        for (index, address) in host.addresses().iter().enumerate() {
            writeln!(text, "[p{index}]\naccept = {address}:{port}\nconnect = {target}").unwrap();
            let (certificate, key) = (certificate.certificate.display(), certificate.key.display());
            writeln!(text, "cert = {certificate}\nkey = {key}").unwrap();
        }
        let file = host.write(&format!("stunnel-{port}.conf"), &text);
        let server = Self { process: host.spawn("stunnel", &[file]), port, log: None, folder: None };
        Some(server.ready(host))
    }

    fn ready(mut self, host: &Host) -> Self {
        // The last address it listens on.
        let Some(address) = host.addresses().pop() else { panic!("the host has no address") };
        let socket = SocketAddr::new(address, self.port);
        self.process.wait_until("it takes connections", |_| {
            host.inside(|| TcpStream::connect_timeout(&socket, Duration::from_secs(1)).ok())
        });
        self
    }

    /// Returns its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns what it has written about whom it served.
    pub(crate) fn log(&self) -> String {
        let Some(file) = &self.log else { return self.process.log() };
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }
}

/// Returns nothing unless a program can be run, and says then that the test is left out.
pub(crate) fn is_installed(program: &str) -> Option<()> {
    let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).stdin(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(());
    }
    println!("left out, it needs {program}");
    None
}

fn danted(host: &Host, port: u16, password: Option<&str>, rules: &str) -> Server {
    let method = if password.is_some() { "username" } else { "none" };
    let mut text = "logoutput: stderr\n".to_owned();
    for address in host.addresses() {
        writeln!(text, "internal: {address} port = {port}\nexternal: {address}").unwrap();
    }
    writeln!(text, "external.rotation: route\nclientmethod: none\nsocksmethod: {method}").unwrap();
    text.push_str("user.privileged: root\nuser.unprivileged: root\n");
    for all in ["0/0", "::/0"] {
        writeln!(text, "client pass {{ from: {all} to: {all} }}").unwrap();
    }
    text.push_str(rules);
    for all in ["0/0", "::/0"] {
        writeln!(text, "socks pass {{ from: {all} to: 0/0\n command: connect\n log: connect error }}").unwrap();
        writeln!(text, "socks pass {{ from: {all} to: ::/0\n command: connect\n log: connect error }}").unwrap();
    }
    let file = host.write(&format!("danted-{port}.conf"), &text);
    let mut args = vec![PathBuf::from("-f"), file, "-p".into(), host.folder().join(format!("danted-{port}.pid"))];
    let process = match password {
        None => host.spawn("danted", &args),
        Some(password) => {
            // It asks the system who its users are: in a view of the file system of its own.
            let hash = output_of(Command::new("openssl").args(["passwd", "-6", password]));
            let users = format!("root:x:0:0::/:/bin/sh\n{USER}:x:1999:1999::/:/bin/false\n");
            let users = host.write(&format!("danted-{port}.passwd"), &users);
            let secrets = format!("root:*:19000:0:99999:7:::\n{USER}:{hash}:19000:0:99999:7:::\n");
            let secrets = host.write(&format!("danted-{port}.shadow"), &secrets);
            let script = "mount --bind \"$1\" /etc/passwd && mount --bind \"$2\" /etc/shadow && shift 2 && exec \"$@\"";
            let mut all: Vec<PathBuf> = ["-c", script, "sh"].map(PathBuf::from).to_vec();
            all.extend([users, secrets, "danted".into()]);
            all.append(&mut args);
            host.spawn("sh", &all)
        }
    };
    Server { process, port, log: None, folder: None }
}

fn microsocks(host: &Host, port: u16, password: Option<&str>) -> Server {
    let port_text = port.to_string();
    let mut args = vec!["-i", "::", "-p", &port_text];
    if let Some(password) = password {
        args.extend(["-u", USER, "-P", password]);
    }
    Server { process: host.spawn("microsocks", &args), port, log: None, folder: None }
}

fn tinyproxy(host: &Host, port: u16, password: Option<&str>, rules: &str) -> Server {
    let log = host.folder().join(format!("tinyproxy-{port}.access"));
    let mut text = format!("Port {port}\nTimeout 60\nMaxClients 100\nLogLevel Info\nLogFile \"{}\"\n", log.display());
    for address in host.addresses() {
        writeln!(text, "Listen {address}").unwrap();
    }
    if let Some(password) = password {
        writeln!(text, "BasicAuth {USER} {password}").unwrap();
    }
    text.push_str(rules);
    let file = host.write(&format!("tinyproxy-{port}.conf"), &text);
    let process = host.spawn("tinyproxy", &[Path::new("-d"), Path::new("-c"), &file]);
    Server { process, port, log: Some(log), folder: None }
}

fn squid(host: &Host, port: u16, password: Option<&str>, rules: &str) -> Server {
    // It gives up root and insists on it: its files need a folder that another user reaches.
    let folder = tempfile::Builder::new().prefix("larder-squid-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let file = |name: &str| folder.path().join(name);
    let mut text = String::new();
    for address in host.addresses() {
        writeln!(text, "http_port {}", SocketAddr::new(address, port)).unwrap();
    }
    writeln!(text, "access_log stdio:{}\ncache_log {}", file("access").display(), file("cache").display()).unwrap();
    text.push_str(
        "pid_filename none\nlogfile_rotate 0\ncache deny all\ncache_mem 8 MB\nmax_filedescriptors 1024\ncoredump_dir none\n\
         shutdown_lifetime 0 seconds\nvisible_hostname proxy\npinger_enable off\nbuffered_logs off\ndns_timeout 1 second\n\
         dns_retransmit_interval 1 second\n",
    );
    text.push_str(rules);
    if let Some(password) = password {
        let hash = output_of(Command::new("openssl").args(["passwd", "-apr1", password]));
        std::fs::write(file("users"), format!("{USER}:{hash}\n")).unwrap();
        let program = "/usr/lib/squid/basic_ncsa_auth";
        writeln!(text, "auth_param basic program {program} {}", file("users").display()).unwrap();
        text.push_str(
            "auth_param basic children 2 startup=1\nacl known proxy_auth REQUIRED\nhttp_access allow known\n",
        );
        text.push_str("http_access deny all\n");
    } else {
        text.push_str("http_access allow all\n");
    }
    std::fs::write(file("squid.conf"), text).unwrap();
    // A name of its own for what it shares in memory.
    let service = format!("larder{}p{port}", std::process::id());
    let args = ["-N", "-n", &service, "-f", file("squid.conf").to_str().unwrap()].map(str::to_owned);
    let log = Some(file("access"));
    Server { process: host.spawn("squid", &args), port, log, folder: Some(folder) }
}

fn output_of(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Returns an address as it stands in a URL.
pub(crate) fn bracketed(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}
