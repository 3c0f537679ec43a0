//! The choice of the node that the page streams from.
//!
//! Two rules, kept apart from the socket so that they can be tested: [`Peers`] chooses the next node to try and
//! the time until then, and [`judge_view`] and [`judge_events`] say whether what arrived continues what the page shows.
//!
//! What always holds: the page never goes backwards. An older state than the one shown is refused, and at a gap the
//! page asks for a fresh view.

use ringmaster_common::id::{Incarnation, NodeId, Revision};
use std::time::Duration;

/// The wait before the second attempt; each further round of all nodes doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The wait never grows beyond this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A node that may serve the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Unknown until it said so, for the address that the page itself came from.
    pub node: Option<NodeId>,
    /// Scheme, host and port, without a slash at the end.
    pub url: String,
}

impl Peer {
    pub fn new(node: Option<NodeId>, url: &str) -> Self {
        Peer { node, url: url.trim_end_matches('/').to_owned() }
    }

    /// Its name in a sentence.
    pub fn label(&self) -> String {
        match self.node {
            Some(node) => format!("node {node}"),
            None => self.url.split("://").last().unwrap_or(&self.url).to_owned(),
        }
    }
}

/// Peers as one line of text, for the tab to remember.
pub fn to_text(peers: &[Peer]) -> String {
    let words = peers.iter().filter_map(|peer| Some(format!("{} {}", peer.node?, peer.url)));
    words.collect::<Vec<_>>().join(" ")
}

/// Reads the text of [`to_text`]. Invalid entries are left out.
pub fn from_text(text: &str) -> Vec<Peer> {
    let words: Vec<&str> = text.split(' ').collect();
    let peer = |pair: &[&str]| Some(Peer::new(Some(pair[0].parse().ok()?), pair[1]));
    words.chunks_exact(2).filter_map(peer).collect()
}

/// All nodes that may serve the stream, and the one whose turn it is.
#[derive(Clone, Debug)]
pub struct Peers {
    list: Vec<Peer>,
    turn: usize,
    failures: u32,
}

impl Peers {
    /// The page's own origin first, then the nodes that an earlier page of this tab knew.
    pub fn new(origin: &str, remembered: Vec<Peer>) -> Self {
        let mut list = vec![Peer::new(None, origin)];
        for peer in remembered {
            if !list.iter().any(|known| known.url == peer.url) {
                list.push(peer);
            }
        }
        Peers { list, turn: 0, failures: 0 }
    }

    pub fn current(&self) -> &Peer {
        &self.list[self.turn]
    }

    pub fn all(&self) -> &[Peer] {
        &self.list
    }

    /// The current one has said who it is.
    pub fn identify(&mut self, node: NodeId) {
        self.list[self.turn].node = Some(node);
    }

    /// The current one serves the stream.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Takes over the members' addresses. The current one stays, under the address that works from
    /// here, and so does the page's own origin, which may be a proxy in front of all of them.
    pub fn learn<'a>(&mut self, members: impl Iterator<Item = (NodeId, &'a str)>) {
        let current = self.current().clone();
        let mut list = vec![self.list[0].clone()];
        for (node, url) in members {
            let mut peer = Peer::new(Some(node), url);
            if current.node == Some(node) {
                peer = current.clone();
            }
            if let Some(known) = list.iter_mut().find(|known| known.url == peer.url) {
                known.node = Some(node);
            } else if !peer.url.is_empty() && !list.iter().any(|known| known.node == Some(node)) {
                list.push(peer);
            }
        }
        if !list.iter().any(|peer| peer.url == current.url) {
            list.push(current.clone());
        }
        self.turn = list.iter().position(|peer| peer.url == current.url).unwrap_or(0);
        self.list = list;
    }

    /// The current one failed: it is the next one's turn, after this wait. `random` lies in 0..1 and
    /// keeps the pages of many browsers from coming back all at once.
    pub fn fail(&mut self, random: f64) -> Duration {
        self.turn = (self.turn + 1) % self.list.len();
        let round = self.failures / u32::try_from(self.list.len()).unwrap_or(1);
        self.failures = self.failures.saturating_add(1);
        let wait = FIRST_WAIT.saturating_mul(1 << round.min(10)).min(LONGEST_WAIT);
        wait.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// The current one named a better one.
    pub fn prefer(&mut self, url: &str) {
        let url = url.trim_end_matches('/');
        if let Some(turn) = self.list.iter().position(|peer| peer.url == url) {
            self.turn = turn;
        }
    }
}

/// Where a history stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub incarnation: Incarnation,
    pub revision: Revision,
}

/// The decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// Known already.
    Ignore,
    /// Something is missing in between: ask this node for a fresh view.
    Gap,
    /// This node is behind the page: ask another.
    Behind,
}

/// Whether a whole view may replace what is shown.
pub fn judge_view(shown: Option<Position>, view: Position) -> Verdict {
    match shown {
        Some(shown) if view.incarnation < shown.incarnation => Verdict::Behind,
        Some(shown) if view.incarnation == shown.incarnation && view.revision < shown.revision => {
            Verdict::Behind
        }
        _ => Verdict::Accept,
    }
}

/// Whether the events of `revision`, which follow those of `prev`, continue what is shown.
pub fn judge_events(shown: Option<Position>, prev: Revision, revision: Revision) -> Verdict {
    match shown {
        Some(shown) if revision <= shown.revision => Verdict::Ignore,
        Some(shown) if prev == shown.revision => Verdict::Accept,
        _ => Verdict::Gap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [(NodeId, &str); 3] =
        [(NodeId(1), "http://h:7701/"), (NodeId(2), "http://h:7702"), (NodeId(3), "http://h:7703")];

    fn at(incarnation: u64, revision: u64) -> Position {
        Position { incarnation: Incarnation(incarnation), revision: Revision(revision) }
    }

    #[test]
    fn every_member_gets_its_turn() {
        let mut peers = Peers::new("http://h:7702", Vec::new());
        peers.learn(MEMBERS.into_iter());
        let turns: Vec<String> = (0..4)
            .map(|_| {
                let label = peers.current().label();
                peers.fail(0.5);
                label
            })
            .collect();
        assert_eq!(turns, ["node 2", "node 1", "node 3", "node 2"]);
    }

    #[test]
    fn an_address_that_works_stays_even_if_the_member_names_another() {
        let mut peers = Peers::new("http://localhost:7701", Vec::new());
        peers.identify(NodeId(1));
        peers.learn(MEMBERS.into_iter());
        assert_eq!(peers.current().url, "http://localhost:7701");
        assert_eq!(peers.all().len(), 3, "node 1 is not listed twice: {peers:?}");
    }

    #[test]
    fn the_current_one_survives_what_is_learnt() {
        let mut peers = Peers::new("http://h:7701", Vec::new());
        peers.learn(MEMBERS.into_iter());
        peers.fail(0.0);
        peers.learn(MEMBERS.into_iter().take(2));
        assert_eq!(peers.current().label(), "node 2");
    }

    #[test]
    fn waits_grow_by_rounds_and_are_bounded() {
        let mut peers = Peers::new("http://h:7701", Vec::new());
        peers.learn(MEMBERS.into_iter());
        let waits: Vec<Duration> = (0..60).map(|_| peers.fail(1.0)).collect();
        assert_eq!(waits[..3], [FIRST_WAIT; 3]);
        assert_eq!(waits[3], FIRST_WAIT * 2);
        assert_eq!(waits[59], LONGEST_WAIT);
        peers.succeed();
        assert_eq!(peers.fail(0.0), FIRST_WAIT / 2, "success forgets the failures");
    }

    #[test]
    fn a_better_node_is_taken_if_it_is_known() {
        let mut peers = Peers::new("http://h:7701", Vec::new());
        peers.learn(MEMBERS.into_iter());
        peers.prefer("http://h:7703/");
        assert_eq!(peers.current().label(), "node 3");
        peers.prefer("http://elsewhere:1");
        assert_eq!(peers.current().label(), "node 3");
    }

    #[test]
    fn a_tab_remembers_the_members() {
        let mut peers = Peers::new("http://h:7701", Vec::new());
        peers.identify(NodeId(1));
        peers.learn(MEMBERS.into_iter());
        assert_eq!(from_text(&to_text(peers.all())), peers.all());
        assert_eq!(from_text("x http://h:1 2"), []);
        assert_eq!(from_text(""), []);
    }

    #[test]
    fn the_page_never_goes_backwards() {
        assert_eq!(judge_view(None, at(1, 5)), Verdict::Accept);
        assert_eq!(judge_view(Some(at(1, 5)), at(1, 5)), Verdict::Accept);
        assert_eq!(judge_view(Some(at(1, 5)), at(1, 4)), Verdict::Behind);
        assert_eq!(judge_view(Some(at(2, 5)), at(1, 9)), Verdict::Behind);
        assert_eq!(judge_view(Some(at(1, 5)), at(2, 1)), Verdict::Accept);
    }

    #[test]
    fn a_gap_is_seen() {
        let shown = Some(at(1, 5));
        assert_eq!(judge_events(shown, Revision(5), Revision(8)), Verdict::Accept);
        assert_eq!(judge_events(shown, Revision(4), Revision(5)), Verdict::Ignore);
        assert_eq!(judge_events(shown, Revision(6), Revision(8)), Verdict::Gap);
        assert_eq!(judge_events(None, Revision(0), Revision(1)), Verdict::Gap);
    }
}
