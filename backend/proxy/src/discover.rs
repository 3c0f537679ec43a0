//! Service discovery: the endpoints that this node's proxy would choose from now, for clients that choose themselves.
//!
//! An endpoint at its limit of requests is among them: the limit counts this node's requests, and these clients send
//! theirs elsewhere. The order is random, because many clients take the first address.

mod names;

use crate::{
    Proxy,
    coarse_clock::CoarseInstant,
    selection::{Ineligible, SlotSet},
    upstream::Upstream,
};
pub(crate) use names::Names;
use rand::seq::SliceRandom as _;
use std::{net::IpAddr, sync::atomic::Ordering::Relaxed};

/// The address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub endpoint: String,
    pub host: Host,
    pub port: u16,
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Ip(IpAddr),
    /// As it was configured.
    Name(String),
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovered {
    /// An upstream, with the endpoints that the proxy would choose from.
    Upstream(Vec<Place>),
    /// An endpoint; none if the proxy would not choose it.
    Endpoint(Option<Place>),
    /// Nothing, but other names end with it, such as `v2` where there is an upstream `web.v2`.
    Parent,
}

impl Proxy {
    /// By the name of an upstream, or by `ENDPOINT.UPSTREAM`, in any case. None if there is no such name. The cost does
    /// not depend on the number of upstreams.
    pub fn discover(&self, name: &str) -> Option<Discovered> {
        let name = name.to_ascii_lowercase();
        let table = self.table();
        if let Some(upstream) = table.names().upstream(&name) {
            let mut places: Vec<_> =
                open_slots(upstream).into_iter().filter_map(|slot| place(upstream, slot)).collect();
            places.shuffle(&mut rand::rng());
            return Some(Discovered::Upstream(places));
        }
        let mut is_parent = table.names().is_parent(&name);
        for (dot, _) in name.match_indices('.') {
            let Some(upstream) = table.names().upstream(&name[dot + 1..]) else { continue };
            let id = &name[..dot];
            let found = upstream.slots.iter().position(|slot| slot.endpoint.id.eq_ignore_ascii_case(id));
            if let Some(slot) = found {
                let is_open = open_slots(upstream).contains(&slot);
                return Some(Discovered::Endpoint(place(upstream, slot).filter(|_| is_open)));
            }
            is_parent |= upstream.slots.iter().any(|slot| ends_with_label(&slot.endpoint.id, id));
        }
        is_parent.then_some(Discovered::Parent)
    }
}

/// Whether a name ends with `end`, after a dot, in any case.
fn ends_with_label(name: &str, end: &str) -> bool {
    let split = name.len().checked_sub(end.len()).and_then(|at| name.split_at_checked(at));
    split.is_some_and(|(start, rest)| start.ends_with('.') && rest.eq_ignore_ascii_case(end))
}

/// The endpoints that a request of any client could be sent to. As in [`Upstream::choose`], the one whose ejection ends
/// first is the last resort.
fn open_slots(upstream: &Upstream) -> Vec<usize> {
    let (now, none_tried) = (CoarseInstant::now(), SlotSet::default());
    let (mut open, mut ejected) = (Vec::new(), None);
    for slot in 0..upstream.slots.len() {
        let endpoint = upstream.endpoint(slot);
        match upstream.why_ineligible(slot, &none_tried, now) {
            None => open.push(slot),
            Some(Ineligible::Full) if endpoint.ejected_for(now).is_none() => open.push(slot),
            Some(Ineligible::Ejected | Ineligible::Full) => {
                let until = endpoint.ejected_until.load(Relaxed);
                ejected = ejected.min(Some((until, slot))).or(Some((until, slot)));
            }
            Some(_) => {}
        }
    }
    if open.is_empty() { ejected.into_iter().map(|(_, slot)| slot).collect() } else { open }
}

fn place(upstream: &Upstream, slot: usize) -> Option<Place> {
    let slot = &upstream.slots[slot];
    let (host, port) = slot.endpoint.addr.rsplit_once(':')?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Some(Place {
        endpoint: slot.endpoint.id.clone(),
        host: bare.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip),
        port: port.parse().ok()?,
        weight: slot.weight,
    })
}

#[cfg(test)]
mod tests;
