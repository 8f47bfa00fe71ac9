//! Where the office finds this Larder: the machine's addresses, the line for developers, and who answers at the port.
//!
//! Called by `doctor`; calls `net::interfaces`. The service need not run.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::check::{Check, Outcome};
use crate::net::interfaces;

const STEP: &str = "lan";
/// What runs on this machine answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer of Larder's own is far shorter.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
/// More addresses than this are not for reading.
const ADDRESSES_SHOWN_MAX: usize = 6;

/// Looks at the addresses to listen on. `goproxy` is the one that developers are given.
pub(super) async fn look(listen: &[SocketAddr], goproxy: SocketAddr) -> Vec<Check> {
    let own: Vec<IpAddr> = match interfaces::configured() {
        Ok(found) => found.into_iter().map(|configured| configured.address).collect(),
        Err(err) => {
            return vec![Check::new(STEP, "", Outcome::Warn, format!("the addresses cannot be found out: {err}"))];
        }
    };
    let mut checks = vec![address(listen, goproxy, &own)];
    let mut ports: Vec<u16> = listen.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        checks.extend(match listen.iter().find(|address| address.port() == port) {
            Some(_) if port == 0 => None,
            Some(address) => Some(who_answers(local(*address)).await),
            None => None,
        });
    }
    checks
}

/// Says where the office finds this machine.
fn address(listen: &[SocketAddr], goproxy: SocketAddr, own: &[IpAddr]) -> Check {
    let foreign = listen.iter().find(|address| {
        let ip = address.ip().to_canonical();
        !ip.is_unspecified() && !ip.is_loopback() && !own.contains(&ip)
    });
    if let Some(foreign) = foreign {
        let text = format!("{} is not an address of this machine", foreign.ip());
        let hint = format!("its addresses are {}; give one of them with -listen, or none for all", printed(own.iter()));
        return Check::new(STEP, "", Outcome::Fail, text).hint(hint);
    }
    if goproxy.port() == 0 {
        return Check::new(STEP, "", Outcome::Skip, "the port is chosen at the start");
    }
    let line = format!("export GOPROXY=http://{goproxy}");
    if listen.iter().all(|address| address.ip().is_loopback()) {
        return Check::new(STEP, "", Outcome::Pass, format!("{line}, on this machine alone (-listen)"));
    }
    let is_reachable = |ip: &&IpAddr| !ip.is_loopback() && !is_link_local(**ip) && **ip != goproxy.ip();
    let is_listened_on = |ip: &&IpAddr| {
        listen.iter().any(|address| {
            let listened = address.ip().to_canonical();
            listened == **ip || listened.is_unspecified() && (listened.is_ipv4() == ip.is_ipv4() || listened.is_ipv6())
        })
    };
    let others = printed(own.iter().filter(is_reachable).filter(is_listened_on));
    if goproxy.ip().is_loopback() && others.is_empty() {
        return Check::new(
            STEP,
            "",
            Outcome::Warn,
            "this machine has no address in any network: nobody else reaches it",
        )
        .hint("see to its network; `ip address` shows what it has");
    }
    let also = if others.is_empty() { String::new() } else { format!("; also reached at {others}") };
    Check::new(STEP, "", Outcome::Pass, format!("{line}{also}"))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn printed<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> String {
    addresses.take(ADDRESSES_SHOWN_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns where on this machine somebody listening on `address` can be asked.
fn local(address: SocketAddr) -> SocketAddr {
    // IPv6 may be switched off altogether, and a listener on all of it is reached by IPv4 too.
    if address.ip().is_unspecified() { SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()) } else { address }
}

/// Says whether Larder, nobody or somebody else answers.
async fn who_answers(address: SocketAddr) -> Check {
    let port = address.port();
    let health = match timeout(ANSWER_TIMEOUT, ask(address)).await {
        Ok(Ok(health)) => health,
        Ok(Err(err)) if err.kind() == std::io::ErrorKind::ConnectionRefused => {
            let text = format!("nothing listens on port {port}: Larder is not running, which is no matter for this");
            return Check::new(STEP, "", Outcome::Skip, text);
        }
        Ok(Err(_)) | Err(_) => None,
    };
    match health {
        Some(version) => Check::new(STEP, "", Outcome::Pass, format!("larder {version} answers on port {port}")),
        None => Check::new(STEP, "", Outcome::Fail, format!("another program listens on port {port}"))
            .hint("end it (`ss -ltnp` names it), or give Larder another port with -port"),
    }
}

/// Asks for `/health` and returns the version of the Larder that answers, if it is one.
async fn ask(address: SocketAddr) -> std::io::Result<Option<String>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /health HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let health: Value = serde_json::from_str(body).unwrap_or_default();
    let is_larder = health["cache_dir"].is_string() && health["upstreams"].is_array();
    Ok(health["version"].as_str().filter(|_| is_larder).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The line for developers has the address that was found; the others are named beside it.
    #[test]
    fn the_line_for_developers() {
        let own = ips(&["127.0.0.1", "::1", "192.0.2.7", "fd00::7", "fe80::1"]);
        let text = |listen: &[&str], goproxy: &str| {
            let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().unwrap()).collect();
            let check = address(&listen, goproxy.parse().unwrap(), &own);
            (check.outcome, check.text)
        };
        let line = "export GOPROXY=http://192.0.2.7:3000";
        let all = text(&["[::]:3000", "0.0.0.0:3000"], "192.0.2.7:3000");
        assert_eq!(all, (Outcome::Pass, format!("{line}; also reached at fd00::7")));
        assert_eq!(text(&["192.0.2.7:3000"], "192.0.2.7:3000"), (Outcome::Pass, line.to_owned()));
        assert_eq!(text(&["192.0.2.8:3000"], "192.0.2.8:3000").0, Outcome::Fail);
        assert!(text(&["127.0.0.1:3000"], "127.0.0.1:3000").1.ends_with("on this machine alone (-listen)"));
        assert_eq!(text(&["127.0.0.1:0"], "127.0.0.1:0").0, Outcome::Skip);
        let nowhere = address(&["[::]:1".parse().unwrap()], "127.0.0.1:1".parse().unwrap(), &ips(&["127.0.0.1"]));
        assert_eq!(nowhere.outcome, Outcome::Warn);
    }

    /// Nobody is no failure, somebody else is.
    #[tokio::test]
    async fn who_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (check, ()) = tokio::join!(who_answers(address), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 mail.example\r\n\r\n").await.unwrap();
        });
        assert_eq!(check.outcome, Outcome::Fail);
        drop(listener);
        assert_eq!(who_answers(address).await.outcome, Outcome::Skip);
    }
}
