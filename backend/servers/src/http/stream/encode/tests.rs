use super::*;
use ringmaster_common::event::Event;

fn batch(revision: u64) -> EventBatch {
    EventBatch {
        revision: Revision(revision),
        at: Default::default(),
        actor: "ops".to_owned(),
        request_id: "r".to_owned(),
        events: vec![Event::Audited { count: revision }],
    }
}

#[test]
fn the_events_of_a_revision_are_encoded_once() {
    let encoder = Encoder::default();
    let first = encoder.events(Form::Json, Revision(1), &batch(2));
    assert!(Arc::ptr_eq(&first, &encoder.events(Form::Json, Revision(1), &batch(2))));
    assert!(!Arc::ptr_eq(&first, &encoder.events(Form::Packed, Revision(1), &batch(2))));
}

#[tokio::test]
async fn all_clients_of_a_revision_read_the_same_view() {
    let encoder = Encoder::default();
    let state = Arc::new(State::default());
    let read = async || encoder.view(Form::Json, NodeId(1), || state.clone()).await.unwrap();
    let (first, second) = tokio::join!(read(), read());
    assert!(Arc::ptr_eq(&first, &second));
    let packed = encoder.view(Form::Packed, NodeId(1), || state.clone()).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &packed));
    drop((first, second));
    assert_eq!(
        encoder.views.lock().await.iter().filter_map(Weak::upgrade).count(),
        1,
        "only the packed one is read"
    );
}

/// A state with events up to this revision, the last of which its history holds.
fn state_at(revision: u64) -> Arc<State> {
    let history = serde_json::json!({ "batches": [batch(revision)], "bytes": 0, "dropped": revision - 1 });
    Arc::new(State { history: serde_json::from_value(history).unwrap(), ..State::default() })
}

#[tokio::test]
async fn beyond_the_bound_further_clients_share_the_newest_view() {
    let encoder = Encoder::default();
    let new = state_at(6);
    let large = |revision: Revision| {
        Arc::new(EncodedView {
            form: Form::Json,
            revision,
            messages: encode_all(Form::Json, &[]),
            bytes: MAX_VIEW_BYTES + 1,
        })
    };
    let held = large(Revision(5));
    encoder.views.lock().await.push(Arc::downgrade(&held));
    let shared = encoder.view(Form::Json, NodeId(1), || new.clone()).await.unwrap();
    assert!(Arc::ptr_eq(&shared, &held), "the events after it follow");
    assert!(
        encoder.view(Form::Packed, NodeId(1), || new.clone()).await.is_none(),
        "there is no packed one to share"
    );
    drop((shared, held));
    let fresh = encoder.view(Form::Json, NodeId(1), || new.clone()).await.unwrap();
    assert_eq!(fresh.revision, Revision(6), "nothing is held any more");
}
