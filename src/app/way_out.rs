//! Turns the configured proxies, DNS servers and certificate authorities into ways to the upstreams.
//!
//! Called by `app`, at a start and for `check-config`; calls `config` and `net`. Every upstream gets the client of its
//! way, and upstreams of the same way share one, with its connections and what it knows of dead servers.
//!
//! ```text
//! ca ─► Trust ─┬─────────────────────────────────────────────┐
//!     dns_ca ─►└► Bootstrap ─► Proxies ─► Resolver ─► Route ─┴► Egress, one for each different way
//! ```
//! DNS servers that are named for one upstream are asked through that upstream's proxies; those of all through the
//! proxies of all. `NO_PROXY` counts for the proxies of all: who names a proxy for one upstream means it.
//! What is told of them to people is in `way_out::words`.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{Config, ConfigErrors, DnsRoute, DnsServer, DnsTransport, Loaded, UpstreamRoute};
use crate::net::bootstrap::Bootstrap;
use crate::net::egress::{self, Egress, Route};
use crate::net::proxy::{self, NoProxy, Proxies};
use crate::net::resolver::{self, Resolver, Rule, ServerConfig, Transport};
use crate::net::tls::Trust;
use crate::shutdown::Tasks;

#[cfg(test)]
pub(super) mod tests;
mod words;

pub(super) use words::{Line, of_one};

/// Whose certificates are believed.
pub(super) struct Trusts {
    /// Those of upstreams and proxies.
    upstreams: Trust,
    /// Those of DNS servers.
    dns: Trust,
}

impl Trusts {
    /// Returns whose certificates are believed of upstreams and proxies.
    pub(super) fn upstreams(&self) -> &Trust {
        &self.upstreams
    }

    /// Reads the platform's roots and the files that are configured.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate, as a mistake in the setting that names it.
    pub(super) fn load(loaded: &Loaded) -> Result<Self, ConfigErrors> {
        let config = &loaded.config;
        let upstreams = Trust::load(&config.ca).map_err(|err| loaded.mistake("ca", &err.to_string()))?;
        let dns = upstreams.with(&config.dns_ca).map_err(|err| loaded.mistake("dns_ca", &err.to_string()))?;
        Ok(Self { upstreams, dns })
    }
}

/// All ways out.
pub(super) struct WayOut {
    /// The different ones; the first is that of all upstreams that have none of their own.
    clients: Vec<Egress>,
    /// The index of its client for each upstream of the list, and for each private one.
    public: Vec<usize>,
    private: Vec<usize>,
    /// What is told of them.
    lines: Vec<Line>,
}

impl WayOut {
    /// Makes the ways; nothing is connected and nobody asked yet. What looks names up later is among `tasks`. To be called
    /// within a runtime.
    pub(super) fn new(config: &Config, trusts: &Trusts, tasks: &Tasks, clock: &Clock) -> Self {
        let bootstrap = config.dns_bootstrap.iter().map(server).collect();
        let bootstrap = Arc::new(Bootstrap::new(bootstrap, &trusts.dns, tasks.clone(), clock.clone()));
        let builder = Builder { config, trusts, clock, bootstrap };
        let of_all = builder.route_of_all();
        let mut clients = vec![builder.client(of_all.clone())];
        let mut different: Vec<&UpstreamRoute> = Vec::new();
        let mut index = |route| {
            if UpstreamRoute::is_of_all(route) {
                return 0;
            }
            let known = different.iter().position(|other| *other == route);
            known.unwrap_or_else(|| {
                clients.push(builder.client(builder.route(route, &of_all)));
                different.push(route);
                different.len() - 1
            }) + 1
        };
        let public = config.upstreams.iter().map(|entry| index(&entry.route)).collect();
        let private = config.private_upstreams.iter().map(|entry| index(&entry.route)).collect();
        let lines = words::lines(config, &of_all);
        Self { clients, public, private, lines }
    }

    /// Returns the different ways.
    pub(super) fn routes(&self) -> Vec<Route> {
        self.clients.iter().map(|client| client.route().clone()).collect()
    }

    /// Returns the client of those that have no way of their own.
    pub(super) fn of_all(&self) -> &Egress {
        &self.clients[0]
    }

    /// Returns the client of each upstream of the list.
    pub(super) fn public(&self) -> impl Iterator<Item = &Egress> {
        self.public.iter().map(|index| &self.clients[*index])
    }

    /// Returns the client of each private upstream.
    pub(super) fn private(&self) -> impl Iterator<Item = &Egress> {
        self.private.iter().map(|index| &self.clients[*index])
    }

    /// Returns what is told of the way out at a start, a line each: nothing for a direct one with the system's resolver.
    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }
}

struct Builder<'a> {
    config: &'a Config,
    trusts: &'a Trusts,
    clock: &'a Clock,
    bootstrap: Arc<Bootstrap>,
}

impl Builder<'_> {
    fn client(&self, route: Route) -> Egress {
        let limits = egress::Config { stall_timeout: self.config.stall_timeout, ..egress::Config::default() };
        Egress::new(limits, route, &self.trusts.upstreams)
    }

    fn route_of_all(&self) -> Route {
        let proxies = self.proxies(&self.config.proxies, NoProxy::parse(&self.config.no_proxy));
        let resolver = self.resolver(&self.config.dns, rule(self.config.dns_route), &proxies);
        Route { proxies, resolver }
    }

    fn route(&self, own: &UpstreamRoute, of_all: &Route) -> Route {
        let proxies = match &own.proxies {
            Some(entries) => self.proxies(entries, NoProxy::default()),
            None => Arc::clone(&of_all.proxies),
        };
        // The one who wants an upstream reached directly cannot want its DNS servers reached otherwise.
        let rule = if own.is_direct() { Rule::Direct } else { rule(self.config.dns_route) };
        let resolver = match &own.dns {
            Some(servers) => self.resolver(servers, rule, &proxies),
            // That of all may be one that asks nobody, where its proxies are given names.
            None if own.is_direct() && self.config.dns.is_empty() => Resolver::system(&self.bootstrap),
            None => of_all.resolver.clone(),
        };
        Route { proxies, resolver }
    }

    fn proxies(&self, entries: &[proxy::Entry], no_proxy: NoProxy) -> Arc<Proxies> {
        let bootstrap = Arc::clone(&self.bootstrap);
        Arc::new(Proxies::new(entries.to_vec(), no_proxy, bootstrap, &self.trusts.upstreams, self.clock.clone()))
    }

    fn resolver(&self, servers: &[DnsServer], rule: Rule, proxies: &Arc<Proxies>) -> Resolver {
        let config = resolver::Config { servers: servers.iter().map(server).collect(), rule };
        let bootstrap = Arc::clone(&self.bootstrap);
        Resolver::new(config, bootstrap, Arc::clone(proxies), &self.trusts.dns, self.clock.clone())
    }
}

fn server(server: &DnsServer) -> ServerConfig {
    ServerConfig {
        transport: match server.transport {
            DnsTransport::Udp => Transport::Udp,
            DnsTransport::Tcp => Transport::Tcp,
            DnsTransport::Tls => Transport::Tls,
            DnsTransport::Https => Transport::Https,
            DnsTransport::Quic => Transport::Quic,
        },
        host: server.host.clone(),
        port: server.port,
        path: server.path.reveal().to_owned(),
        name: server.to_string(),
    }
}

fn rule(route: DnsRoute) -> Rule {
    match route {
        DnsRoute::Auto => Rule::Auto,
        DnsRoute::Proxy => Rule::Proxy,
        DnsRoute::Direct => Rule::Direct,
    }
}
