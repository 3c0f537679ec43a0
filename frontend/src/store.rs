//! The state of the page: the folded view, the latest sample, and its own connection.
//!
//! The view is folded outside the reactive graph, and then published piece by piece: each node has
//! signals of its own, and a signal is set only if its value changed, so that only changes of the cluster redraw
//! the page.
//!
//! What always holds: everything that the page shows of the replicated state is of one revision. The
//! store never decides whether something may be shown; the stream does, by the rules of [`crate::peers`].

use crate::{
    api::Api,
    browser,
    cluster_summary::{self, ClusterSummary, Connection, SummaryInput},
    leadership::{self, ShownRole},
    lock::LockFilter,
    metrics::{self, ClusterMetrics, History},
    peers::{Peer, Position},
    signal::set,
    timeline::{self, Entry, LeadershipTerm},
    traffic::TrafficHistory,
};
use leptos::prelude::*;
use ringmaster_common::{
    Timestamp,
    cluster::{CanLose, Node, NodeStatus, Quorum, can_lose_now},
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
const MAX_LEADERSHIP_TERMS: usize = 500;
/// How many revisions with events it fetches as it opens.
const FIRST_EVENTS: u32 = 400;
/// The page calls itself disconnected after this long without a message. Samples come twice a second.
pub const SILENCE_MS: u64 = 2_500;
/// A message that is this late is worth a word.
const LATE_MS: u64 = 1_200;

/// The connection as the stream reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub phase: LinkPhase,
    /// The node that the page is connected to, or tries next.
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

/// A page of locks, as received from the node.
#[derive(Clone, Debug, PartialEq)]
pub struct LockPage {
    /// When any lock changed last.
    pub revision: Revision,
    pub items: Vec<Lock>,
    /// The cursor of the next page.
    pub next: Option<String>,
    /// When it came, by the cluster's clock: what runs down does so from then on.
    pub heard: Timestamp,
}

/// One node's signals.
#[derive(Clone, Copy, Debug)]
pub struct NodeSignals {
    pub facts: RwSignal<Node>,
    /// The node's own report; none where it is too old.
    pub report: RwSignal<Option<AgedReport>>,
    pub lag: RwSignal<Option<u64>>,
    pub rtt_us: RwSignal<Option<u64>>,
    pub role: RwSignal<ShownRole>,
    /// How long no other node has heard from it, and the observer that heard it last.
    pub silence: RwSignal<Option<(u64, NodeId)>>,
    pub can_lose: RwSignal<CanLose>,
}

impl NodeSignals {
    fn new(node: Node) -> Self {
        NodeSignals {
            facts: RwSignal::new(node),
            report: RwSignal::new(None),
            lag: RwSignal::new(None),
            rtt_us: RwSignal::new(None),
            role: RwSignal::new(ShownRole::default()),
            silence: RwSignal::new(None),
            can_lose: RwSignal::new(CanLose { answer: false, reason: String::new() }),
        }
    }

    /// Whether the log calls it up and it is heard from too.
    pub fn is_up(self) -> bool {
        self.facts.with(|node| node.status == NodeStatus::Up) && self.report.with(Option::is_some)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Store {
    pub api: Api,
    view: StoredValue<ClusterView>,
    nodes: StoredValue<Vec<(NodeId, NodeSignals)>>,
    pub loaded: RwSignal<bool>,
    pub name: RwSignal<String>,
    pub revision: RwSignal<Revision>,
    pub elected: RwSignal<Option<Election>>,
    pub node_ids: RwSignal<Vec<NodeId>>,
    /// Newest first.
    pub operations: RwSignal<Vec<Operation>>,
    /// The latest events, newest first, without gaps down to the oldest.
    pub entries: RwSignal<VecDeque<Entry>>,
    /// The headlines among all events that the page has received, newest first.
    pub headlines: RwSignal<Vec<Entry>>,
    /// The elections among all events that the page has seen, newest first.
    pub leadership_terms: RwSignal<Vec<LeadershipTerm>>,
    /// The revision from which on all elections are known.
    pub leadership_terms_since: RwSignal<Option<u64>>,
    /// How many audit entries there have ever been.
    pub audit_count: RwSignal<u64>,
    /// Grows when the history starts anew instead of continuing.
    pub restarts: RwSignal<u32>,
    pub sample: RwSignal<Option<Sample>>,
    /// The counters of all locks.
    pub lock_counts: RwSignal<LockCounts>,
    /// The page of locks that is shown; the stream follows it.
    pub locks_wanted: RwSignal<Option<LockFilter>>,
    /// That page, as last received.
    pub locks: RwSignal<Option<LockPage>>,
    /// The upstream whose endpoints are shown; the stream follows them.
    pub traffic_wanted: RwSignal<Option<String>>,
    /// The traffic of all nodes' proxies.
    pub traffic: RwSignal<TrafficHistory>,
    pub history: RwSignal<History>,
    pub demo: RwSignal<bool>,
    pub link: RwSignal<Link>,
    /// Whether nothing has come from any node for a while, as looked at with each tick.
    disconnected: RwSignal<bool>,
    pub latency_ms: RwSignal<Option<f64>>,
    /// When anything was last heard, by this computer's clock.
    pub heard_at: RwSignal<Option<Timestamp>>,
    /// When the quorum was lost, while there is none and the moment is known.
    pub no_quorum_since: RwSignal<Option<Timestamp>>,
    /// Whether too few voters answer for a write.
    pub without_quorum: RwSignal<bool>,
    /// The cluster's time of day, ticking while the page is connected.
    pub now: RwSignal<Timestamp>,
    /// The same, ticking always: for what is said of the page itself.
    page_now: RwSignal<Timestamp>,
    /// The offset of the cluster's clock from this computer's, in milliseconds.
    clock_offset_ms: StoredValue<i64>,
    opened_at: Timestamp,
}

impl Store {
    pub fn new(api: Api, first: Peer) -> Self {
        Store {
            api,
            view: StoredValue::new(ClusterView::default()),
            nodes: StoredValue::new(Vec::new()),
            loaded: RwSignal::new(false),
            name: RwSignal::new(String::new()),
            revision: RwSignal::new(Revision(0)),
            elected: RwSignal::new(None),
            node_ids: RwSignal::new(Vec::new()),
            operations: RwSignal::new(Vec::new()),
            entries: RwSignal::new(VecDeque::new()),
            headlines: RwSignal::new(Vec::new()),
            leadership_terms: RwSignal::new(Vec::new()),
            leadership_terms_since: RwSignal::new(None),
            audit_count: RwSignal::new(0),
            restarts: RwSignal::new(0),
            sample: RwSignal::new(None),
            lock_counts: RwSignal::new(LockCounts::default()),
            locks_wanted: RwSignal::new(None),
            locks: RwSignal::new(None),
            traffic_wanted: RwSignal::new(None),
            traffic: RwSignal::new(TrafficHistory::default()),
            history: RwSignal::new(History::default()),
            demo: RwSignal::new(false),
            link: RwSignal::new(Link { phase: LinkPhase::Opening, peer: first, node: None }),
            disconnected: RwSignal::new(false),
            latency_ms: RwSignal::new(None),
            heard_at: RwSignal::new(None),
            no_quorum_since: RwSignal::new(None),
            without_quorum: RwSignal::new(false),
            now: RwSignal::new(browser::now()),
            page_now: RwSignal::new(browser::now()),
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

    /// The members' addresses, for reconnecting.
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

    /// The leader that a majority of the voters confirms, and its term. None while the page is disconnected: an old
    /// leader is not the leader of now.
    pub fn leadership(self) -> Option<(NodeId, u64)> {
        if self.is_disconnected() {
            return None;
        }
        self.sample.with(|sample| {
            let leader = self.with_view(|view| leadership::leader(view, sample.as_ref()?))?;
            Some((leader.report.node, leader.report.term))
        })
    }

    /// The leader that a majority of the voters confirms.
    pub fn leader(self) -> Option<NodeId> {
        self.leadership().map(|(leader, _)| leader)
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
                        node.voter && Some(node.id) != leader && metrics::fresh(sample, node.id).is_some()
                    })
                    .min_by_key(|node| metrics::lag(view, sample, node.id).unwrap_or(u64::MAX))
                    .map(|node| node.id)
            })
        })
    }

    /// Whether clicks can do anything at the moment.
    pub fn is_live(self) -> bool {
        self.link.with(|link| link.phase == LinkPhase::Live)
    }

    /// Why nothing can be planned now, if that is so.
    pub fn cannot_plan(self) -> Option<&'static str> {
        if !self.is_live() {
            Some("The page is not connected to any node")
        } else if self.without_quorum.get() {
            Some("No quorum: nothing can be planned or written")
        } else {
            None
        }
    }

    /// Whether the state that is shown is out of date.
    pub fn is_disconnected(self) -> bool {
        self.disconnected.get()
    }

    /// How long nothing has come from the node that the page streams from, where that is longer than usual.
    pub fn silent_ms(self) -> Option<u64> {
        let heard = self.to_cluster_time(self.heard_at.get()?);
        let silent = crate::format::age_ms(heard, self.page_now.get());
        (silent >= LATE_MS).then_some(silent)
    }

    /// The connection, for people. A link that broke a moment ago is not worth an alarm: the page
    /// usually continues with another node within that time.
    pub fn connection(self) -> Connection {
        let now = self.page_now.get();
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

    pub fn summarize(self) -> ClusterSummary {
        let connection = self.connection();
        let now = self.now.get();
        let (traffic, elections) = (self.traffic.read(), self.leadership_terms.read());
        self.sample.with(|sample| {
            self.with_view(|view| {
                cluster_summary::summarize(&SummaryInput {
                    connection: &connection,
                    view: self.loaded.get().then_some(view),
                    sample: sample.as_ref(),
                    traffic: &traffic,
                    elections: &elections,
                    no_quorum_since: self.no_quorum_since.get(),
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

    /// Advances the time of the page, in half seconds. The cluster's time stops while the page is disconnected, so
    /// that nothing counts on of which nothing is known.
    pub fn tick(self) {
        let now = self.exact_now().as_millisecond();
        let now = Timestamp::from_millisecond(now - now.rem_euclid(500)).unwrap_or_default();
        set(self.page_now, now);
        let connection = untrack(|| self.connection());
        let lost = matches!(connection, Connection::Lost { .. } | Connection::NeverAnswered { .. });
        set(self.disconnected, lost);
        if !lost {
            set(self.now, now);
        }
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
            self.leadership_terms.set(Vec::new());
            self.leadership_terms_since.set(None);
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
        let leadership_terms: Vec<LeadershipTerm> = timeline::leadership_terms(batch).collect();
        if !leadership_terms.is_empty() {
            self.leadership_terms.update(|known| known.splice(0..0, leadership_terms).for_each(drop));
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
    pub fn learn_leadership_terms(self, page: &Page<EventBatch>) {
        let known = self.leadership_terms.with_untracked(|known| known.last().map(|last| last.revision));
        let before = known.unwrap_or_else(|| self.not_yet_streamed());
        let older = page.items.iter().filter(|batch| batch.revision.0 < before);
        let older: Vec<LeadershipTerm> = older.flat_map(timeline::leadership_terms).collect();
        self.leadership_terms.update(|leadership_terms| {
            leadership_terms.extend(older);
            leadership_terms.truncate(MAX_LEADERSHIP_TERMS);
        });
        // Before the last page there is nothing.
        let oldest = page.next.as_ref().and(page.items.last()).map_or(0, |batch| batch.revision.0);
        set(self.leadership_terms_since, Some(oldest));
    }

    /// Fetches the events before the ones that are streamed.
    fn fetch_entries(self) {
        leptos::task::spawn_local(async move {
            // Where it fails, the list shows what is streamed; the events page says what went wrong.
            let Ok(page) = self.api.events(None, FIRST_EVENTS).await else { return };
            self.learn_leadership_terms(&page);
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
        let shown = LockPage { revision, items: page.items, next: page.next, heard: self.exact_now() };
        self.locks.set(Some(shown));
    }

    pub fn take_sample(self, sample: Sample, locks: LockCounts) {
        set(self.lock_counts, locks);
        self.clock_offset_ms.set_value(sample.at.as_millisecond() - browser::now().as_millisecond());
        self.view.with_value(|view| {
            let leader = leadership::leader(view, &sample).map(|leader| leader.report.node);
            self.history.update(|history| history.push(ClusterMetrics::of(view, &sample), leader));
            // The moment is measured again with each sample, and differs by a little: the first one counts.
            let lost = self.loaded.get_untracked() && leadership::is_without_quorum(view, &sample);
            let known = self.no_quorum_since.get_untracked().filter(|_| lost);
            let since = known.or_else(|| leadership::quorum_lost_at(view, &sample).filter(|_| lost));
            set(self.no_quorum_since, since);
            set(self.without_quorum, lost);
        });
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
                    let losses = losses(view, sample.as_ref(), leader);
                    for (id, signals) in nodes {
                        set(signals.can_lose, losses(*id));
                        let Some(sample) = sample else { continue };
                        set(signals.report, metrics::fresh(sample, *id).cloned());
                        set(signals.lag, metrics::lag(view, sample, *id));
                        set(signals.role, leadership::shown_role(view, sample, *id));
                        set(signals.silence, leadership::silence(sample, *id));
                        set(signals.rtt_us, metrics::rtt_us(sample, *id));
                    }
                });
            });
        });
    }
}

/// Whether the cluster can do without each member.
fn losses<'a>(
    view: &'a ClusterView,
    sample: Option<&'a Sample>,
    leader: Option<NodeId>,
) -> impl Fn(NodeId) -> CanLose + use<'a> {
    let (reports, quorum) = match sample {
        Some(sample) => (&sample.nodes[..], leadership::quorum(view, sample)),
        // Before the first measurement nothing is known to be silent.
        None => (&[][..], Quorum { has: true, ..Quorum::default() }),
    };
    let answers = move |id| sample.is_none_or(|sample| metrics::fresh(sample, id).is_some());
    move |id| can_lose_now(id, view.nodes.values(), &quorum, leader, reports, answers)
}

pub fn use_store() -> Store {
    expect_context::<Store>()
}
