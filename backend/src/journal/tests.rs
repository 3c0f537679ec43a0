use super::*;
use std::time::Duration;
use tempfile::TempDir;

const GROUP: GroupId = GroupId(0);

fn entry(index: u64) -> Bytes {
    Bytes::from(format!("entry {index} {}", "x".repeat(20)))
}

async fn append(journal: &Journal, group: GroupId, range: std::ops::RangeInclusive<u64>) {
    let (tell, told) = tokio::sync::oneshot::channel();
    let entries = range.map(|index| (index, entry(index))).collect();
    journal.append(group, entries, |result| tell.send(result).unwrap()).await;
    told.await.unwrap().unwrap();
}

fn log(journal: &Journal, group: GroupId) -> GroupLog {
    journal.read(group, GroupLog::clone)
}

/// The writer holds the file; a test that opens the folder again waits until it is gone.
async fn close(journal: Arc<Journal>) {
    let weak = journal.queue.downgrade();
    drop(journal);
    while weak.upgrade().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn last_segment(dir: &TempDir) -> PathBuf {
    let mut paths: Vec<_> =
        fs::read_dir(dir.path().join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.pop().unwrap()
}

#[tokio::test]
async fn what_was_confirmed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let other = GroupId(7);
    journal.save_vote(GROUP, Bytes::from("vote 1")).await.unwrap();
    append(&journal, GROUP, 0..=9).await;
    append(&journal, other, 5..=6).await;
    journal.truncate_after(GROUP, Some(7)).await.unwrap();
    append(&journal, GROUP, 8..=8).await;
    journal.note_committed(GROUP, Bytes::from("8")).await;
    journal.purge(GROUP, 3, Bytes::from("id of 3")).await.unwrap();
    let before = (log(&journal, GROUP), log(&journal, other));
    assert_eq!(before.0.entries.keys().copied().collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    assert_eq!(journal.entries(GROUP, 5..7).len(), 2);
    assert_eq!(journal.entries(GROUP, 7..5).len(), 0);

    close(journal).await;
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!((log(&journal, GROUP), log(&journal, other)), before);
    assert_eq!(log(&journal, GROUP).committed, Some(Bytes::from("8")));
    journal.truncate_after(GROUP, None).await.unwrap();
    assert!(log(&journal, GROUP).entries.is_empty());
}

#[tokio::test]
async fn many_groups_share_one_sync() {
    const GROUPS: u64 = 64;
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let before = journal.fsyncs();
    for round in 0..10 {
        let appends = (0..GROUPS).map(|group| append(&journal, GroupId(group), round..=round));
        futures::future::join_all(appends).await;
    }
    let syncs = journal.fsyncs() - before;
    assert!(syncs < 10 * GROUPS / 4, "{syncs} syncs for {} appends", 10 * GROUPS);
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 1..=3).await;
    let kept = fs::metadata(last_segment(&dir)).unwrap().len();
    append(&journal, GROUP, 4..=4).await;
    close(journal).await;
    let whole = fs::read(last_segment(&dir)).unwrap();
    for length in kept as usize..whole.len() {
        fs::write(last_segment(&dir), &whole[..length]).unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(log(&journal, GROUP).entries.len(), 3, "cut at {length}");
        // It goes on from there.
        append(&journal, GROUP, 4..=5).await;
        close(journal).await;
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(log(&journal, GROUP).entries.len(), 5, "cut at {length}");
        close(journal).await;
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 1..=3).await;
    close(journal).await;
    let path = last_segment(&dir);
    let whole = fs::read(&path).unwrap();
    let last = whole.windows(record::MAGIC.len()).rposition(|bytes| bytes == record::MAGIC).unwrap();
    for byte in segment::FILE_HEADER_BYTES..last {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        let error = Journal::open(dir.path()).expect_err("damage is seen");
        assert!(matches!(error, JournalError::Damaged { .. }), "byte {byte}: {error}");
        assert!(error.to_string().contains("join again"), "{error}");
    }
    fs::write(&path, &whole).unwrap();
    Journal::open(dir.path()).expect("whole again");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    close(Journal::open(dir.path()).unwrap()).await;
    let path = last_segment(&dir);
    let mut bytes = fs::read(&path).unwrap();
    bytes[6] = 9;
    fs::write(&path, bytes).unwrap();
    let error = Journal::open(dir.path()).expect_err("another format is seen");
    assert!(matches!(error, JournalError::Format { found: 9, .. }), "{error}");
}

#[tokio::test]
async fn spent_segments_go_and_what_matters_stays() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::with_segments_of(dir.path(), 2_000).unwrap();
    journal.save_vote(GROUP, Bytes::from("the vote")).await.unwrap();
    for index in 1..=500 {
        append(&journal, GROUP, index..=index).await;
        if index % 50 == 0 {
            journal.purge(GROUP, index - 10, Bytes::from("id")).await.unwrap();
        }
    }
    let before = log(&journal, GROUP);
    close(journal).await;
    let count = fs::read_dir(dir.path().join("journal")).unwrap().count();
    assert!(count <= 4, "{count} segments are left");
    let journal = Journal::with_segments_of(dir.path(), 2_000).unwrap();
    assert_eq!(log(&journal, GROUP), before);
    assert_eq!(before.vote, Some(Bytes::from("the vote")));
    assert_eq!(before.entries.len(), 10);
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::with_segments_of(dir.path(), 500).unwrap();
    for index in 1..=50 {
        append(&journal, GROUP, index..=index).await;
    }
    close(journal).await;
    let mut paths: Vec<_> =
        fs::read_dir(dir.path().join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    fs::remove_file(&paths[1]).unwrap();
    let error = Journal::open(dir.path()).expect_err("the gap is seen");
    assert!(error.to_string().contains("missing"), "{error}");
}
