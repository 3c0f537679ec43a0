//! The names of upstreams in DNS, and the configured names that DNS cannot have.
//!
//! DNS compares names without case and has labels of 1 to 63 bytes. Upstreams and endpoints may have other names, since
//! DNS is optional: such a name works everywhere else, and a node that serves DNS reports it.

use crate::upstream::Upstream;
use ringmaster_common::traffic::warnings::{MAX_UNRESOLVABLE_NAMES, UnresolvableName};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

/// The longest label of a DNS name, in bytes.
const MAX_LABEL: usize = 63;

/// The upstreams of a table by their names in lower case.
#[derive(Debug, Default)]
pub struct Names {
    /// None is a name that others end with.
    upstreams: BTreeMap<String, Option<Arc<Upstream>>>,
    /// Upstreams whose names differ from another's in case alone.
    hidden: Vec<Arc<Upstream>>,
    /// Worked out when a node that serves DNS asks for it.
    unresolvable: OnceLock<Vec<UnresolvableName>>,
}

impl Names {
    pub fn new<'a>(upstreams: impl Iterator<Item = &'a Arc<Upstream>>) -> Names {
        let mut names = Names::default();
        for upstream in upstreams {
            let name = upstream.name.to_ascii_lowercase();
            for (dot, _) in name.match_indices('.') {
                names.upstreams.entry(name[dot + 1..].to_owned()).or_default();
            }
            let entry = names.upstreams.entry(name).or_default();
            match entry {
                None => *entry = Some(upstream.clone()),
                Some(_) => names.hidden.push(upstream.clone()),
            }
        }
        names
    }

    /// `name` is in lower case.
    pub fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.upstreams.get(name)?.as_deref()
    }

    /// Whether names of upstreams end with `name`, which is in lower case.
    pub fn is_parent(&self, name: &str) -> bool {
        self.upstreams.contains_key(name)
    }

    /// The first configured names that DNS cannot resolve.
    pub fn unresolvable(&self) -> &[UnresolvableName] {
        self.unresolvable.get_or_init(|| {
            let mut found: Vec<_> = self.hidden.iter().map(|upstream| hidden(upstream)).collect();
            for upstream in self.upstreams.values().flatten() {
                found.extend(self.of_upstream(upstream));
                if found.len() >= MAX_UNRESOLVABLE_NAMES {
                    break;
                }
            }
            found.truncate(MAX_UNRESOLVABLE_NAMES);
            found
        })
    }

    fn of_upstream(&self, upstream: &Upstream) -> Vec<UnresolvableName> {
        let report = |endpoint: Option<&str>, reason: String| UnresolvableName {
            upstream: upstream.name.clone(),
            endpoint: endpoint.map(str::to_owned),
            reason,
        };
        if let Some(why) = why_invalid(&upstream.name, MAX_LABEL) {
            return vec![report(None, format!("{why}, so neither it nor its endpoints can be resolved"))];
        }
        let mut found = Vec::new();
        // An underscore comes before the name of a service.
        if let Some(why) = why_invalid(&upstream.name, MAX_LABEL - 1) {
            found.push(report(None, format!("{why} after the underscore, so it has no SRV records")));
        }
        let mut ids = BTreeSet::new();
        for endpoint in upstream.slots.iter().map(|slot| &slot.endpoint) {
            let id = endpoint.id.to_ascii_lowercase();
            let host = endpoint.addr.rsplit_once(':').map_or("", |(host, _)| host);
            let is_ip = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
            let in_dns = format!("{id}.{}", upstream.name.to_ascii_lowercase());
            let reason = if let Some(why) = why_invalid(&id, MAX_LABEL).filter(|_| is_ip) {
                format!("{why}, so it has no SRV record")
            } else if let Some(why) =
                why_invalid(host.strip_suffix('.').unwrap_or(host), MAX_LABEL).filter(|_| !is_ip)
            {
                format!("its host {host} is no DNS name ({why}), so it has no SRV record")
            } else if let Some(other) = self.upstream(&in_dns) {
                format!("upstream {} has the same DNS name, and is resolved instead", other.name)
            } else if !ids.insert(id) {
                "another endpoint has the same DNS name, and is resolved instead".to_owned()
            } else {
                continue;
            };
            found.push(report(Some(&endpoint.id), reason));
            if found.len() >= MAX_UNRESOLVABLE_NAMES {
                break;
            }
        }
        found
    }
}

fn hidden(upstream: &Upstream) -> UnresolvableName {
    let reason = "another upstream has the same DNS name, and is resolved instead".to_owned();
    UnresolvableName { upstream: upstream.name.clone(), endpoint: None, reason }
}

/// Why a name cannot be part of a DNS name, if so. Of its first label, DNS takes up to `first` bytes.
fn why_invalid(name: &str, first: usize) -> Option<String> {
    name.split('.').enumerate().find_map(|(nth, label)| {
        let max = if nth == 0 { first } else { MAX_LABEL };
        match label.len() {
            0 => Some("a DNS label cannot be empty".to_owned()),
            len if len > max => Some(format!("a DNS label has up to {max} bytes, not {len}")),
            _ => None,
        }
    })
}
