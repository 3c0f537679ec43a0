//! What peers remember of this replica from before it started: how far it had come.
//!
//! A replica that has lost entries does not know it, and a peer that does may be the one to ask for its vote first. So,
//! for a while after its start, it votes for a peer only after that peer's first report, and does not campaign while a
//! peer to which it is connected has not reported.

use ringmaster_common::id::NodeId;
use ringmaster_net::clock;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long reports are waited for. A peer reports as soon as it is connected.
const REPORTED_WITHIN: Duration = Duration::from_secs(1);

/// Of one replica. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Remembered(Arc<watch::Sender<Reports>>);

#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// None where peers do not report.
    until: Option<Instant>,
    from: BTreeSet<NodeId>,
    /// Whether nothing that is heard is enough.
    abstains: bool,
}

impl Remembered {
    /// Peers report from now on.
    pub fn expect(&self) {
        self.expect_within(REPORTED_WITHIN);
    }

    pub(crate) fn expect_within(&self, within: Duration) {
        self.0.send_modify(|reports| reports.until = Some(clock::now() + within));
    }

    /// This peer has reported, and all that it remembers is known here.
    pub fn reported_by(&self, peer: NodeId) {
        self.0.send_if_modified(|reports| reports.from.insert(peer));
    }

    /// While it abstains, this replica neither votes nor campaigns, whatever peers report: the cluster may have been
    /// recovered without it.
    pub fn abstain(&self, abstains: bool) {
        self.0.send_if_modified(|reports| std::mem::replace(&mut reports.abstains, abstains) != abstains);
    }

    pub fn is_awaited_from(&self, peer: NodeId) -> bool {
        let reports = self.0.borrow();
        reports.abstains
            || reports.until.is_some_and(|until| clock::now() < until) && !reports.from.contains(&peer)
    }

    /// Waits until a peer has reported, or the time for it is over. False once nothing is to come.
    pub async fn changed(&self, reports: &mut watch::Receiver<Reports>) -> bool {
        // It stays unseen: what came since the last look is a change.
        let until = reports.borrow().until;
        let Some(until) = until else { return reports.changed().await.is_ok() };
        if until <= clock::now() {
            return reports.changed().await.is_ok();
        }
        tokio::select! {
            changed = reports.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(until.into()) => true,
        }
    }

    pub fn watch(&self) -> watch::Receiver<Reports> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_awaited_for_a_while() {
        let (remembered, [first, second]) = (Remembered::default(), [2, 3].map(NodeId));
        assert!(!remembered.is_awaited_from(first), "where peers do not report");
        remembered.expect_within(Duration::from_secs(600));
        assert!(remembered.is_awaited_from(first) && remembered.is_awaited_from(second));
        remembered.reported_by(first);
        assert!(!remembered.is_awaited_from(first) && remembered.is_awaited_from(second));
        remembered.expect_within(Duration::ZERO);
        assert!(!remembered.is_awaited_from(second), "the time is over");
        remembered.abstain(true);
        assert!(remembered.is_awaited_from(first) && remembered.is_awaited_from(second));
        remembered.abstain(false);
        assert!(!remembered.is_awaited_from(first));
    }
}
