//! The routing table: from listener, host and path to an upstream.
//!
//! A table is compiled from the configuration that the cluster agreed on, and never changes. The next table takes over
//! the state of endpoints and upstreams that stay. A lookup costs one hash for a host that is named and one for each
//! segment border of the path.

use crate::{
    coarse_clock::CoarseInstant,
    discover::Names,
    endpoint::Endpoint,
    limits::RateLimit,
    upstream::{Slot, Upstream},
};
use ringmaster_common::traffic::{route, upstream as traffic, upstream::Protocol};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// How many removed endpoints are remembered while requests may be in flight there.
const MAX_REMOVED: usize = 1024;

#[derive(Debug, Default)]
pub struct Table {
    upstreams: BTreeMap<String, Arc<Upstream>>,
    routes: BTreeMap<String, Arc<Route>>,
    /// Of the node's own listener.
    default_listener: ListenerRoutes,
    /// Of the listeners that routes name, by their addresses.
    named: BTreeMap<String, ListenerRoutes>,
    /// Endpoints that no upstream has any more, by the names of their upstreams. They may still have requests in flight.
    removed: Vec<(String, Arc<Endpoint>)>,
    names: Names,
}

/// The routes of one listener.
#[derive(Debug, Default)]
pub struct ListenerRoutes {
    hosts: HashMap<String, Prefixes>,
    /// `.example.org` stands for all names that end so; the longest first.
    wildcards: Vec<(String, Prefixes)>,
    any: Prefixes,
    /// Connections of this listener are plain TCP, and go to this route's upstream.
    pub tcp: Option<Arc<Route>>,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// Routes of one host, by their prefixes without a slash at the end.
#[derive(Debug, Default)]
struct Prefixes {
    routes: HashMap<String, Arc<Route>>,
    longest: usize,
}

#[derive(Debug)]
pub struct Route {
    pub name: String,
    pub spec: route::RouteSpec,
    /// The length of the prefix without a slash at its end.
    pub prefix_len: usize,
    pub upstream: Arc<Upstream>,
    pub limit: Option<Arc<RateLimit>>,
}

impl Table {
    /// The table after this one.
    pub fn next<'a>(
        &self,
        upstreams: impl Iterator<Item = &'a traffic::Upstream>,
        routes: impl Iterator<Item = &'a route::Route>,
        workers: usize,
    ) -> Table {
        let mut table = Table::default();
        for from in upstreams {
            let previous = self.upstreams.get(&from.name).map(Arc::as_ref);
            let compiled = Upstream::compile(from, previous, workers);
            table.upstreams.insert(from.name.clone(), Arc::new(compiled));
        }
        table.names = Names::new(table.upstreams.values());
        table.removed = self.drain_removed(&table);
        for from in routes {
            // Configuration does not allow a route without an upstream. If there is one, it is ignored.
            let Some(upstream) = table.upstreams.get(&from.spec.upstream) else { continue };
            let route = Arc::new(Route {
                name: from.name.clone(),
                spec: from.spec.clone(),
                prefix_len: from.spec.path_prefix.trim_end_matches('/').len(),
                upstream: upstream.clone(),
                limit: self.limit(from),
            });
            let site = match &from.spec.listener {
                None => &mut table.default_listener,
                Some(listener) => table.named.entry(listener.clone()).or_default(),
            };
            site.add(&route);
            table.routes.insert(from.name.clone(), route);
        }
        table
    }

    /// An unchanged limit keeps its count.
    fn limit(&self, route: &route::Route) -> Option<Arc<RateLimit>> {
        let rate = route.spec.rate_limit_per_s?;
        let known = self.routes.get(&route.name).filter(|known| known.spec.rate_limit_per_s == Some(rate));
        let known = known.and_then(|known| known.limit.clone());
        Some(known.unwrap_or_else(|| Arc::new(RateLimit::per_second(rate))))
    }

    /// Requests in flight at endpoints that were removed get the drain time of their upstream to end. Returns all removed
    /// endpoints that may have such requests.
    fn drain_removed(&self, next: &Table) -> Vec<(String, Arc<Endpoint>)> {
        let now = CoarseInstant::now();
        let mut removed = self.removed.clone();
        for (name, upstream) in &self.upstreams {
            let stays = |slot: &Slot| {
                let slots = next.upstreams.get(name).map_or(&[][..], |next| &next.slots);
                slots.iter().any(|other| Arc::ptr_eq(&other.endpoint, &slot.endpoint))
            };
            for slot in upstream.slots.iter().filter(|slot| !stays(slot)) {
                let deadline = now.after(Duration::from_millis(upstream.config.drain_ms));
                slot.endpoint.set_drain_deadline(Some(deadline));
                slot.endpoint.pool.close();
                removed.push((name.clone(), slot.endpoint.clone()));
            }
        }
        let is_busy = |endpoint: &Endpoint| endpoint.in_flight.load(Relaxed) > 0;
        // A request that was routed just before the removal may be counted just after it.
        removed.retain(|(_, endpoint)| is_busy(endpoint) || !endpoint.is_past_drain_deadline(now));
        if removed.len() > MAX_REMOVED {
            removed.retain(|(_, endpoint)| is_busy(endpoint));
            removed.drain(..removed.len().saturating_sub(MAX_REMOVED));
        }
        removed
    }

    /// The endpoints that receive no new requests and still have requests in flight, with the names of their upstreams.
    pub fn draining(&self) -> impl Iterator<Item = (&str, &Arc<Endpoint>)> {
        let upstreams = self.upstreams.iter();
        let present = upstreams.flat_map(|(name, upstream)| {
            upstream.slots.iter().map(move |slot| (name.as_str(), &slot.endpoint))
        });
        let removed = self.removed.iter().map(|(name, endpoint)| (name.as_str(), endpoint));
        present
            .chain(removed)
            .filter(|(_, endpoint)| endpoint.is_draining() && endpoint.in_flight.load(Relaxed) > 0)
    }

    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// The names of upstreams, as DNS resolves them.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The addresses to listen on, besides the node's own.
    pub fn listeners(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// The names of the routes that name this listener.
    pub fn routes_of(&self, listener: &str) -> impl Iterator<Item = &str> {
        let named =
            self.routes.values().filter(move |route| route.spec.listener.as_deref() == Some(listener));
        named.map(|route| route.name.as_str())
    }

    /// The route with the longest prefix. `host` may have a port; `path` is normalised.
    pub fn find(&self, listener: Option<&str>, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.listener(listener)?.find(host, path)
    }

    /// The routes of a listener; none if no route names it any more.
    pub fn listener(&self, listener: Option<&str>) -> Option<&ListenerRoutes> {
        match listener {
            None => Some(&self.default_listener),
            Some(addr) => self.named.get(addr),
        }
    }
}

impl ListenerRoutes {
    fn add(&mut self, route: &Arc<Route>) {
        self.proxy_protocol |= route.spec.accept_proxy_protocol;
        if route.upstream.config.protocol == Protocol::Tcp && route.spec.listener.is_some() {
            self.tcp = Some(route.clone());
        }
        let prefixes = match route.spec.host.as_deref().map(str::to_ascii_lowercase) {
            None => &mut self.any,
            Some(host) => match host.strip_prefix('*') {
                None => self.hosts.entry(host).or_default(),
                Some(suffix) => self.wildcard(suffix),
            },
        };
        prefixes.longest = prefixes.longest.max(route.prefix_len);
        prefixes.routes.insert(route.spec.path_prefix[..route.prefix_len].to_owned(), route.clone());
    }

    fn wildcard(&mut self, suffix: &str) -> &mut Prefixes {
        let longer = |(known, _): &(String, Prefixes)| (std::cmp::Reverse(known.len()), known.clone());
        let wanted = (std::cmp::Reverse(suffix.len()), suffix.to_owned());
        let position = match self.wildcards.binary_search_by_key(&wanted, longer) {
            Ok(position) => position,
            Err(position) => {
                self.wildcards.insert(position, (suffix.to_owned(), Prefixes::default()));
                position
            }
        };
        &mut self.wildcards[position].1
    }

    fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        if self.hosts.is_empty() && self.wildcards.is_empty() {
            return self.any.find(path);
        }
        let host = bare_host(host);
        let named = self.hosts.get(&*host).and_then(|prefixes| prefixes.find(path));
        let wild = || {
            let fits = |suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
            self.wildcards
                .iter()
                .filter(|(suffix, _)| fits(suffix))
                .find_map(|(_, prefixes)| prefixes.find(path))
        };
        named.or_else(wild).or_else(|| self.any.find(path))
    }
}

impl Prefixes {
    fn find(&self, path: &str) -> Option<&Arc<Route>> {
        if self.routes.is_empty() {
            return None;
        }
        let mut end = path.len();
        loop {
            if end <= self.longest
                && let Some(route) = self.routes.get(&path[..end])
            {
                return Some(route);
            }
            // No prefix is longer than the longest.
            end = path[..end.min(self.longest + 1)].rfind('/')?;
        }
    }
}

/// In lower case, without a port and without a dot at the end.
fn bare_host(host: &str) -> Cow<'_, str> {
    let name = match host.strip_prefix('[') {
        Some(_) => &host[..=host.find(']').unwrap_or(host.len() - 1)],
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests;
