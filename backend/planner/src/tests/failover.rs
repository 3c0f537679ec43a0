//! Who is fenced by a failover: the endpoint that was the primary last, at the address that it had then.

use crate::plan;
use ringmaster_cluster::{
    Body, Entry, State,
    command::{Actor, ClusterTime, Command, Outcome, Record, Request},
    observations::Observations,
    plans::Draft,
    steps::StepSpec,
    upstreams::primary::LastPrimary,
    version::Formats,
};
use ringmaster_common::{Timestamp, action::Action, error::Code};
use serde_json::{Value, json};

fn apply(state: &mut State, command: Value) -> Outcome {
    let command: Command = serde_json::from_value(command).unwrap();
    let (index, stamp) = (state.revision.0 + 1, 1_000 + state.revision.0);
    let request = Request {
        id: format!("request-{index}"),
        actor: Actor::Operator("ops".to_owned()),
        repeatable: false,
        fingerprint: None,
        resent_after: None,
    };
    let format = Formats::NEWEST.record;
    let record = Record { format, stamp: ClusterTime(stamp), wall: Timestamp::UNIX_EPOCH, request, command };
    state.apply(Entry { index, body: Body::Command(Box::new(record)) }).response.outcome.clone()
}

fn traffic(state: &mut State, command: Value) -> Outcome {
    apply(state, json!({ "traffic": command }))
}

/// An upstream with a registered primary, in epoch 1, and a configured standby.
fn with_registered_primary() -> State {
    let mut state = State::default();
    put(&mut state, json!([]));
    register(&mut state, "db-0", 5001);
    put(&mut state, json!([{ "id": "db-1", "addr": "127.0.0.1:5002" }]));
    assert_eq!(primary(&state), (Some("db-0".to_owned()), 1));
    state
}

fn put(state: &mut State, endpoints: Value) -> Outcome {
    let spec =
        json!({ "active_standby": { "fence_webhook": "http://10.0.0.9/fence" }, "endpoints": endpoints });
    traffic(state, json!({ "put_upstream": { "name": "db", "spec": spec, "precondition": "none" } }))
}

fn register(state: &mut State, id: &str, port: u16) -> Outcome {
    let register = json!({ "id": id, "addr": format!("127.0.0.1:{port}"), "weight": 1, "ttl_ms": 1_000 });
    traffic(state, json!({ "register": { "upstream": "db", "register": register } }))
}

fn unhealthy(state: &mut State, id: &str, port: u16) {
    let change = json!({
        "upstream": "db", "endpoint": id, "addr": format!("127.0.0.1:{port}"), "opinions": [], "verdict": "unhealthy"
    });
    traffic(state, json!({ "record_health": { "changes": [change] } }));
}

fn primary(state: &State) -> (Option<String>, u64) {
    let primary = state.upstreams.get("db").unwrap().upstream.primary.clone().unwrap();
    (primary.endpoint, primary.epoch)
}

fn failover(state: &State, to: Option<&str>) -> Draft {
    let action = Action::FailOverUpstream { upstream: "db".to_owned(), to: to.map(str::to_owned) };
    plan(state, &Observations::default(), action).unwrap()
}

/// An endpoint with its address, epoch and webhook.
type Fenced = (String, Option<String>, Option<u64>, Option<String>);

/// The endpoint that the plan fences.
fn fenced(draft: &Draft) -> Option<Fenced> {
    draft.steps.iter().find_map(|step| match step.spec.clone() {
        StepSpec::FencePrimary { from: Some(from), addr, epoch, webhook, .. } => {
            Some((from, addr, epoch, webhook))
        }
        _ => None,
    })
}

fn db_0_at(port: u16, epoch: u64) -> Option<Fenced> {
    let webhook = Some("http://10.0.0.9/fence".to_owned());
    Some(("db-0".to_owned(), Some(format!("127.0.0.1:{port}")), Some(epoch), webhook))
}

#[test]
fn a_primary_that_left_is_fenced_at_the_address_that_it_had() {
    let deregister =
        json!({ "deregister": { "upstream": "db", "endpoint": "db-0", "only": null, "reason": "its TTL" } });
    let delete =
        json!({ "delete_endpoint": { "upstream": "db", "endpoint": "db-0", "precondition": "none" } });
    for leaves in [deregister, delete] {
        let mut state = with_registered_primary();
        assert_eq!(fenced(&failover(&state, None)), db_0_at(5001, 1), "while it is there");
        traffic(&mut state, leaves);
        assert_eq!(primary(&state).0, None);
        let draft = failover(&state, None);
        assert_eq!(fenced(&draft), db_0_at(5001, 1));
        assert!(draft.warnings.iter().all(|warning| warning.code != "not_fenced"));
        // Under its id another process comes: both the failover to it and the one to the standby fence the old one.
        register(&mut state, "db-0", 5009);
        assert_eq!(fenced(&failover(&state, Some("db-0"))), db_0_at(5001, 1));
        assert_eq!(fenced(&failover(&state, Some("db-1"))), db_0_at(5001, 1));
        // Another upstream's epochs are not its own.
        let other = json!({ "active_standby": {}, "endpoints": [{ "id": "x", "addr": "127.0.0.1:1" }] });
        traffic(
            &mut state,
            json!({ "put_upstream": { "name": "x", "spec": other, "precondition": "none" } }),
        );
        assert_eq!(fenced(&failover(&state, Some("db-1"))), db_0_at(5001, 1));
        // The same process may come back; there is nothing else to fence then.
        let mut state = with_registered_primary();
        traffic(
            &mut state,
            json!({ "deregister": { "upstream": "db", "endpoint": "db-0", "only": null, "reason": "" } }),
        );
        register(&mut state, "db-0", 5001);
        assert_eq!(primary(&state).0, None, "it is not the primary without a failover");
        assert_eq!(fenced(&failover(&state, Some("db-0"))), None);
    }
}

#[test]
fn a_primary_that_registers_elsewhere_is_another_process() {
    let mut state = with_registered_primary();
    unhealthy(&mut state, "db-0", 5001);
    let due = state.upstreams.get("db").unwrap().upstream.primary.clone().unwrap().fails_over_at;
    assert!(due.is_some(), "the countdown runs");
    register(&mut state, "db-0", 5009);
    assert_eq!(primary(&state), (None, 1), "the epoch stays with the process at 5001");
    let now = state.upstreams.get("db").unwrap().upstream.primary.clone().unwrap().fails_over_at;
    assert_eq!(now, due, "the countdown continues where it was");
    assert_eq!(fenced(&failover(&state, None)), db_0_at(5001, 1));
    assert_eq!(fenced(&failover(&state, Some("db-0"))), db_0_at(5001, 1));
    let set = json!({ "set_primary": { "upstream": "db", "endpoint": "db-0", "reason": "it was fenced" } });
    traffic(&mut state, set);
    assert_eq!(primary(&state), (Some("db-0".to_owned()), 2));
    assert_eq!(fenced(&failover(&state, Some("db-1"))), db_0_at(5009, 2));
}

#[test]
fn the_address_of_the_primary_is_not_put() {
    let mut state = State::default();
    let at = |one: u16, two: u16| {
        json!([
            { "id": "p1", "addr": format!("127.0.0.1:{one}") }, { "id": "p2", "addr": format!("127.0.0.1:{two}") }
        ])
    };
    put(&mut state, at(5001, 5002));
    let before = state.upstreams.clone();
    let endpoint = json!({ "id": "p1", "addr": "127.0.0.1:5003" });
    let spec = json!({ "active_standby": {}, "endpoints": [endpoint] });
    let refused = [
        put(&mut state, at(5003, 5002)),
        put(&mut state, at(5002, 5001)),
        traffic(
            &mut state,
            json!({ "put_endpoint": { "upstream": "db", "endpoint": endpoint, "precondition": "none" } }),
        ),
        traffic(
            &mut state,
            json!({ "import": { "upstreams": [{ "name": "db", "version": 1, "spec": spec }], "routes": [] } }),
        ),
    ];
    for outcome in refused {
        let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
        assert_eq!(refusal.code, Code::EndpointIsPrimary);
        assert!(refusal.detail.contains("endpoint p1 is the primary of db, at 127.0.0.1:5001"), "{refusal}");
    }
    assert_eq!(state.upstreams, before);
    // The standby may move; and where all endpoints serve, there is no primary.
    let moved = put(&mut state, at(5001, 5003));
    assert!(matches!(moved, Outcome::Stored(_)), "{moved:?}");
    let plain = json!({ "endpoints": [endpoint] });
    let plain = traffic(
        &mut state,
        json!({ "put_upstream": { "name": "db", "spec": plain, "precondition": "none" } }),
    );
    assert!(matches!(plain, Outcome::Stored(_)), "{plain:?}");
}

/// Deletes the upstream, or has it serve requests at all of its endpoints.
fn ends_active_standby(state: &mut State, is_deleted: bool) {
    let outcome = if is_deleted {
        traffic(state, json!({ "delete_upstream": { "name": "db", "precondition": "none" } }))
    } else {
        let spec = json!({ "endpoints": [{ "id": "db-1", "addr": "127.0.0.1:5002" }] });
        traffic(state, json!({ "put_upstream": { "name": "db", "spec": spec, "precondition": "none" } }))
    };
    assert!(matches!(outcome, Outcome::Stored(_) | Outcome::Done), "{outcome:?}");
}

#[test]
fn the_last_primary_is_fenced_though_its_upstream_was_deleted_or_served_everywhere_since() {
    for is_deleted in [true, false] {
        let mut state = with_registered_primary();
        unhealthy(&mut state, "db-0", 5001);
        traffic(
            &mut state,
            json!({ "delete_endpoint": { "upstream": "db", "endpoint": "db-0", "precondition": "none" } }),
        );
        ends_active_standby(&mut state, is_deleted);
        // Twice, as a second one could forget what the first remembered.
        if !is_deleted {
            ends_active_standby(&mut state, false);
        }
        put(&mut state, json!([{ "id": "db-1", "addr": "127.0.0.1:5002" }]));
        assert_eq!(primary(&state), (None, 1), "the one at 5001 may still be up: {is_deleted}");
        assert_eq!(fenced(&failover(&state, Some("db-1"))), db_0_at(5001, 1), "{is_deleted}");
        traffic(
            &mut state,
            json!({ "set_primary": { "upstream": "db", "endpoint": "db-1", "reason": "it was fenced" } }),
        );
        assert_eq!(primary(&state), (Some("db-1".to_owned()), 2));
    }
}

#[test]
fn the_last_primary_is_the_primary_again_in_a_new_epoch() {
    let both = json!([{ "id": "p1", "addr": "127.0.0.1:5001" }, { "id": "p2", "addr": "127.0.0.1:5002" }]);
    for is_deleted in [true, false] {
        let mut state = State::default();
        put(&mut state, both.clone());
        traffic(
            &mut state,
            json!({ "set_primary": { "upstream": "db", "endpoint": "p2", "reason": "a failover" } }),
        );
        assert_eq!(primary(&state), (Some("p2".to_owned()), 2));
        ends_active_standby(&mut state, is_deleted);
        put(&mut state, both.clone());
        assert_eq!(primary(&state), (Some("p2".to_owned()), 3), "not the first endpoint: {is_deleted}");
        // Under the same id another process may be at another address.
        ends_active_standby(&mut state, is_deleted);
        put(&mut state, json!([{ "id": "p2", "addr": "127.0.0.1:5009" }]));
        assert_eq!(primary(&state), (None, 3));
    }
}

#[test]
fn the_last_primaries_of_deleted_upstreams_are_bounded() {
    let mut state = State::default();
    let most = state.limits().former_primaries;
    let spec = |port: usize| {
        let endpoint = json!({ "id": "p", "addr": format!("127.0.0.1:{port}") });
        json!({ "active_standby": {}, "endpoints": [endpoint] })
    };
    let put = |state: &mut State, n: usize, port: usize| {
        let name = format!("db-{n}");
        traffic(
            state,
            json!({ "put_upstream": { "name": name, "spec": spec(port), "precondition": "none" } }),
        );
        state.upstreams.get(&name).unwrap().upstream.primary.clone().unwrap().endpoint
    };
    for n in 0..=most {
        put(&mut state, n, 5_001);
        traffic(
            &mut state,
            json!({ "delete_upstream": { "name": format!("db-{n}"), "precondition": "none" } }),
        );
    }
    assert_eq!(put(&mut state, 1, 5_002), None, "it is remembered");
    assert_eq!(put(&mut state, 0, 5_002).as_deref(), Some("p"), "the oldest is forgotten");
}

/// A failover to `db-1` has taken the role away from the primary, and drains and fences it next.
fn with_a_failover_that_drained() -> State {
    let mut state = with_registered_primary();
    let draft = failover(&state, Some("db-1"));
    apply(&mut state, json!({ "create_plan": { "draft": draft } }));
    apply(&mut state, json!({ "start_operation": { "plan": 1, "keep_within_ms": null } }));
    apply(&mut state, report(0, json!({ "Ok": "no objection" })));
    let none = json!({ "upstream": "db", "endpoint": null, "reason": "it drains" });
    traffic(&mut state, json!({ "set_primary": none }));
    state
}

/// The report of a step of the first operation.
fn report(position: u32, result: Value) -> Value {
    json!({ "report_step": { "operation": 1, "position": position, "term": 0, "result": result } })
}

#[test]
fn a_failover_that_failed_does_not_give_back_another_process() {
    let mut state = with_a_failover_that_drained();
    unhealthy(&mut state, "db-0", 5001);
    register(&mut state, "db-0", 5009);
    let refused = json!({ "Err": { "code": "fence_failed", "detail": "it answered 500" } });
    apply(&mut state, report(1, json!({ "Ok": "all nodes" })));
    apply(&mut state, report(2, refused));
    assert_eq!(primary(&state).0, None, "what is at 5009 was never the primary");
    assert_eq!(fenced(&failover(&state, Some("db-1"))), db_0_at(5001, 1));
}

/// The nodes that were lost may have fenced the old primary and promoted another one.
#[test]
fn after_a_recovery_a_primary_that_was_to_be_fenced_is_not_primary_again() {
    let mut state = with_a_failover_that_drained();
    apply(&mut state, report(1, json!({ "Ok": "all nodes" })));

    let mut refused = state.clone();
    apply(&mut refused, report(2, json!({ "Err": { "code": "fence_failed", "detail": "it answered 500" } })));
    assert_eq!(primary(&refused).0.as_deref(), Some("db-0"), "it was certainly not fenced");

    apply(&mut state, json!({ "recover_cluster": { "incarnation": 2, "feature_level": 2, "survivor": 1 } }));
    assert_eq!(primary(&state).0, None);
    assert_eq!(fenced(&failover(&state, Some("db-1"))), db_0_at(5001, 1));
}

#[test]
fn the_earlier_form_of_the_last_primary_is_read() {
    let bytes = rmp_serde::to_vec_named("db-0").unwrap();
    let last: LastPrimary = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(last, LastPrimary { endpoint: "db-0".to_owned(), addr: None, epoch: 0 });
    let whole = LastPrimary { addr: Some("127.0.0.1:5001".to_owned()), epoch: 7, ..last };
    let bytes = rmp_serde::to_vec_named(&whole).unwrap();
    assert_eq!(rmp_serde::from_slice::<LastPrimary>(&bytes).unwrap(), whole);
}
