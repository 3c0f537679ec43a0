//! What the page knows: the folded view, the latest sample, and the state of its own connection.
//!
//! The view is folded outside the reactive graph, and then published piece by piece: each node has
//! signals of its own, and a signal is set only if its value changed. So what moves on the screen is
//! what changed in the cluster.
//!
//! What always holds: everything that the page shows of the replicated state is of one revision. The
//! store never decides whether something may be shown; [`crate::stream`] does, by [`crate::peers`].

use crate::{
    api::Api,
    browser,
    figures::{self, Figures, History},
    lock::Wanted,
    peers::{Peer, Position},
    situation::{self, Assessment, Connection, Situation},
    timeline::{self, Entry, Reign},
    traffic::Heard,
    var::Var,
};
use leptos::prelude::*;
use ringmaster_common::{
    Timestamp,
    cluster::{CanLose, Node, NodeStatus, Role, can_lose},
    event::EventBatch,
    id::{NodeId, OperationId, Revision},
    lock::{Lock, LockCounts},
    operation::Operation,
    page::Page,
    telemetry::{AgedReport, Sample},
    view::{ClusterView, Election},
};
use std::collections::VecDeque;

/// How many of the latest events the page holds.
pub const MAX_ENTRIES: usize = 400;
/// How many elections it holds.
const MAX_REIGNS: usize = 500;
/// How many revisions with events it fetches as it opens.
const FIRST_EVENTS: u32 = 400;
/// The page calls itself disconnected after this long without a message. Samples come twice a second.
pub const SILENCE_MS: u64 = 2_500;

/// The connection as the stream reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub phase: LinkPhase,
    /// Whom the page is connected to, or tries next.
    pub peer: Peer,
    /// The node that was heard last.
    pub node: Option<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPhase {
    Opening,
    Live,
    Lost,
}

/// A page of locks, as a node told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LocksShown {
    /// When any lock changed last.
    pub revision: Revision,
    pub items: Vec<Lock>,
    /// What the next page goes on behind.
    pub next: Option<String>,
    /// When it came, by the cluster's clock: what runs down does so from then on.
    pub heard: Timestamp,
}

/// One node's signals.
#[derive(Clone, Copy, Debug)]
pub struct NodeSignals {
    pub facts: Var<Node>,
    /// The node's own report; none where it is too old.
    pub report: Var<Option<AgedReport>>,
    pub lag: Var<Option<u64>>,
    pub rtt_us: Var<Option<u64>>,
    pub can_lose: Var<CanLose>,
}

impl NodeSignals {
    fn new(node: Node) -> Self {
        NodeSignals {
            facts: Var::new(node),
            report: Var::new(None),
            lag: Var::new(None),
            rtt_us: Var::new(None),
            can_lose: Var::new(CanLose { answer: false, reason: String::new() }),
        }
    }

    /// Whether the log calls it up and it is heard from too.
    pub fn is_up(self) -> bool {
        self.facts.with(|node| node.status == NodeStatus::Up) && self.report.with(Option::is_some)
    }

    pub fn role(self) -> Option<Role> {
        self.report.with(|aged| aged.as_ref().map(|aged| aged.report.role))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Store {
    pub api: Api,
    view: StoredValue<ClusterView>,
    nodes: StoredValue<Vec<(NodeId, NodeSignals)>>,
    pub loaded: Var<bool>,
    pub name: Var<String>,
    pub revision: Var<Revision>,
    pub elected: Var<Option<Election>>,
    pub node_ids: Var<Vec<NodeId>>,
    /// Newest first.
    pub operations: Var<Vec<Operation>>,
    /// The latest events, newest first, without gaps down to the oldest.
    pub entries: Var<VecDeque<Entry>>,
    /// What is news among all events that the page has seen, newest first.
    pub headlines: Var<Vec<Entry>>,
    /// The elections among all events that the page has seen, newest first.
    pub reigns: Var<Vec<Reign>>,
    /// The revision from which on all elections are known.
    pub reigns_since: Var<Option<u64>>,
    /// How many audit entries there have ever been.
    pub audit_count: Var<u64>,
    /// Grows when the history that is shown does not go on from what was shown before.
    pub restarts: Var<u32>,
    pub sample: Var<Option<Sample>>,
    /// How many locks there are, and of all that becomes of them.
    pub lock_counts: Var<LockCounts>,
    /// The page of locks that somebody looks at; the stream follows it.
    pub locks_wanted: Var<Option<Wanted>>,
    /// That page, as it was last heard of.
    pub locks: Var<Option<LocksShown>>,
    /// The upstream whose endpoints somebody looks at; the stream follows them.
    pub traffic_wanted: Var<Option<String>>,
    /// What the proxies of all nodes do.
    pub traffic: Var<Heard>,
    pub history: Var<History>,
    pub demo: Var<bool>,
    pub link: Var<Link>,
    pub latency_ms: Var<Option<f64>>,
    /// When anything was last heard, by this computer's clock.
    pub heard_at: Var<Option<Timestamp>>,
    /// The cluster's time of day, ticking.
    pub now: Var<Timestamp>,
    /// What to add to this computer's clock to get the cluster's, in milliseconds.
    clock_offset_ms: StoredValue<i64>,
    opened_at: Timestamp,
}

impl Store {
    pub fn new(api: Api, first: Peer) -> Self {
        Store {
            api,
            view: StoredValue::new(ClusterView::default()),
            nodes: StoredValue::new(Vec::new()),
            loaded: Var::new(false),
            name: Var::new(String::new()),
            revision: Var::new(Revision(0)),
            elected: Var::new(None),
            node_ids: Var::new(Vec::new()),
            operations: Var::new(Vec::new()),
            entries: Var::new(VecDeque::new()),
            headlines: Var::new(Vec::new()),
            reigns: Var::new(Vec::new()),
            reigns_since: Var::new(None),
            audit_count: Var::new(0),
            restarts: Var::new(0),
            sample: Var::new(None),
            lock_counts: Var::new(LockCounts::default()),
            locks_wanted: Var::new(None),
            locks: Var::new(None),
            traffic_wanted: Var::new(None),
            traffic: Var::new(Heard::default()),
            history: Var::new(History::default()),
            demo: Var::new(false),
            link: Var::new(Link { phase: LinkPhase::Opening, peer: first, node: None }),
            latency_ms: Var::new(None),
            heard_at: Var::new(None),
            now: Var::new(browser::now()),
            clock_offset_ms: StoredValue::new(0),
            opened_at: browser::now(),
        }
    }

    /// Where the history stands, if anything is known yet.
    pub fn position(self) -> Option<Position> {
        let known = self.loaded.get_untracked();
        known.then(|| {
            self.view.with_value(|view| Position { incarnation: view.incarnation, revision: view.revision })
        })
    }

    /// The id of the cluster that is shown.
    pub fn cluster(self) -> String {
        self.view.with_value(|view| view.id.clone())
    }

    /// The members' addresses, for the stream to go on with.
    pub fn with_members<T>(self, read: impl FnOnce(&mut dyn Iterator<Item = (NodeId, &str)>) -> T) -> T {
        self.view
            .with_value(|view| read(&mut view.nodes.values().map(|node| (node.id, node.public_url.as_str()))))
    }

    /// Reads the view, and runs again whenever its revision changes.
    pub fn with_view<T>(self, read: impl FnOnce(&ClusterView) -> T) -> T {
        self.revision.track();
        self.loaded.track();
        self.view.with_value(read)
    }

    /// A node's signals, for as long as it is a member.
    pub fn node(self, id: NodeId) -> Option<NodeSignals> {
        self.node_ids.track();
        self.nodes.with_value(|nodes| nodes.iter().find(|(known, _)| *known == id).map(|(_, node)| *node))
    }

    pub fn operation(self, id: OperationId) -> Option<Operation> {
        self.operations.with(|operations| operations.iter().find(|operation| operation.id == id).cloned())
    }

    /// Who leads now, by its own fresh report.
    pub fn leader(self) -> Option<NodeId> {
        self.sample.with(|sample| Some(figures::leader(sample.as_ref()?)?.report.node))
    }

    /// The address of a node other than `id` that is heard from: for what would take `id` away while
    /// it answers.
    pub fn address_besides(self, id: NodeId) -> Option<String> {
        untrack(|| {
            let others = self.node_ids.get().into_iter().filter(|other| *other != id);
            let up = others.filter_map(|other| self.node(other)).find(|node| node.is_up())?;
            Some(up.facts.with(|node| node.public_url.clone()))
        })
    }

    /// The voter that an example would hand the leadership to: up, not the leader, the least behind.
    pub fn successor(self) -> Option<NodeId> {
        let leader = self.leader();
        self.sample.with(|sample| {
            let sample = sample.as_ref()?;
            self.with_view(|view| {
                view.nodes
                    .values()
                    .filter(|node| {
                        node.voter && Some(node.id) != leader && figures::fresh(sample, node.id).is_some()
                    })
                    .min_by_key(|node| figures::lag(sample, node.id).unwrap_or(u64::MAX))
                    .map(|node| node.id)
            })
        })
    }

    /// Whether clicks can do anything at the moment.
    pub fn is_live(self) -> bool {
        self.link.with(|link| link.phase == LinkPhase::Live)
    }

    /// The connection, for people. A link that broke a moment ago is not worth an alarm: the page
    /// goes on with another node within that time, as a rule.
    pub fn connection(self) -> Connection {
        let now = self.now.get();
        let link = self.link.get();
        let label = link.peer.label();
        let to_local = |at: Timestamp| self.to_cluster_time(at);
        match (link.phase, self.heard_at.get()) {
            (LinkPhase::Live, _) => match link.node {
                Some(node) => Connection::Live { node },
                None => Connection::Opening { to: label },
            },
            (_, Some(heard)) if crate::format::age_ms(to_local(heard), now) < SILENCE_MS => {
                link.node.map_or(Connection::Opening { to: label }, |node| Connection::Live { node })
            }
            (_, Some(heard)) => Connection::Lost { since: to_local(heard), next: label },
            (_, None) if crate::format::age_ms(to_local(self.opened_at), now) < 2 * SILENCE_MS => {
                Connection::Opening { to: label }
            }
            (_, None) => Connection::NeverAnswered { next: label },
        }
    }

    pub fn assess(self) -> Assessment {
        let connection = self.connection();
        let now = self.now.get();
        self.sample.with(|sample| {
            self.with_view(|view| {
                situation::assess(&Situation {
                    connection: &connection,
                    view: self.loaded.get().then_some(view),
                    sample: sample.as_ref(),
                    now,
                    offset_minutes: browser::offset_minutes(now),
                })
            })
        })
    }

    /// The cluster's time, not in half seconds.
    pub fn exact_now(self) -> Timestamp {
        self.to_cluster_time(browser::now())
    }

    fn to_cluster_time(self, at: Timestamp) -> Timestamp {
        Timestamp::from_millisecond(at.as_millisecond() + self.clock_offset_ms.get_value()).unwrap_or(at)
    }

    /// Lets time pass. What is shown of it moves in half seconds.
    pub fn tick(self) {
        let now = self.exact_now().as_millisecond();
        set(self.now, Timestamp::from_millisecond(now - now.rem_euclid(500)).unwrap_or_default());
    }

    /// Something was heard.
    pub fn heard(self) {
        self.heard_at.set(Some(browser::now()));
    }

    pub fn replace_view(self, view: ClusterView) {
        // Events between the old view and this one are missing: the list starts anew from here.
        let continues = self
            .position()
            .is_some_and(|shown| shown.incarnation == view.incarnation && shown.revision == view.revision)
            && self.cluster() == view.id;
        self.view.set_value(view);
        if !continues {
            self.entries.set(VecDeque::new());
            self.headlines.set(Vec::new());
            self.reigns.set(Vec::new());
            self.reigns_since.set(None);
        }
        self.loaded.set(true);
        self.publish();
        if !continues {
            self.restarts.update(|restarts| *restarts += 1);
            self.fetch_entries();
        }
    }

    pub fn fold(self, batch: &EventBatch) {
        self.view.update_value(|view| view.fold(batch));
        let mut new: Vec<Entry> = timeline::entries(batch).collect();
        new.reverse();
        if new.iter().any(|entry| entry.is_headline) {
            self.headlines.update(|headlines| {
                new.iter().for_each(|entry| timeline::add_newer(headlines, entry.clone()));
            });
        }
        let reigns: Vec<Reign> = timeline::reigns(batch).collect();
        if !reigns.is_empty() {
            self.reigns.update(|known| known.splice(0..0, reigns).for_each(drop));
        }
        self.entries.update(|entries| {
            new.into_iter().for_each(|entry| entries.push_front(entry));
            entries.truncate(MAX_ENTRIES);
        });
        self.publish();
    }

    /// The first revision that the stream is still to bring. An answer may be ahead of the stream, and
    /// what is in both would be there twice.
    fn not_yet_streamed(self) -> u64 {
        self.revision.get_untracked().0 + 1
    }

    /// Takes in what the history says of elections before the ones that are known.
    pub fn learn_reigns(self, page: &Page<EventBatch>) {
        let known = self.reigns.with_untracked(|known| known.last().map(|last| last.revision));
        let before = known.unwrap_or_else(|| self.not_yet_streamed());
        let older = page.items.iter().filter(|batch| batch.revision.0 < before);
        let older: Vec<Reign> = older.flat_map(timeline::reigns).collect();
        self.reigns.update(|reigns| {
            reigns.extend(older);
            reigns.truncate(MAX_REIGNS);
        });
        // Before the last page there is nothing.
        let oldest = page.next.as_ref().and(page.items.last()).map_or(0, |batch| batch.revision.0);
        set(self.reigns_since, Some(oldest));
    }

    /// Fetches the events before the ones that are streamed.
    fn fetch_entries(self) {
        leptos::task::spawn_local(async move {
            // Where it fails, the list shows what is streamed; the events page says what went wrong.
            let Ok(page) = self.api.events(None, FIRST_EVENTS).await else { return };
            self.learn_reigns(&page);
            let known = self.entries.with_untracked(|entries| entries.back().map(|oldest| oldest.revision));
            let before = known.unwrap_or_else(|| self.not_yet_streamed());
            let older = page.items.iter().filter(|batch| batch.revision.0 < before);
            let older: Vec<Entry> = older.flat_map(timeline::entries).collect();
            self.headlines.update(|headlines| {
                older.iter().for_each(|entry| timeline::add_older(headlines, entry.clone()));
            });
            self.entries.update(|entries| {
                entries.extend(older);
                entries.truncate(MAX_ENTRIES);
            });
        });
    }

    pub fn take_locks(self, revision: Revision, page: Page<Lock>) {
        let shown = LocksShown { revision, items: page.items, next: page.next, heard: self.exact_now() };
        self.locks.set(Some(shown));
    }

    pub fn take_sample(self, sample: Sample, locks: LockCounts) {
        set(self.lock_counts, locks);
        self.clock_offset_ms.set_value(sample.at.as_millisecond() - browser::now().as_millisecond());
        let leader = figures::leader(&sample).map(|leader| leader.report.node);
        self.history.update(|history| history.push(Figures::of(&sample), leader));
        self.sample.set(Some(sample));
        self.publish_telemetry();
        self.tick();
    }

    /// Sets what changed in the view.
    fn publish(self) {
        self.view.with_value(|view| {
            set(self.name, view.name.clone());
            set(self.elected, view.elected.clone());
            set(self.audit_count, view.audit_count);
            set(self.operations, view.operations.values().rev().cloned().collect());
            self.nodes.update_value(|nodes| {
                nodes.retain(|(id, _)| view.nodes.get(id).is_some());
                for node in view.nodes.values() {
                    match nodes.iter().find(|(id, _)| *id == node.id) {
                        Some((_, signals)) => set(signals.facts, node.clone()),
                        None => nodes.push((node.id, NodeSignals::new(node.clone()))),
                    }
                }
            });
            set(self.node_ids, view.nodes.keys().copied().collect());
            set(self.revision, view.revision);
        });
        self.publish_telemetry();
    }

    /// Sets what changed in what is measured.
    fn publish_telemetry(self) {
        let leader = untrack(|| self.leader());
        self.view.with_value(|view| {
            self.nodes.with_value(|nodes| {
                self.sample.with_untracked(|sample| {
                    let heard = heard_now(view, sample.as_ref());
                    let reports = sample.as_ref().map_or(&[][..], |sample| &sample.nodes);
                    for (id, signals) in nodes {
                        set(signals.can_lose, can_lose(*id, heard.iter(), leader, reports));
                        let Some(sample) = sample else { continue };
                        set(signals.report, figures::fresh(sample, *id).cloned());
                        set(signals.lag, figures::lag(sample, *id));
                        set(signals.rtt_us, figures::rtt_us(sample, *id));
                    }
                });
            });
        });
    }
}

/// The members as the log has them, but for those that it still calls up while nothing is heard from
/// them: without a quorum it cannot say better.
fn heard_now(view: &ClusterView, sample: Option<&Sample>) -> Vec<Node> {
    let silent = |id| sample.is_some_and(|sample| figures::fresh(sample, id).is_none());
    let mut nodes: Vec<Node> = view.nodes.values().cloned().collect();
    for node in nodes.iter_mut().filter(|node| node.status == NodeStatus::Up && silent(node.id)) {
        node.status = NodeStatus::Suspect;
    }
    nodes
}

/// Sets a signal if that changes it. A socket's callback may outlive the page, so it only tries.
pub fn set<T: PartialEq + Send + Sync + 'static>(signal: Var<T>, value: T) {
    if signal.try_with_untracked(|known| *known != value) == Some(true) {
        signal.set(value);
    }
}

pub fn use_store() -> Store {
    expect_context::<Store>()
}
