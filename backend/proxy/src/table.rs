//! The routing table: from listener, host and path to an upstream.
//!
//! A table is compiled from what the cluster agreed on, and never changes. The next one takes over what
//! is known of endpoints and upstreams that stay. Looking up costs one hash for a host that is named
//! and one for each segment border of the path.

use super::{limit::RateLimit, moment::Moment, upstream::Upstream};
use ringmaster_common::traffic::{route, upstream as traffic, upstream::Protocol};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

#[derive(Debug, Default)]
pub struct Table {
    upstreams: BTreeMap<String, Arc<Upstream>>,
    routes: BTreeMap<String, Arc<Route>>,
    /// What the node's own listener serves.
    usual: Site,
    /// The others, by their addresses.
    named: BTreeMap<String, Site>,
}

/// What a listener serves.
#[derive(Debug, Default)]
pub struct Site {
    hosts: HashMap<String, Prefixes>,
    /// `.example.org` stands for all names that end so; the longest first.
    wildcards: Vec<(String, Prefixes)>,
    any: Prefixes,
    /// Where this listener's connections go as they are.
    pub tcp: Option<Arc<Route>>,
    /// Connections begin with who the client is.
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
    /// How much of a path the prefix takes.
    prefix_len: usize,
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
        self.cut_off_the_departed(&table);
        for from in routes {
            // A route to nowhere cannot be configured; should it ever be, it is as if it were not there.
            let Some(upstream) = table.upstreams.get(&from.spec.upstream) else { continue };
            let route = Arc::new(Route {
                name: from.name.clone(),
                spec: from.spec.clone(),
                prefix_len: from.spec.path_prefix.trim_end_matches('/').len(),
                upstream: upstream.clone(),
                limit: self.limit(from),
            });
            let site = match &from.spec.listener {
                None => &mut table.usual,
                Some(listener) => table.named.entry(listener.clone()).or_default(),
            };
            site.add(&route);
            table.routes.insert(from.name.clone(), route);
        }
        table
    }

    /// A limit goes on counting where it was, for as long as it stays the same.
    fn limit(&self, route: &route::Route) -> Option<Arc<RateLimit>> {
        let rate = route.spec.rate_limit_per_s?;
        let known = self.routes.get(&route.name).filter(|known| known.spec.rate_limit_per_s == Some(rate));
        let known = known.and_then(|known| known.limit.clone());
        Some(known.unwrap_or_else(|| Arc::new(RateLimit::per_second(rate))))
    }

    /// What is under way at endpoints that are gone may end, but not go on for ever.
    fn cut_off_the_departed(&self, next: &Table) {
        let now = Moment::now();
        for (name, upstream) in &self.upstreams {
            let stays = |seat: &super::upstream::Seat| {
                let seats = next.upstreams.get(name).map_or(&[][..], |next| &next.seats);
                seats.iter().any(|other| Arc::ptr_eq(&other.endpoint, &seat.endpoint))
            };
            for seat in upstream.seats.iter().filter(|seat| !stays(seat)) {
                seat.endpoint.cut_at(Some(now.after(Duration::from_millis(upstream.config.drain_ms))));
                seat.endpoint.depart();
            }
        }
    }

    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// Addresses to listen on, besides the node's own.
    pub fn listeners(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// The names of the routes for a listener of their own.
    pub fn routes_of(&self, listener: &str) -> impl Iterator<Item = &str> {
        let named =
            self.routes.values().filter(move |route| route.spec.listener.as_deref() == Some(listener));
        named.map(|route| route.name.as_str())
    }

    /// None for a listener that no route is for any more.
    pub fn site(&self, listener: Option<&str>) -> Option<&Site> {
        match listener {
            None => Some(&self.usual),
            Some(addr) => self.named.get(addr),
        }
    }
}

impl Site {
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

    /// `host` may have a port; `path` is normal.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
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
            // No prefix ends behind the longest one, or right behind its slash.
            end = path[..end.min(self.longest + 1)].rfind('/')?;
        }
    }
}

/// In small letters, without a port and the last dot.
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

impl Route {
    /// What the endpoint is asked for.
    pub fn rewrite<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let Some(rewrite) = &self.spec.rewrite_prefix else { return Cow::Borrowed(path) };
        match (rewrite.trim_end_matches('/'), &path[self.prefix_len..]) {
            ("", "") => Cow::Borrowed("/"),
            (prefix, rest) => Cow::Owned(format!("{prefix}{rest}")),
        }
    }
}

#[cfg(test)]
mod tests;
