//! Commands about traffic, and what holds for upstreams and routes in every history.

use super::precondition;
use proptest::{collection::vec, prelude::*};
use ringmaster_cluster::{
    State,
    traffic::TrafficCommand,
    upstreams::{
        UpstreamRecord,
        health::{HealthChange, OpinionOfEndpoint},
    },
};
use ringmaster_common::{
    action::Action,
    id::{NodeId, Revision},
    traffic::{
        MAX_HEALTH_HISTORY,
        health::{EndpointHealth, HealthCheck, Verdict},
        import::{Import, Put},
        register::Register,
        route::RouteSpec,
        upstream::{ActiveStandby, EndpointSpec, EndpointState, UpstreamSpec},
    },
};
use std::collections::BTreeSet;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("web".to_owned()), Just("db".to_owned())]
}

fn endpoint_id() -> impl Strategy<Value = String> {
    "e[1-3]"
}

fn addr() -> impl Strategy<Value = String> {
    (1u16..4).prop_map(|port| format!("127.0.0.1:{port}"))
}

fn endpoint() -> impl Strategy<Value = EndpointSpec> {
    (endpoint_id(), addr(), 0u32..3).prop_map(|(id, addr, weight)| EndpointSpec { id, addr, weight })
}

fn upstream() -> impl Strategy<Value = UpstreamSpec> {
    (vec(endpoint(), 0..3), any::<bool>(), health_check()).prop_map(|(endpoints, standby, check)| {
        UpstreamSpec {
            endpoints,
            health_check: check,
            active_standby: standby.then(ActiveStandby::default),
            ..UpstreamSpec::default()
        }
    })
}

fn health_check() -> impl Strategy<Value = Option<HealthCheck>> {
    let check = |body| serde_json::from_value(body).unwrap();
    proptest::sample::select(vec![
        None,
        Some(check(serde_json::json!({ "type": "http" }))),
        Some(check(serde_json::json!({ "type": "tcp" }))),
        Some(check(serde_json::json!({ "type": "heartbeat", "ttl_ms": 1000 }))),
    ])
}

fn route() -> impl Strategy<Value = RouteSpec> {
    ("/[ab]?", name()).prop_map(|(path_prefix, upstream)| {
        serde_json::from_value(serde_json::json!({ "path_prefix": path_prefix, "upstream": upstream }))
            .unwrap()
    })
}

fn state() -> impl Strategy<Value = EndpointState> {
    proptest::sample::select(EndpointState::ALL)
}

fn verdict() -> impl Strategy<Value = Verdict> {
    proptest::sample::select(Verdict::ALL)
}

fn health_change() -> impl Strategy<Value = HealthChange> {
    let opinion = ((1u64..6).prop_map(NodeId), verdict()).prop_map(|(observer, verdict)| OpinionOfEndpoint {
        observer,
        verdict,
        detail: "so it was seen".to_owned(),
    });
    (name(), endpoint_id(), addr(), vec(opinion, 0..4), verdict()).prop_map(
        |(upstream, endpoint, addr, opinions, verdict)| HealthChange {
            upstream,
            endpoint,
            addr,
            opinions,
            verdict,
        },
    )
}

fn version() -> impl Strategy<Value = Option<Revision>> {
    proptest::option::of((0u64..60).prop_map(Revision))
}

pub fn command() -> impl Strategy<Value = TrafficCommand> {
    prop_oneof![
        4 => (name(), upstream(), precondition())
            .prop_map(|(name, spec, precondition)| TrafficCommand::PutUpstream { name, spec, precondition }),
        1 => (name(), precondition())
            .prop_map(|(name, precondition)| TrafficCommand::DeleteUpstream { name, precondition }),
        3 => (name(), endpoint(), precondition()).prop_map(|(upstream, endpoint, precondition)| {
            TrafficCommand::PutEndpoint { upstream, endpoint, precondition }
        }),
        1 => (name(), endpoint_id(), precondition()).prop_map(|(upstream, endpoint, precondition)| {
            TrafficCommand::DeleteEndpoint { upstream, endpoint, precondition }
        }),
        2 => ("[rs]", route(), precondition())
            .prop_map(|(name, spec, precondition)| TrafficCommand::PutRoute { name, spec, precondition }),
        2 => (vec((name(), version(), upstream()), 0..3), vec(("[rs]", version(), route()), 0..3)).prop_map(
            |(upstreams, routes)| TrafficCommand::Import(Import {
                upstreams: upstreams.into_iter().map(|(name, version, spec)| Put { name, version, spec }).collect(),
                routes: routes.into_iter().map(|(name, version, spec)| Put { name, version, spec }).collect(),
            })
        ),
        1 => ("[rs]", precondition())
            .prop_map(|(name, precondition)| TrafficCommand::DeleteRoute { name, precondition }),
        1 => (name(), endpoint_id(), state()).prop_map(|(upstream, endpoint, state)| {
            TrafficCommand::SetEndpointState { upstream, endpoint, state }
        }),
        3 => (name(), endpoint(), 500u64..502).prop_map(|(upstream, endpoint, ttl_ms)| {
            let EndpointSpec { id, addr, weight } = endpoint;
            TrafficCommand::Register { upstream, register: Register { id, addr, weight, ttl_ms } }
        }),
        1 => (name(), endpoint_id(), proptest::option::of((0u64..60).prop_map(Revision))).prop_map(
            |(upstream, endpoint, only)| TrafficCommand::Deregister {
                upstream,
                endpoint,
                only,
                reason: "so it was".to_owned(),
            }
        ),
        2 => (name(), proptest::option::of(endpoint_id())).prop_map(|(upstream, endpoint)| {
            TrafficCommand::SetPrimary { upstream, endpoint, reason: "so it was asked".to_owned() }
        }),
        3 => vec(health_change(), 1..3).prop_map(|changes| TrafficCommand::RecordHealth { changes }),
    ]
}

pub fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (name(), endpoint_id(), state()).prop_map(|(upstream, endpoint, state)| Action::SetEndpointState {
            upstream,
            endpoint,
            state
        }),
        (name(), proptest::option::of(endpoint_id()))
            .prop_map(|(upstream, to)| Action::FailOverUpstream { upstream, to }),
    ]
}

pub fn check(before: &State, state: &State) -> Result<(), TestCaseError> {
    for upstream in state.upstreams.iter() {
        let endpoints = &upstream.config.endpoints;
        let ids: BTreeSet<_> = endpoints.iter().map(|endpoint| &endpoint.id).collect();
        prop_assert_eq!(ids.len(), endpoints.len(), "ids are unique");
        // There is a primary where one was asked for, and it is one of the endpoints.
        prop_assert!(upstream.primary.is_none() || upstream.config.active_standby.is_some());
        if let Some(primary) = upstream.primary.as_ref().and_then(|primary| primary.endpoint.as_ref()) {
            prop_assert!(ids.contains(primary));
        }
        let latest =
            |state: &State| state.upstreams.get(&upstream.name).and_then(UpstreamRecord::latest_primary);
        let (latest_now, latest_then) = (latest(state), latest(before));
        prop_assert!(latest_then.is_none() || latest_now.is_some(), "the last primary is not forgotten");
        let known = before.upstreams.get(&upstream.name).map(|record| &record.upstream);
        if let (Some(now), Some(then)) = (&upstream.primary, known.and_then(|known| known.primary.as_ref())) {
            prop_assert!(now.epoch >= then.epoch);
            prop_assert!(now.endpoint == then.endpoint || now.endpoint.is_none() || now.epoch > then.epoch);
            // An epoch belongs to one address, and the one that had it last is known until another one is the primary.
            if now.endpoint.is_none() || now.epoch == then.epoch {
                prop_assert_eq!(latest_now, latest_then);
            }
        }
        for endpoint in endpoints {
            let observers: Vec<_> = endpoint.health.opinions.iter().map(|opinion| opinion.observer).collect();
            prop_assert!(observers.is_sorted(), "{observers:?}");
            prop_assert!(observers.iter().all(|observer| state.membership.get(*observer).is_some()));
            let detail = state.upstreams.find(&upstream.name).and_then(|record| record.detail(&endpoint.id));
            let history = detail.map(|detail| detail.health_history.len());
            prop_assert!(history.is_ok_and(|length| length <= MAX_HEALTH_HISTORY));
            // A put touches neither state nor health, unless the address is another one.
            let then = known.and_then(|known| known.endpoint(&endpoint.id));
            if let Some(then) = then.filter(|_| known.is_some_and(|known| known.version != upstream.version))
            {
                prop_assert_eq!(endpoint.state, then.state);
                if then.addr == endpoint.addr {
                    let assumed_healthy = endpoint.health.assumed_healthy;
                    let health = EndpointHealth { assumed_healthy, ..then.health.clone() };
                    prop_assert_eq!(&endpoint.health, &health);
                    // Nor does a put take requests from an endpoint, whatever check it configures.
                    let waited = known.is_some_and(|known| known.awaits_first_check(then));
                    prop_assert!(
                        waited
                            || then.state == EndpointState::Maintenance
                            || !upstream.awaits_first_check(endpoint)
                    );
                } else {
                    prop_assert_eq!(endpoint.health.verdict, Verdict::Unknown);
                }
            }
        }
        // Who registered themselves come last, and each registration is of one of them.
        prop_assert!(endpoints.iter().map(|endpoint| endpoint.registered.is_some()).is_sorted());
        let registered = endpoints.iter().filter(|endpoint| endpoint.registered.is_some()).count();
        let standing = state.upstreams.registrations().filter(|one| one.upstream == upstream.name).count();
        prop_assert_eq!(registered, standing);
        // The configuration of a GET can be put back, and is the same.
        prop_assert_eq!(upstream.spec().check(), Ok(()));
    }
    for route in state.routes.iter() {
        prop_assert!(state.upstreams.get(&route.spec.upstream).is_some(), "{} leads nowhere", route.name);
        let shadows = state.routes.iter().filter(|other| other.spec.shadows(&route.spec)).count();
        prop_assert_eq!(shadows, 1, "{} is shadowed", route.name);
    }
    Ok(())
}
