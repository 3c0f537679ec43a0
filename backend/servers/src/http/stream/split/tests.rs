use super::*;
use ringmaster_common::{
    Timestamp,
    stream::Assembler,
    traffic::{
        health::{HealthOpinion, Verdict},
        upstream::{Configured, Endpoint, EndpointSpec},
    },
};

fn upstream(name: &str, endpoints: usize, detail: usize) -> Upstream {
    let endpoint = |number: usize| {
        let spec = EndpointSpec { id: format!("e{number}"), addr: format!("10.0.0.1:{number}"), weight: 1 };
        let mut endpoint = Endpoint::new(&spec, Timestamp::default());
        endpoint.health.opinions = (1..=3)
            .map(|observer| HealthOpinion {
                observer: NodeId(observer),
                verdict: Verdict::Unhealthy,
                detail: "x".repeat(detail),
                since: Timestamp::default(),
            })
            .collect();
        endpoint
    };
    Upstream {
        name: name.to_owned(),
        config: Configured { endpoints: (1..=endpoints).map(endpoint).collect(), ..Default::default() },
        primary: None,
        version: Revision(8),
        updated_at: Timestamp::default(),
        updated_by: "ops".to_owned(),
    }
}

fn batch(upstreams: impl Iterator<Item = Upstream>) -> EventBatch {
    EventBatch {
        revision: Revision(8),
        at: Timestamp::default(),
        actor: "ops".to_owned(),
        request_id: "r".to_owned(),
        events: upstreams.map(|upstream| Event::UpstreamPut { upstream: Box::new(upstream) }).collect(),
    }
}

/// The whole message that these come to, as a reader puts it together; checks the sizes on the way.
fn read(messages: &[ServerMessage]) -> ServerMessage {
    let mut assembler = Assembler::default();
    let mut whole = Vec::new();
    for message in messages {
        let text = serde_json::to_string(message).unwrap();
        assert!(text.len() <= MAX_MESSAGE_BYTES, "{} bytes", text.len());
        whole.extend(assembler.take(serde_json::from_str(&text).unwrap()).unwrap());
    }
    assert_eq!(whole.len(), 1);
    whole.remove(0)
}

/// 32 upstreams of 256 endpoints each, with a health check that fails at three nodes, and 1,024 settings of 4 KiB.
#[test]
fn the_largest_view_comes_in_small_messages() {
    let setting = |number: usize| ringmaster_common::setting::Setting {
        key: format!("key-{number}"),
        value: "v".repeat(4_094).into(),
        version: Revision(1),
        updated_at: None,
        updated_by: None,
    };
    let large = ClusterView {
        revision: Revision(8),
        settings: (0..1_024).map(setting).collect(),
        upstreams: (0..32).map(|number| upstream(&format!("u{number:03}"), 256, 20)).collect(),
        ..ClusterView::default()
    };
    let messages = view(NodeId(1), large.clone());
    assert!(messages.len() > 30, "{} messages", messages.len());
    let ServerMessage::View { view: joined, .. } = read(&messages) else { panic!("a view") };
    assert!(*joined == large, "the parts make up the view");
}

#[test]
fn a_small_view_is_one_message_of_the_form_that_it_always_had() {
    let messages = view(NodeId(1), ClusterView::default());
    assert_eq!(messages.len(), 1);
    let value = serde_json::to_value(&messages[0]).unwrap();
    assert!(value["parts"].is_null() && value["settings"].is_array(), "{value}");
}

#[test]
fn a_large_import_comes_in_several_messages_that_fold_to_the_same() {
    let batch = batch((0..40).map(|number| upstream(&format!("u{number}"), 256, 20)));
    let messages = events(Revision(5), &batch);
    assert!(messages.len() > 4, "{} messages", messages.len());
    // Each names the revision of the message before it.
    let mut last = Revision(5);
    for message in &messages {
        let ServerMessage::Events { prev, batch, .. } = message else { panic!("events") };
        assert_eq!(*prev, last);
        last = batch.revision;
    }
    let ServerMessage::Events { prev, split, batch: joined } = read(&messages) else { panic!("events") };
    assert_eq!((prev, split), (Revision(5), Split::default()));
    assert!(joined == batch, "the parts make up the events");
}

#[test]
fn an_upstream_that_is_too_large_for_a_message_is_sent_with_its_endpoints_apart() {
    let batch = batch([upstream("huge", 256, 1_000)].into_iter());
    let messages = events(Revision(5), &batch);
    assert!(messages.len() > 2, "{} messages", messages.len());
    let ServerMessage::Events { batch: joined, .. } = read(&messages) else { panic!("events") };
    let folded = |batch: &EventBatch| {
        let mut view = ClusterView::default();
        view.fold(batch);
        view
    };
    assert!(folded(&joined) == folded(&batch), "both fold to the same view");
}

#[test]
fn a_page_of_locks_ends_before_it_is_too_large() {
    let lock = |number: usize| Lock {
        name: format!("{number:03}{}", "n".repeat(10_000)),
        limit: None,
        holders: Vec::new(),
        held_by: 0,
        waiters: Vec::new(),
        waited_by: 0,
        fence: Default::default(),
        delayed_for_ms: None,
        deadlocked: false,
        version: Revision(1),
    };
    let page = Page { items: (0..100).map(lock).collect(), next: None };
    let ServerMessage::Locks { page, .. } = read(&[locks(Revision(3), page)]) else { panic!("locks") };
    assert!((40..60).contains(&page.items.len()), "{}", page.items.len());
    assert_eq!(page.next.as_ref(), page.items.last().map(|lock| &lock.name));
}
