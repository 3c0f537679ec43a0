//! Losses that the journal notices when it is opened, and those that are none.

use super::*;
use ringmaster_common::id::NodeId;
use std::{io::Write, os::unix::fs::FileExt};

/// Many segments, of two groups, one of which is silent after the first. Nothing is purged.
async fn in_many_segments() -> TempDir {
    let dir = fresh();
    let journal = Journal::open_within(dir.path(), Limits { segments: 100, ..SMALL }).unwrap();
    append(&journal, GroupId(6), 0..5).await;
    for index in 0..150 {
        append(&journal, GROUP, index..index + 1).await;
    }
    drop(journal);
    assert!(segments(&dir).len() >= 4, "{:?}", segments(&dir));
    dir
}

fn all_bytes(paths: &[PathBuf]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The journal as the version before seals and owners wrote it.
fn without_seals(dir: &TempDir) {
    for path in segments(dir) {
        let mut bytes = fs::read(&path).unwrap();
        let mark = segment::Header::decode(&bytes).unwrap().mark;
        let bounds = frame_bounds(&bytes);
        let last = bounds[bounds.len() - 2];
        let records = frame::records(frame::read(&bytes[last..], mark).unwrap());
        if records.map(|record| record.unwrap().0).collect::<Vec<_>>() == [Record::Sealed] {
            bytes.truncate(last);
        }
        bytes[8] = 3;
        let crc = crc32fast::hash(&bytes[..28]).to_le_bytes();
        bytes[28..32].copy_from_slice(&crc);
        fs::write(&path, bytes).unwrap();
    }
}

#[tokio::test]
async fn the_loss_of_any_segments_is_noticed() {
    let dir = in_many_segments().await;
    let paths = segments(&dir);
    let bytes = all_bytes(&paths);
    let expected = seen(&Journal::open(dir.path()).unwrap(), GROUP);
    // Each set of segments but the whole one.
    for kept in 0..(1_u32 << paths.len()) - 1 {
        for (at, path) in paths.iter().enumerate() {
            if kept & (1 << at) == 0 {
                fs::remove_file(path).unwrap();
            }
        }
        let error = Journal::open(dir.path()).map(drop).expect_err("some are missing").to_string();
        assert!(error.contains("missing") || error.contains("no journal"), "{kept:b}: {error}");
        for (path, bytes) in paths.iter().zip(&bytes) {
            fs::write(path, bytes).unwrap();
        }
    }
    assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP), expected);
}

#[tokio::test]
async fn a_journal_without_seals_gets_them() {
    let dir = in_many_segments().await;
    let paths = segments(&dir);
    let expected = seen(&Journal::open(dir.path()).unwrap(), GROUP);
    without_seals(&dir);
    let unsealed = all_bytes(&paths);
    assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP), expected);
    let sealed = all_bytes(&paths);
    let last = paths.len() - 1;
    assert!((0..last).all(|at| sealed[at].len() > unsealed[at].len()) && sealed[last] == unsealed[last]);
    assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP), expected);
    assert_eq!(all_bytes(&paths), sealed, "once is enough");
    fs::remove_file(&paths[last]).unwrap();
    let error = Journal::open(dir.path()).map(drop).expect_err("the newest is missing").to_string();
    assert!(error.contains("a later segment was begun, and is missing"), "{error}");
}

#[tokio::test]
async fn a_seal_cut_short_at_any_byte_is_written_again() {
    let dir = in_many_segments().await;
    let paths = segments(&dir);
    let expected = seen(&Journal::open(dir.path()).unwrap(), GROUP);
    let path = &paths[paths.len() - 2];
    let whole = fs::read(path).unwrap();
    let bounds = frame_bounds(&whole);
    let seal = bounds[bounds.len() - 2];
    for length in seal..whole.len() {
        fs::write(path, &whole[..length]).unwrap();
        assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP), expected, "cut at {length}");
        assert_eq!(fs::read(path).unwrap(), whole, "cut at {length}");
    }
    // A frame that the sequence counts is no seal.
    fs::write(path, &whole[..seal - 1]).unwrap();
    let error = Journal::open(dir.path()).map(drop).expect_err("a confirmed frame is cut").to_string();
    assert!(error.contains("later segments follow"), "{error}");
}

#[tokio::test]
async fn damage_before_a_write_that_was_cut_short_is_damage() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    for index in 0..3 {
        append(&journal, GROUP, index..index + 1).await;
    }
    drop(journal);
    let path = last_segment(&dir);
    let whole = fs::read(&path).unwrap();
    let bounds = frame_bounds(&whole);
    let [.., damaged, torn, _end] = bounds[..] else { panic!("a checkpoint and three appends") };
    // The mark alone is enough to see that another frame was begun.
    for length in torn + 8..whole.len() {
        for byte in [damaged, damaged + 10, damaged + 14, torn - 1] {
            let mut bytes = whole[..length].to_vec();
            bytes[byte] ^= 4;
            fs::write(&path, &bytes).unwrap();
            let error = Journal::open(dir.path()).map(drop).expect_err("a confirmed frame").to_string();
            let expected = format!("damaged at byte {damaged}:");
            assert!(error.contains(&expected), "byte {byte}, cut at {length}: {error}");
            assert!(error.contains(&format!("a later frame begins at byte {torn}")), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "it stays as it is");
        }
    }
}

/// How many bytes this thread has written.
fn written() -> u64 {
    let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
    let count = counts.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    count.parse().unwrap()
}

/// A frame of which the fsync failed may be in the memory of the kernel alone, and there as if it were on disk. Written
/// once more, it is on disk after the next fsync.
#[tokio::test]
async fn the_newest_frames_are_written_again() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 0..1).await;
    drop(journal);
    let size = fs::metadata(last_segment(&dir)).unwrap().len();
    let before = written();
    drop(replay::replay(&dir.path().join(DIRECTORY)).unwrap());
    let of_small = written() - before;
    assert_eq!(of_small, size, "all of it");

    let append_one = async |journal: &Journal, index, bytes| {
        let (sender, durable) = oneshot::channel();
        let entry = Bytes::from(vec![1; bytes]);
        journal.append(GROUP, index, vec![entry], |result| sender.send(result).unwrap()).await.unwrap();
        durable.await.unwrap().unwrap();
    };
    let journal = Journal::open(dir.path()).unwrap();
    for index in 1..8 {
        append_one(&journal, index, 1 << 20).await;
    }
    drop(journal);
    let before = written();
    drop(replay::replay(&dir.path().join(DIRECTORY)).unwrap());
    assert_eq!(written() - before, 4 << 20, "no more than that");
    let journal = Journal::open(dir.path()).unwrap();
    append_one(&journal, 8, 6 << 20).await;
    drop(journal);
    let bytes = fs::read(last_segment(&dir)).unwrap();
    let before = written();
    drop(replay::replay(&dir.path().join(DIRECTORY)).unwrap());
    assert!(written() - before > 6 << 20, "the whole last frame");
    assert_eq!(fs::read(last_segment(&dir)).unwrap(), bytes);
}

#[tokio::test]
async fn a_journal_belongs_to_one_node_of_one_cluster() {
    let owner = |cluster: &str, node| Owner { cluster_id: cluster.to_owned(), node_id: NodeId(node) };
    let open = |dir: &TempDir, owner| Journal::open_supervised(dir.path(), owner, &Supervisor::new());
    // The version before wrote none: the first node that opens it is the owner.
    let dir = fresh();
    append(&Journal::open(dir.path()).unwrap(), GROUP, 0..3).await;
    without_seals(&dir);
    drop(open(&dir, owner("c", 1)).unwrap());
    for other in [owner("c", 2), owner("d", 1)] {
        let error = open(&dir, other.clone()).map(drop).expect_err("it is another one's").to_string();
        assert!(
            error.contains(&format!("is that of node 1 of cluster c, and the directory belongs to {other}")),
            "{error}"
        );
        assert!(error.contains("Restore"), "{error}");
    }
    assert_eq!(seen(&open(&dir, owner("c", 1)).unwrap(), GROUP).entries.len(), 3);

    // Later segments say it, too.
    let journal = Journal::start(dir.path(), SMALL, Some(owner("c", 1)), &Supervisor::new()).unwrap();
    let first = segments(&dir);
    for index in 3..100 {
        append(&journal, GROUP, index..index + 1).await;
    }
    journal.purge(GROUP, 98, Bytes::from("id of 98")).await.unwrap();
    append(&journal, GROUP, 100..101).await;
    drop(journal);
    assert!(!segments(&dir).contains(&first[0]));
    open(&dir, owner("c", 2)).map(drop).expect_err("it is another one's");
    drop(open(&dir, owner("c", 1)).unwrap());
}

#[tokio::test]
async fn a_look_at_a_journal_changes_nothing() {
    let dir = fresh();
    assert!(!Journal::is_used(dir.path()));
    append(&Journal::open(dir.path()).unwrap(), GROUP, 0..3).await;
    let path = last_segment(&dir);
    File::options().append(true).open(&path).unwrap().write_all(b"torn").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(Journal::is_used(dir.path()));
    assert_eq!(fs::read(&path).unwrap(), before);
    File::options().write(true).open(&path).unwrap().write_all_at(b"damaged", 0).unwrap();
    assert!(Journal::is_used(dir.path()), "it may have been used");
}

#[tokio::test]
async fn a_loss_at_the_end_is_noticed_after_an_orderly_stop() {
    let dir = fresh();
    let journal = Journal::open(dir.path()).unwrap();
    append(&journal, GROUP, 0..1).await;
    append(&journal, GROUP, 1..2).await;
    drop(journal);
    let path = last_segment(&dir);
    let whole = fs::read(&path).unwrap();
    let bounds = frame_bounds(&whole);
    let (first, last) = (bounds[1], bounds[2]);
    let noticed = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let error = Journal::open(dir.path()).map(drop).expect_err(what).to_string();
        assert!(error.contains("when the node was stopped"), "{what}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}: it stays as it is");
    };
    for length in first..whole.len() {
        noticed(&whole[..length], &format!("cut at {length}"));
    }
    for byte in last..whole.len() {
        let mut damaged = whole.clone();
        damaged[byte] ^= 8;
        noticed(&damaged, &format!("byte {byte} is wrong"));
    }
    // More frames than were counted are no loss: a crash came after them.
    fs::write(&path, &whole).unwrap();
    let counted = dir.path().join(DIRECTORY).join(closed::FILE);
    let before = fs::read(&counted).unwrap();
    append(&Journal::open(dir.path()).unwrap(), GROUP, 2..3).await;
    assert_ne!(fs::read(&counted).unwrap(), before);
    fs::write(&counted, before).unwrap();
    assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP).entries.len(), 3);
    // Nothing is known after a crash, nor from a file that is damaged.
    for count in [None, Some("damaged")] {
        crashed(&dir);
        if let Some(count) = count {
            fs::write(&counted, count).unwrap();
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(seen(&Journal::open(dir.path()).unwrap(), GROUP).entries.len(), 1);
    }
}
