//! Machines of a test's own: network namespaces on bridges, with addresses, a resolver's view and processes.
//!
//! A [`Net`] owns everything and takes it away when dropped, what is left of its processes first; what a killed run
//! left is taken away by the next one. Wires are bridges in a namespace of their own, so that nothing of them shows
//! in the machine's. The one way in is a host's *gate*: a pair of link-local addresses between it and the machine
//! itself, over which the tests' clients reach what listens there. Nothing has a route to the outside.
//!
//! Wire N has 192.0.2.0/24, 198.51.100.0/24 or 203.0.113.0/24, and `2001:db8:N::/64`: addresses that are set aside
//! for documentation, which Larder counts as public ones.

mod process;
mod watch;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use rustix::process::{Pid, Signal};

pub(crate) use process::Process;
use watch::Watch;

/// What the name of every namespace begins with; the process id of the test follows.
const PREFIX: &str = "larder-it-";

/// Where `ip netns` keeps its namespaces, and what it puts over `/etc` in them.
const NAMESPACES: &str = "/run/netns";
const ETC: &str = "/etc/netns";

/// `ip netns add` changes mounts of the machine when it is first used: one at a time.
static SETTING_UP: Mutex<()> = Mutex::new(());

/// Takes away, once, what tests that are no longer running have left.
static SWEPT: LazyLock<()> = LazyLock::new(|| {
    for name in file_names(NAMESPACES).chain(file_names(ETC)) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !is_test(pid)) {
            remove_namespace(&name);
        }
    }
});

/// Returns whether this process is a test binary that runs: what was killed has no program any more, even where nobody
/// has taken note of its end, and a number that was given anew has another one.
fn is_test(pid: u32) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    program.is_ok_and(|program| program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("it-")))
}

fn file_names(folder: &str) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// Ends the processes in a namespace and takes it away.
fn remove_namespace(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output() {
        for pid in String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    let _ = std::fs::remove_dir_all(Path::new(ETC).join(name));
}

/// Runs `ip`; what it complains about is the error.
fn try_ip(args: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[track_caller]
fn ip(args: &[&str]) -> String {
    try_ip(args).unwrap_or_else(|error| panic!("ip {}: {error}", args.join(" ")))
}

/// Runs several `ip` commands in a namespace at the price of one process.
#[track_caller]
fn ip_batch(namespace: &str, commands: &str) {
    let file = super::temp_dir();
    let path = file.path().join("batch");
    std::fs::write(&path, commands).unwrap();
    ip(&["-n", namespace, "-batch", path.to_str().unwrap()]);
}

/// A network of a test's own.
pub(crate) struct Net {
    name: String,
    hosts: Mutex<Vec<String>>,
    wires: AtomicU32,
    /// Where its hosts keep their files.
    folder: tempfile::TempDir,
}

/// One segment of it.
#[derive(Clone, Copy)]
pub(crate) struct Wire(u32);

impl Wire {
    /// Returns the name of the link that every host on it has.
    fn link(self) -> String {
        format!("eth{}", self.0)
    }

    /// Returns the IPv4 address with this number.
    pub(crate) fn v4(self, number: u8) -> Ipv4Addr {
        match self.0 {
            1 => Ipv4Addr::new(192, 0, 2, number),
            2 => Ipv4Addr::new(198, 51, 100, number),
            3 => Ipv4Addr::new(203, 0, 113, number),
            other => panic!("there are three wires, not {other}"),
        }
    }

    /// Returns the IPv6 address with this number.
    pub(crate) fn v6(self, number: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.0.try_into().unwrap(), 0, 0, 0, 0, number.into())
    }
}

impl Net {
    /// Makes an empty one. Without root, `ip netns` or IPv6 it prints so and returns `None`: the test is left out.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !Path::new("/proc/net/if_inet6").is_file() {
            println!("left out, it needs IPv6");
            return None;
        }
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let setting_up = SETTING_UP.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        LazyLock::force(&SWEPT);
        let net = Self { name, hosts: Mutex::default(), wires: AtomicU32::new(0), folder: super::temp_dir() };
        let wires = net.namespace("wires");
        net.hosts.lock().unwrap().push(wires.clone());
        let made = try_ip(&["netns", "add", &wires]).and_then(|_| try_ip(&["-n", &wires, "link", "set", "lo", "up"]));
        drop(setting_up);
        match made {
            Ok(_) => Some(net),
            Err(error) => {
                println!("left out, it needs root and ip netns: {error}");
                None
            }
        }
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Adds a segment.
    pub(crate) fn wire(&self) -> Wire {
        let number = self.wires.fetch_add(1, Ordering::Relaxed) + 1;
        ip_batch(&self.namespace("wires"), &format!("link add wire{number} type bridge\nlink set wire{number} up\n"));
        Wire(number)
    }

    /// Adds a machine that has, on each of these wires, the address of this number.
    pub(crate) fn host(&self, name: &str, places: &[(Wire, u8)]) -> Host {
        let namespace = self.namespace(name);
        let index = {
            let _setting_up = SETTING_UP.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut hosts = self.hosts.lock().unwrap();
            hosts.push(namespace.clone());
            ip(&["netns", "add", &namespace]);
            hosts.len()
        };
        let wires = self.namespace("wires");
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let etc = Path::new(ETC).join(&namespace);
        std::fs::create_dir_all(&etc).unwrap();
        let inner =
            Inner { name: name.to_owned(), namespace, places: places.to_vec(), gate: OnceLock::new(), folder, etc };
        let host = Host(Arc::new(inner));
        host.write_etc("nsswitch.conf", "hosts: files dns\n");
        host.resolv_conf("");
        host.hosts_file("");
        // Where IPv6 is switched off for the machine it is not for its namespaces.
        host.inside(|| {
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0");
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0");
        });
        let (mut own, mut theirs) = ("link set lo up\n".to_owned(), String::new());
        for (wire, _) in places {
            let (link, peer) = (wire.link(), format!("h{index}w{}", wire.0));
            writeln!(own, "link add {link} type veth peer name {peer} netns {wires}\nlink set {link} up").unwrap();
            writeln!(theirs, "link set {peer} master wire{} up", wire.0).unwrap();
        }
        ip_batch(&host.0.namespace, &own);
        ip_batch(&wires, &theirs);
        for (wire, number) in places {
            host.add_address(*wire, *number);
        }
        host
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // A test that failed while it held the list has not broken it.
        let hosts = self.hosts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for namespace in hosts.iter().rev() {
            remove_namespace(namespace);
        }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.name)
    }
}

/// A machine in a [`Net`]; a handle that can be cloned.
#[derive(Clone)]
pub(crate) struct Host(Arc<Inner>);

struct Inner {
    name: String,
    namespace: String,
    places: Vec<(Wire, u8)>,
    gate: OnceLock<Ipv4Addr>,
    folder: PathBuf,
    etc: PathBuf,
}

impl Host {
    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns its first IPv4 address.
    pub(crate) fn v4(&self) -> Ipv4Addr {
        let (wire, number) = self.0.places[0];
        wire.v4(number)
    }

    /// Returns its first IPv6 address.
    pub(crate) fn v6(&self) -> Ipv6Addr {
        let (wire, number) = self.0.places[0];
        wire.v6(number)
    }

    /// Returns a folder for its files.
    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Writes a file into its folder and returns where it is.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Adds the addresses of this number, both families.
    pub(crate) fn add_address(&self, wire: Wire, number: u8) {
        let link = wire.link();
        // Without the wait for a neighbour of the same address, in which an IPv6 address cannot be used yet.
        let commands =
            format!("addr add {}/24 dev {link}\naddr add {}/64 dev {link} nodad\n", wire.v4(number), wire.v6(number));
        ip_batch(&self.0.namespace, &commands);
    }

    /// Runs `ip` in it.
    #[track_caller]
    pub(crate) fn ip(&self, args: &[&str]) -> String {
        ip(&[&["-n", &self.0.namespace], args].concat())
    }

    /// Sends everything it has no nearer route for to `gateway`, which must be on a wire of its own.
    pub(crate) fn default_route(&self, gateway: &Host, wire: Wire) {
        let (_, number) = *gateway.0.places.iter().find(|(other, _)| other.0 == wire.0).unwrap();
        let commands =
            format!("route add default via {}\nroute add default via {}\n", wire.v4(number), wire.v6(number));
        ip_batch(&self.0.namespace, &commands);
    }

    fn write_etc(&self, file: &str, content: &str) {
        // Written in place: processes that run see it through a mount of this very file.
        std::fs::write(self.0.etc.join(file), content).unwrap();
    }

    /// Sets what its system resolver asks, for processes that are running too.
    pub(crate) fn resolv_conf(&self, content: &str) {
        self.write_etc("resolv.conf", content);
    }

    /// Sets its hosts file; `localhost` is always in it.
    pub(crate) fn hosts_file(&self, content: &str) {
        self.write_etc("hosts", &format!("127.0.0.1 localhost\n::1 localhost\n{content}"));
    }

    /// Makes the pair of addresses between it and the machine, once, and returns the one on its side.
    pub(crate) fn gate(&self) -> Ipv4Addr {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        *self.0.gate.get_or_init(|| {
            let _setting_up = SETTING_UP.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Link-local networks of four addresses; one that the machine already has is passed over. 169.254.0 and
            // .255 are reserved, 169.254.169 is what clouds use.
            let taken = ip(&["-4", "-o", "addr", "show"]);
            loop {
                let index = (std::process::id() * 31 + NEXT.fetch_add(1, Ordering::Relaxed)) % (160 * 64);
                let (high, low) = (index / 64 + 1, index % 64 * 4);
                let address = |last: u32| Ipv4Addr::from((169 << 24) | (254 << 16) | (high << 8) | (low + last));
                if taken.contains(&format!(" {}/30 ", address(1))) {
                    continue;
                }
                let (link, this) = (format!("larder{index}"), std::process::id());
                ip_batch(
                    &self.0.namespace,
                    &format!(
                        "link add gate type veth peer name {link} netns {this}\naddr add {}/30 dev gate\nlink set gate up\n",
                        address(2)
                    ),
                );
                ip(&["addr", "add", &format!("{}/30", address(1)), "dev", &link]);
                ip(&["link", "set", &link, "up"]);
                return address(2);
            }
        })
    }

    /// Returns a command that runs in it, with its view of `/etc`.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0.namespace, program]).stdin(Stdio::null());
        command
    }

    /// Starts a program in it, with both outputs in one log.
    #[track_caller]
    pub(crate) fn spawn<S: AsRef<std::ffi::OsStr>>(&self, program: &str, args: &[S]) -> Process {
        let mut command = self.command(program);
        command.args(args);
        Process::spawn(&self.0.name, program, command, &self.0.folder)
    }

    /// Runs something on a thread of its own inside it: sockets opened there stay there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(Path::new(NAMESPACES).join(&self.0.namespace)).unwrap();
        let enter = || {
            use std::os::fd::AsFd;
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Begins to watch its port 53, all of what comes and goes. Without tcpdump it prints so and returns `None`.
    pub(crate) fn watch_port_53(&self) -> Option<Watch> {
        Watch::start(self)
    }

    /// Returns every address it has on its wires.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.0.places.iter().flat_map(|(wire, number)| [wire.v4(*number).into(), wire.v6(*number).into()]).collect()
    }
}
