//! Random histories of several groups, against the plainest model of a log.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Append(u64, u64),
    Truncate(u64, u64),
    Purge(u64, u64),
    Vote(u64),
    Committed(u64),
    Release(u64),
    Drop(u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = 0..4u64;
    let step = prop_oneof![
        6 => (group.clone(), 1..12u64).prop_map(|(group, n)| Step::Append(group, n)),
        2 => (group.clone(), 0..8u64).prop_map(|(group, n)| Step::Truncate(group, n)),
        2 => (group.clone(), 0..12u64).prop_map(|(group, n)| Step::Purge(group, n)),
        1 => group.clone().prop_map(Step::Vote),
        1 => group.clone().prop_map(Step::Committed),
        1 => group.clone().prop_map(Step::Release),
        1 => group.prop_map(Step::Drop),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any history, in any segments, a replay gives the logs that readers saw.
    #[test]
    fn a_replay_gives_what_was_there(steps in steps()) {
        const TINY: Limits = Limits { segment_bytes: 600, segments: 3, kept_bytes: 60 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = fresh();
            let mut journal = Journal::open_within(dir.path(), TINY).unwrap();
            // The plainest model of a log.
            let mut model: BTreeMap<u64, (u64, BTreeMap<u64, Bytes>)> = BTreeMap::new();
            for (number, step) in steps.into_iter().chain([Step::Restart]).enumerate() {
                match step {
                    Step::Append(group, n) => {
                        let (next, entries) = model.entry(group).or_default();
                        append(&journal, GroupId(group), *next..*next + n).await;
                        entries.extend((*next..*next + n).map(|index| (index, entry(GroupId(group), index))));
                        *next += n;
                    }
                    Step::Truncate(group, n) => {
                        let (next, entries) = model.entry(group).or_default();
                        // Purged entries stay purged.
                        let from = entries.keys().next().map_or(*next, |first| next.saturating_sub(n).max(*first));
                        journal.truncate(GroupId(group), from).await.unwrap();
                        drop(entries.split_off(&from));
                        *next = from;
                    }
                    Step::Purge(group, n) => {
                        let (next, entries) = model.entry(group).or_default();
                        let Some(first) = entries.keys().next() else { continue };
                        // At times beyond the end, as where a snapshot was installed.
                        let through = first + n;
                        journal.purge(GroupId(group), through, Bytes::from(format!("{through}"))).await.unwrap();
                        *entries = entries.split_off(&(through + 1));
                        *next = (*next).max(through + 1);
                    }
                    Step::Vote(group) => {
                        journal.save_vote(GroupId(group), Bytes::from(format!("vote {number}"))).await.unwrap();
                    }
                    Step::Committed(group) => {
                        let hint = Bytes::from(format!("hint {number}"));
                        journal.note_committed(GroupId(group), hint).await.unwrap();
                    }
                    Step::Release(group) => {
                        let (next, _) = model.entry(group).or_default();
                        journal.release(GroupId(group), next.saturating_sub(1));
                    }
                    Step::Drop(group) => {
                        let vote = seen(&journal, GroupId(group)).vote;
                        journal.drop_group(GroupId(group)).await.unwrap();
                        model.remove(&group);
                        let left = Seen { vote, committed: None, purged: None, entries: vec![] };
                        assert_eq!(seen(&journal, GroupId(group)), left);
                    }
                    Step::Restart => {
                        let before: Vec<_> = (0..4).map(|group| seen(&journal, GroupId(group))).collect();
                        drop(journal);
                        journal = Journal::open_within(dir.path(), TINY).unwrap();
                        for (group, before) in (0..).zip(before) {
                            assert_eq!(seen(&journal, GroupId(group)), before, "group {group}");
                        }
                    }
                }
                for (group, (_, entries)) in &model {
                    let entries: Vec<_> = entries.clone().into_iter().collect();
                    assert_eq!(seen(&journal, GroupId(*group)).entries, entries, "group {group}");
                }
                assert!(segments(&dir).len() <= TINY.segments + 1);
            }
        });
    }
}
