mod groups;
mod histories;

use super::*;
use futures::future::join_all;
use std::{fs, fs::File, ops::Range, time::Duration};
use tempfile::TempDir;

const GROUP: GroupId = GroupId(5);
const SMALL: Limits = Limits { segment_bytes: 2_000, segments: 4, kept_bytes: 100 };

fn fresh() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    Journal::create(dir.path()).unwrap();
    dir
}

fn entry(group: GroupId, index: u64) -> Bytes {
    Bytes::from(format!("entry {index} of {group} {}", "x".repeat(20)))
}

/// Appends entries, and waits until they are durable.
async fn append(journal: &Journal, group: GroupId, range: Range<u64>) {
    let (sender, durable) = oneshot::channel();
    let entries = range.clone().map(|index| entry(group, index)).collect();
    journal.append(group, range.start, entries, |result| sender.send(result).unwrap()).await.unwrap();
    durable.await.unwrap().unwrap();
}

/// A group as readers see it.
#[derive(Debug, PartialEq)]
struct Seen {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: Vec<(u64, Bytes)>,
}

fn seen(journal: &Journal, group: GroupId) -> Seen {
    journal.read(group, |log| Seen {
        vote: log.vote.clone(),
        committed: log.committed.clone(),
        purged: log.purged.clone(),
        entries: (log.first_index().unwrap_or(0)..).zip(log.entries(0..u64::MAX).read().unwrap()).collect(),
    })
}

fn segments(dir: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.path().join(DIRECTORY)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

fn last_segment(dir: &TempDir) -> PathBuf {
    segments(dir).pop().unwrap()
}

/// Where the frames of a segment begin, and where the last one ends.
fn frame_bounds(bytes: &[u8]) -> Vec<usize> {
    let mark = segment::Header::decode(bytes).unwrap().mark;
    let mut bounds = vec![segment::HEADER_BYTES];
    while let Ok(payload) = frame::read(&bytes[bounds[bounds.len() - 1]..], mark) {
        bounds.push(bounds[bounds.len() - 1] + frame::HEADER_BYTES + payload.len());
    }
    bounds
}

#[tokio::test]
async fn what_was_confirmed_is_there_again() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    let other = GroupId(7);
    journal.save_vote(GROUP, Bytes::from("vote 1")).await.unwrap();
    append(&journal, GROUP, 0..10).await;
    append(&journal, other, 5..7).await;
    journal.truncate(GROUP, 8).await.unwrap();
    append(&journal, GROUP, 8..9).await;
    journal.note_committed(GROUP, Bytes::from("8")).await.unwrap();
    journal.purge(GROUP, 3, Bytes::from("id of 3")).await.unwrap();
    let before = (seen(&journal, GROUP), seen(&journal, other));
    assert_eq!(before.0.vote, Some(Bytes::from("vote 1")));
    assert_eq!(before.0.committed, Some(Bytes::from("8")));
    assert_eq!(before.0.purged, Some((3, Bytes::from("id of 3"))));
    assert_eq!(before.0.entries, (4..9).map(|index| (index, entry(GROUP, index))).collect::<Vec<_>>());
    drop(journal);

    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!((seen(&journal, GROUP), seen(&journal, other)), before);
    assert_eq!(journal.read(GROUP, |log| log.entries(5..7).len()), 2);
    assert_eq!(journal.read(GROUP, |log| log.entries(9..20).len()), 0);
    journal.truncate(GROUP, 0).await.unwrap();
    assert_eq!(journal.read(GROUP, |log| (log.first_index(), log.next_index())), (None, Some(4)));
}

#[tokio::test]
async fn entries_are_read_before_they_are_durable() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    // The writer reports here, and so goes no further before the entry was read.
    let (read, may_tell) = std::sync::mpsc::channel::<()>();
    let wait = move |_| may_tell.recv().unwrap();
    journal.append(GROUP, 0, vec![entry(GROUP, 0)], wait).await.unwrap();
    let (sender, mut durable) = oneshot::channel();
    let entries = vec![entry(GROUP, 1)];
    journal.append(GROUP, 1, entries, |result| sender.send(result).unwrap()).await.unwrap();
    assert_eq!(journal.read(GROUP, |log| log.entries(1..2).read().unwrap()), [entry(GROUP, 1)]);
    assert!(durable.try_recv().is_err(), "it is not durable yet");
    read.send(()).unwrap();
    durable.await.unwrap().unwrap();
}

#[tokio::test]
async fn all_groups_share_an_fsync() {
    const GROUPS: u64 = 64;
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    // While the writer is held up, all writes queue.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (enter, entered) = oneshot::channel();
    let hold_up = move |_| {
        enter.send(()).unwrap();
        held.recv().unwrap();
    };
    journal.append(GroupId(GROUPS), 0, vec![], hold_up).await.unwrap();
    entered.await.unwrap();
    let before = journal.fsyncs();
    let mut durable = Vec::new();
    for group in (0..GROUPS).map(GroupId) {
        let (sender, receiver) = oneshot::channel();
        let entries = vec![entry(group, 0), entry(group, 1)];
        journal.append(group, 0, entries, |result| sender.send(result).unwrap()).await.unwrap();
        durable.push(receiver);
    }
    release.send(()).unwrap();
    for result in join_all(durable).await {
        result.unwrap().unwrap();
    }
    assert_eq!(journal.fsyncs() - before, 1);
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    for group in (0..GROUPS).map(GroupId) {
        assert_eq!(seen(&journal, group).entries, [(0, entry(group, 0)), (1, entry(group, 1))]);
    }
}

#[tokio::test]
async fn a_hint_waits_for_company_but_not_for_ever() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    // While the writer is held up, both are queued.
    let (release, held) = std::sync::mpsc::channel::<()>();
    journal.append(GROUP, 0, vec![entry(GROUP, 0)], move |_| held.recv().unwrap()).await.unwrap();
    while journal.fsyncs() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let fsyncs = journal.fsyncs();
    journal.note_committed(GROUP, Bytes::from("0")).await.unwrap();
    let (sender, durable) = oneshot::channel();
    let entries = vec![entry(GROUP, 1)];
    journal.append(GROUP, 1, entries, |result| sender.send(result).unwrap()).await.unwrap();
    release.send(()).unwrap();
    durable.await.unwrap().unwrap();
    assert_eq!(journal.fsyncs(), fsyncs + 1, "the hint rode along");
    journal.note_committed(GROUP, Bytes::from("1")).await.unwrap();
    while journal.fsyncs() < fsyncs + 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A killed process leaves what is in the file now.
    let copy = fresh();
    fs::remove_file(last_segment(&copy)).unwrap();
    let name = last_segment(&dir);
    let target = copy.path().join(DIRECTORY).join(name.file_name().unwrap());
    loop {
        fs::copy(&name, &target).unwrap();
        if seen(&Journal::open(copy.path()).unwrap(), GROUP).committed == Some(Bytes::from("1")) {
            break;
        }
    }
}

#[tokio::test]
async fn a_write_cut_short_at_any_byte_is_cut_off() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 1..4).await;
    journal.save_vote(GROUP, Bytes::from("the vote")).await.unwrap();
    drop(journal);
    let kept = fs::metadata(last_segment(&dir)).unwrap().len() as usize;
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 4..7).await;
    let before = seen(&journal, GROUP);
    drop(journal);
    let path = last_segment(&dir);
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > kept + 100);

    let check = |what: String, bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let journal = Journal::open(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(seen(&journal, GROUP).entries, before.entries[..3], "{what}");
        assert_eq!(seen(&journal, GROUP).vote, before.vote, "{what}");
        assert_eq!(fs::metadata(&path).unwrap().len() as usize, kept, "{what}");
        journal
    };
    for length in kept..whole.len() {
        let journal = check(format!("cut at {length}"), &whole[..length]);
        // It continues from there.
        append(&journal, GROUP, 4..7).await;
        drop(journal);
        assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP), before, "cut at {length}");
    }
    for byte in kept..whole.len() {
        // Pages may reach the disk in any order.
        let mut torn = whole.clone();
        torn[byte] ^= 0x40;
        check(format!("byte {byte} is wrong"), &torn);
        let mut hole = whole.clone();
        hole[kept..=byte].fill(0);
        check(format!("zeros up to byte {byte}"), &hole);
    }
}

#[tokio::test]
async fn frames_are_written_over_zeros_which_are_no_damage() {
    let dir = fresh();
    let path = last_segment(&dir);
    let length = || fs::metadata(&path).unwrap().len();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 0..1).await;
    let ahead = length();
    append(&journal, GROUP, 1..20).await;
    assert_eq!(length(), ahead, "there was room for it");
    // A killed process leaves what is in the file now.
    let left = fs::read(&path).unwrap();
    let before = seen(&journal, GROUP);
    drop(journal);
    let end = *frame_bounds(&left).last().unwrap();
    assert_eq!(length(), end as u64, "a clean end leaves no zeros");
    assert!(left.len() > end && left[end..].iter().all(|byte| *byte == 0));

    fs::write(&path, &left).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(seen(&journal, GROUP), before);
    assert_eq!(length(), end as u64, "they are cut off");
    drop(journal);

    let last = frame_bounds(&left).len() - 2;
    let last = frame_bounds(&left)[last];
    let mut behind = left.clone();
    behind.copy_within(last..end, end + 100);
    fs::write(&path, &behind).unwrap();
    let error = Journal::open(dir.path()).expect_err("a whole frame behind zeros").to_string();
    assert!(error.contains("a whole frame follows"), "{error}");
}

#[tokio::test]
async fn a_segment_of_an_older_format_is_written_on() {
    let dir = fresh();
    append(&Journal::open(dir.path()).unwrap(), GROUP, 0..3).await;
    let path = last_segment(&dir);
    let mut bytes = fs::read(&path).unwrap();
    let header = segment::Header::decode(&bytes).unwrap();
    for format in [1, 2] {
        bytes[8] = format;
        let crc = crc32fast::hash(&bytes[..28]).to_le_bytes();
        bytes[28..32].copy_from_slice(&crc);
        assert_eq!(segment::Header::decode(&bytes).unwrap(), header);
        fs::write(&path, &bytes).unwrap();
        append(&Journal::open(dir.path()).unwrap(), GROUP, 3..6).await;
        assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP).entries.len(), 6);
    }
}

#[tokio::test]
async fn an_entry_that_looks_like_a_frame_is_none() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 0..2).await;
    drop(journal);
    // From a client that has seen another node's file, or an old one of this node.
    let image = Bytes::from(fs::read(last_segment(&dir)).unwrap());

    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 0..1).await;
    let (sender, durable) = oneshot::channel();
    journal.append(GROUP, 1, vec![image], |result| sender.send(result).unwrap()).await.unwrap();
    durable.await.unwrap().unwrap();
    drop(journal);
    let path = last_segment(&dir);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP).entries, [(0, entry(GROUP, 0))]);
}

#[tokio::test]
async fn damage_before_the_last_frame_is_refused() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 1..2).await;
    append(&journal, GROUP, 2..3).await;
    append(&journal, GROUP, 3..4).await;
    drop(journal);
    let path = last_segment(&dir);
    let whole = fs::read(&path).unwrap();
    let bounds = frame_bounds(&whole);
    assert_eq!(bounds.len(), 5, "a checkpoint and three appends");
    let last = bounds[3];
    for byte in 0..last {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        let error = Journal::open(dir.path()).expect_err("damage is seen").to_string();
        assert!(error.contains(path.to_str().unwrap()), "byte {byte}: {error}");
        if !(8..12).contains(&byte) {
            let frame = bounds.iter().rposition(|start| *start <= byte).map_or(0, |frame| bounds[frame]);
            assert!(error.contains(&format!("damaged at byte {frame}:")), "byte {byte}: {error}");
            assert!(error.contains("join again"), "byte {byte}: {error}");
        }
        // It stays as it is, for an inspection.
        assert_eq!(fs::metadata(&path).unwrap().len() as usize, whole.len());
    }
    fs::write(&path, &whole).unwrap();
    Journal::open(dir.path()).expect("whole again");
}

#[tokio::test]
async fn a_damaged_checkpoint_is_no_write_cut_short() {
    let dir = fresh();
    let path = last_segment(&dir);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Journal::open(dir.path()).expect_err("a checkpoint is never torn");
        assert!(matches!(error, JournalError::Damaged { .. }), "cut at {length}: {error}");
    }
}

#[tokio::test]
async fn another_format_is_refused() {
    let dir = fresh();
    let path = last_segment(&dir);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 4;
    fs::write(&path, bytes).unwrap();
    let error = Journal::open(dir.path()).expect_err("another format is seen");
    assert!(matches!(error, JournalError::Format { found: 4, supported: 3, .. }), "{error}");
    assert!(error.to_string().contains("run the version that wrote it"), "{error}");
}

#[tokio::test]
async fn a_lost_journal_is_no_fresh_one() {
    let dir = fresh();
    Journal::create(dir.path()).expect("once more does no harm");
    append(&Journal::open(dir.path()).unwrap(), GROUP, 0..3).await;
    Journal::create(dir.path()).expect("nor does it then");
    assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP).entries.len(), 3);
    fs::remove_file(last_segment(&dir)).unwrap();
    assert!(matches!(Journal::open(dir.path()), Err(JournalError::Missing { .. })));
    fs::remove_dir(dir.path().join(DIRECTORY)).unwrap();
    let error = Journal::open(dir.path()).expect_err("it is missing");
    assert!(error.to_string().contains("join again"), "{error}");
}

#[tokio::test]
async fn purged_segments_are_deleted_and_the_rest_suffices() {
    let dir = fresh();
    let journal = Journal::open_within(dir.path(), SMALL).unwrap();
    journal.save_vote(GROUP, Bytes::from("the vote")).await.unwrap();
    journal.note_committed(GROUP, Bytes::from("nothing")).await.unwrap();
    for index in 0..60 {
        append(&journal, GROUP, index..index + 1).await;
    }
    drop(journal);
    let all = segments(&dir);
    let journal = Journal::open_within(dir.path(), SMALL).unwrap();
    assert!((2..=SMALL.segments).contains(&all.len()), "{all:?}");
    journal.purge(GROUP, 54, Bytes::from("id of 54")).await.unwrap();
    append(&journal, GROUP, 60..61).await;
    let before = seen(&journal, GROUP);
    drop(journal);
    let left = segments(&dir);
    assert_eq!(left, all[all.len() - 1..], "as soon as nothing in the others is live");

    let journal = Journal::open_within(dir.path(), SMALL).unwrap();
    assert_eq!(seen(&journal, GROUP), before);
    assert_eq!(before.vote, Some(Bytes::from("the vote")));
    assert_eq!(before.committed, Some(Bytes::from("nothing")));
    assert_eq!(before.entries.len(), 6);
}

#[tokio::test]
async fn a_silent_group_does_not_keep_old_segments() {
    let dir = fresh();
    let journal = Journal::open_within(dir.path(), SMALL).unwrap();
    let silent = GroupId(1);
    journal.save_vote(silent, Bytes::from("long ago")).await.unwrap();
    append(&journal, silent, 3..8).await;
    let first = segments(&dir);
    for index in 0..400 {
        append(&journal, GROUP, index..index + 1).await;
        if index % 10 == 9 {
            journal.purge(GROUP, index - 5, Bytes::from("id")).await.unwrap();
        }
        // One more while the oldest is being replaced.
        assert!(segments(&dir).len() <= SMALL.segments + 1, "{:?}", segments(&dir));
    }
    assert!(!segments(&dir).contains(&first[0]));
    let before = (seen(&journal, silent), seen(&journal, GROUP));
    assert_eq!(before.0.entries, (3..8).map(|index| (index, entry(silent, index))).collect::<Vec<_>>());
    drop(journal);
    assert!(segments(&dir).len() <= SMALL.segments, "{:?}", segments(&dir));
    let journal = Journal::open_within(dir.path(), SMALL).unwrap();
    assert_eq!((seen(&journal, silent), seen(&journal, GROUP)), before);
    append(&journal, silent, 8..9).await;
}

#[tokio::test]
async fn a_missing_or_renamed_segment_is_refused() {
    let dir = fresh();
    let journal = Journal::open_within(dir.path(), Limits { segments: 100, ..SMALL }).unwrap();
    for index in 0..120 {
        append(&journal, GROUP, index..index + 1).await;
    }
    drop(journal);
    let paths = segments(&dir);
    assert!(paths.len() > 3, "{paths:?}");
    let aside = dir.path().join("aside");
    fs::rename(&paths[1], &aside).unwrap();
    let error = Journal::open(dir.path()).expect_err("the gap is seen");
    assert!(error.to_string().contains("missing or renamed"), "{error}");
    fs::rename(&aside, &paths[1]).unwrap();
    Journal::open(dir.path()).expect("whole again");
    fs::rename(&paths[0], paths[0].with_file_name(format!("{:020}.log", 1))).unwrap();
    let error = Journal::open(dir.path()).expect_err("the name is wrong");
    assert!(error.to_string().contains("missing or renamed"), "{error}");
    fs::rename(paths[0].with_file_name(format!("{:020}.log", 1)), &paths[0]).unwrap();
    // A tail is torn at the end of the journal, nowhere else.
    let bytes = fs::read(&paths[1]).unwrap();
    fs::write(&paths[1], &bytes[..bytes.len() - 1]).unwrap();
    let error = Journal::open(dir.path()).expect_err("the cut is seen");
    assert!(error.to_string().contains("later segments follow"), "{error}");
}

#[tokio::test]
async fn a_segment_that_was_never_finished_is_no_obstacle() {
    let dir = fresh();
    append(&Journal::open(dir.path()).unwrap(), GROUP, 0..3).await;
    let unfinished = Segment::path(&dir.path().join(DIRECTORY), 9).with_extension("tmp");
    fs::write(&unfinished, "RMjo").unwrap();
    assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP).entries.len(), 3);
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn after_an_error_nothing_is_confirmed_any_more() {
    let dir = fresh();
    let mut replayed = replay::replay(&dir.path().join(DIRECTORY)).unwrap();
    // The disk takes no writes through this one.
    replayed.tail.file = File::open(last_segment(&dir)).unwrap();
    let failure = Arc::new(OnceLock::new());
    let writer = Writer::new(
        dir.path().to_owned(),
        SMALL,
        replayed,
        Arc::default(),
        Measured::default(),
        Arc::default(),
        failure.clone(),
    );
    let (queue, queued) = mpsc::channel();
    let room = Arc::new(Semaphore::new(10));
    let (sender, results) = mpsc::channel();
    for index in 0..3 {
        let sender = sender.clone();
        let records = vec![Record::Append { group: GROUP, index, entry: entry(GROUP, index) }];
        let done = Completion::new(move |result| sender.send((index, result)).unwrap());
        let room = room.clone().try_acquire_owned().unwrap();
        queue.send(Write { records, first_serial: index, urgent: true, done, room }).unwrap();
    }
    drop(queue);
    writer.run(&queued);
    for expected in 0..3 {
        let (index, result) = results.recv().unwrap();
        assert_eq!(index, expected, "in the order in which they came");
        let error = result.expect_err("it is not written").to_string();
        assert!(error.contains("cannot be written to /"), "it names the directory: {error}");
    }
    assert!(failure.get().is_some());
    assert_eq!(room.available_permits(), 10);
    assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP).entries, []);
}

#[tokio::test]
async fn a_failed_journal_takes_nothing() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 0..1).await;
    journal.failure.get_or_init(|| Failure::new(dir.path(), &io::Error::other("the disk is gone")));
    let error = journal.save_vote(GROUP, Bytes::from("vote")).await.expect_err("it has failed");
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    journal.append(GROUP, 1, vec![entry(GROUP, 1)], drop).await.expect_err("it has failed");
    assert_eq!(seen(&journal, GROUP).entries.len(), 1);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let large = || Bytes::from(vec![0; QUEUE_BYTES as usize / 4]);
    journal.append(GROUP, 0, vec![], move |_| held.recv().unwrap()).await.unwrap();
    let mut appended = 0;
    while let Ok(result) =
        tokio::time::timeout(Duration::from_millis(100), journal.append(GROUP, appended, vec![large()], drop))
            .await
    {
        result.unwrap();
        appended += 1;
    }
    assert_eq!(appended, 3);
    release.send(()).unwrap();
    append(&journal, GROUP, appended..appended + 1).await;
}
