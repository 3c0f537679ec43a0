//! Groups that are dropped, the past of a node, and entries that are read from disk.

use super::*;

#[tokio::test]
async fn of_a_dropped_group_the_vote_alone_is_left() {
    let dir = fresh();
    let journal = Journal::open_within(dir.path(), SMALL).unwrap();
    let other = GroupId(6);
    journal.save_vote(GROUP, Bytes::from("the vote")).await.unwrap();
    append(&journal, GROUP, 3..20).await;
    append(&journal, other, 0..20).await;
    journal.purge(GROUP, 5, Bytes::from("id of 5")).await.unwrap();
    journal.note_committed(GROUP, Bytes::from("19")).await.unwrap();
    journal.drop_group(GROUP).await.unwrap();
    let vote = Seen { vote: Some(Bytes::from("the vote")), committed: None, purged: None, entries: vec![] };
    assert_eq!(seen(&journal, GROUP), vote);
    let before = seen(&journal, other);
    drop(journal);

    let journal = Journal::open_within(dir.path(), SMALL).unwrap();
    assert_eq!((seen(&journal, GROUP), seen(&journal, other)), (vote, before));
    assert!(journal.has_past(), "it votes no second time");
    // A replica that comes back begins wherever its leader says.
    journal.purge(GROUP, 99, Bytes::from("id of 99")).await.unwrap();
    append(&journal, GROUP, 100..102).await;
    for index in 20..80 {
        append(&journal, other, index..index + 1).await;
    }
    journal.purge(other, 78, Bytes::from("id of 78")).await.unwrap();
    append(&journal, other, 80..81).await;
    let before = (seen(&journal, GROUP), seen(&journal, other));
    assert_eq!(before.0.entries.len(), 2);
    drop(journal);
    let journal = Journal::open_within(dir.path(), SMALL).unwrap();
    assert_eq!((seen(&journal, GROUP), seen(&journal, other)), before);
}

#[tokio::test]
async fn a_vote_or_a_log_of_any_group_is_a_past() {
    let dir = fresh();
    assert!(!Journal::open(dir.path()).unwrap().has_past());
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GroupId(9), 0..1).await;
    drop(journal);
    assert!(Journal::open(dir.path()).unwrap().has_past());
    let dir = fresh();
    Journal::open(dir.path()).unwrap().save_vote(GroupId(9), Bytes::from("vote")).await.unwrap();
    assert!(Journal::open(dir.path()).unwrap().has_past());
}

#[tokio::test]
async fn released_entries_are_read_from_disk() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    let body = |index: u64| Bytes::from(vec![index as u8; KEPT_BYTES / 8]);
    let append_bodies = async |range: Range<u64>| {
        let (sender, durable) = oneshot::channel();
        let entries = range.clone().map(body).collect();
        journal.append(GROUP, range.start, entries, |result| sender.send(result).unwrap()).await.unwrap();
        durable.await.unwrap().unwrap();
    };
    append_bodies(0..40).await;
    let in_memory = || journal.read(GROUP, GroupLog::bytes_in_memory);
    assert_eq!(in_memory(), 40 * KEPT_BYTES / 8, "not applied yet");
    journal.release(GROUP, 19);
    assert_eq!(in_memory(), 20 * KEPT_BYTES / 8);
    journal.release(GROUP, 39);
    assert_eq!(in_memory(), KEPT_BYTES, "the last ones are for followers");
    let entries = journal.read(GROUP, |log| log.entries(0..u64::MAX));
    assert!(entries.are_on_disk());
    assert_eq!(entries.read().unwrap(), (0..40).map(body).collect::<Vec<_>>());

    // An entry that takes the place of another is not released with it.
    journal.truncate(GROUP, 30).await.unwrap();
    append_bodies(30..50).await;
    assert_eq!(in_memory(), 20 * KEPT_BYTES / 8);
    // Purged entries can be read on by a reader that has begun.
    let entries = journal.read(GROUP, |log| log.entries(5..10));
    journal.purge(GROUP, 35, Bytes::from("id of 35")).await.unwrap();
    assert_eq!(entries.read().unwrap(), (5..10).map(body).collect::<Vec<_>>());
    let entries = journal.read(GROUP, |log| log.entries_within(0..u64::MAX, KEPT_BYTES / 2));
    assert_eq!(entries.read().unwrap(), (36..40).map(body).collect::<Vec<_>>());
    assert_eq!(journal.read(GROUP, |log| log.index_of_last(KEPT_BYTES as u64 / 2)), 46);
    assert_eq!(journal.read(GROUP, |log| log.bytes()), 14 * KEPT_BYTES as u64 / 8);
}

#[tokio::test]
async fn a_lost_oldest_segment_is_seen_even_if_a_quiet_group_has_no_later_entry() {
    let dir = fresh();
    let limits = Limits { segments: 100, ..SMALL };
    let journal = Journal::open_within(dir.path(), limits).unwrap();
    let quiet = GroupId(6);
    append(&journal, quiet, 2..7).await;
    for index in 0..60 {
        append(&journal, GROUP, index..index + 1).await;
    }
    journal.purge(GROUP, 55, Bytes::from("id of 55")).await.unwrap();
    append(&journal, GROUP, 60..61).await;
    drop(journal);
    let oldest = segments(&dir).remove(0);
    let aside = dir.path().join("aside");
    fs::rename(&oldest, &aside).unwrap();
    let error = Journal::open(dir.path()).expect_err("the quiet group has lost its log").to_string();
    assert!(error.contains("entries 2..7 of group 6 are missing"), "{error}");
    fs::rename(&aside, &oldest).unwrap();

    // Once they are purged, the segment is not needed any more.
    let journal = Journal::open_within(dir.path(), limits).unwrap();
    journal.purge(quiet, 6, Bytes::from("id of 6")).await.unwrap();
    append(&journal, GROUP, 61..62).await;
    drop(journal);
    assert!(!oldest.exists());
    Journal::open(dir.path()).expect("nothing that is needed is missing");
}
