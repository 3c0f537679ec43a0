//! Service discovery: the endpoints that this node's proxy would choose from now, for clients that choose themselves.

use crate::{
    Proxy,
    coarse_clock::CoarseInstant,
    selection::{Ineligible, SlotSet},
    upstream::Upstream,
};
use std::net::IpAddr;

/// The address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub endpoint: String,
    pub host: Host,
    pub port: u16,
    pub weight: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Ip(IpAddr),
    /// As it was configured.
    Name(String),
}

impl Proxy {
    /// By the name of an upstream, or by `ENDPOINT.UPSTREAM`, in any case. None if there is no such name.
    pub fn discover(&self, name: &str) -> Option<Vec<Place>> {
        let table = self.table();
        let (now, none_tried) = (CoarseInstant::now(), SlotSet::default());
        let is_open = |upstream: &Upstream, slot: usize| {
            matches!(upstream.why_ineligible(slot, &none_tried, now), None | Some(Ineligible::Full))
        };
        if let Some(upstream) = table.upstreams().find(|upstream| upstream.name.eq_ignore_ascii_case(name)) {
            let open = (0..upstream.slots.len()).filter(|slot| is_open(upstream, *slot));
            return Some(open.filter_map(|slot| place(upstream, slot)).collect());
        }
        table.upstreams().find_map(|upstream| {
            let is_meant = |id: &str| {
                let parts = name.split_at_checked(id.len());
                parts.is_some_and(|(endpoint, rest)| {
                    let of = rest.strip_prefix('.').unwrap_or_default();
                    endpoint.eq_ignore_ascii_case(id) && of.eq_ignore_ascii_case(&upstream.name)
                })
            };
            let slot = upstream.slots.iter().position(|slot| is_meant(&slot.endpoint.id))?;
            Some(place(upstream, slot).filter(|_| is_open(upstream, slot)).into_iter().collect())
        })
    }
}

fn place(upstream: &Upstream, slot: usize) -> Option<Place> {
    let slot = &upstream.slots[slot];
    let (host, port) = slot.endpoint.addr.rsplit_once(':')?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Some(Place {
        endpoint: slot.endpoint.id.clone(),
        host: bare.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip),
        port: port.parse().ok()?,
        weight: u16::try_from(slot.weight).unwrap_or(u16::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Settings, upstream::tests::upstream};
    use ringmaster_common::{id::NodeId, traffic::upstream::EndpointState};
    use ringmaster_net::supervisor::Supervisor;

    #[tokio::test]
    async fn eligible_endpoints_are_found() {
        let settings =
            Settings { node: NodeId(1), listen: None, data_dir: None, workers: Some(1), connections: 100 };
        let proxy = Proxy::start(settings, &Supervisor::new()).unwrap();
        let mut web = upstream("web.v2", &[("a", 1), ("b.1", 2), ("c", 1)]);
        web.config.endpoints[0].state = EndpointState::Drain;
        web.config.endpoints[1].addr = "[::1]:80".to_owned();
        web.config.endpoints[2].addr = "host:81".to_owned();
        proxy.set_table([&web].into_iter(), [].into_iter());
        let b =
            Place { endpoint: "b.1".to_owned(), host: Host::Ip("::1".parse().unwrap()), port: 80, weight: 2 };
        let c = Place { endpoint: "c".to_owned(), host: Host::Name("host".to_owned()), port: 81, weight: 1 };
        assert_eq!(proxy.discover("WEB.v2"), Some(vec![b.clone(), c]));
        assert_eq!(proxy.discover("B.1.web.v2"), Some(vec![b]));
        assert_eq!(proxy.discover("a.web.v2"), Some(Vec::new()), "it exists, and is not eligible");
        for unknown in ["d.web.v2", "web", "", "a.", ".web.v2", "a"] {
            assert_eq!(proxy.discover(unknown), None, "{unknown}");
        }
    }
}
