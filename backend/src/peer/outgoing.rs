//! The queue of frames that wait to be written to one connection: two lanes, both bounded.
//!
//! Putting a frame in never waits: a full lane refuses. So whoever puts frames in one after the
//! other gets them onto the wire in that order, lane by lane.

use super::{MAX_QUEUED_BULK, MAX_QUEUED_BULK_BYTES, MAX_QUEUED_URGENT, frame::Lane};
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::mpsc;

/// The end that frames are put into.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    urgent: mpsc::Sender<Bytes>,
    bulk: mpsc::Sender<Bytes>,
    bulk_bytes: Arc<AtomicUsize>,
}

/// The end that the connection writes from.
#[derive(Debug)]
pub(super) struct Queue {
    urgent: mpsc::Receiver<Bytes>,
    bulk: mpsc::Receiver<Bytes>,
    bulk_bytes: Arc<AtomicUsize>,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PushError {
    Full,
    Closed,
}

pub(super) fn queue() -> (Outgoing, Queue) {
    let (urgent_in, urgent) = mpsc::channel(MAX_QUEUED_URGENT);
    let (bulk_in, bulk) = mpsc::channel(MAX_QUEUED_BULK);
    let bulk_bytes = Arc::new(AtomicUsize::new(0));
    let outgoing = Outgoing { urgent: urgent_in, bulk: bulk_in, bulk_bytes: Arc::clone(&bulk_bytes) };
    (outgoing, Queue { urgent, bulk, bulk_bytes })
}

impl Outgoing {
    pub(super) fn push(&self, lane: Lane, frame: Bytes) -> Result<(), PushError> {
        let pushed = match lane {
            Lane::Urgent => self.urgent.try_send(frame),
            Lane::Bulk => {
                let size = frame.len();
                let before = self.bulk_bytes.fetch_add(size, Ordering::Relaxed);
                if before + size > MAX_QUEUED_BULK_BYTES {
                    self.bulk_bytes.fetch_sub(size, Ordering::Relaxed);
                    return Err(PushError::Full);
                }
                let pushed = self.bulk.try_send(frame);
                if pushed.is_err() {
                    self.bulk_bytes.fetch_sub(size, Ordering::Relaxed);
                }
                pushed
            }
        };
        pushed.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PushError::Full,
            mpsc::error::TrySendError::Closed(_) => PushError::Closed,
        })
    }
}

impl Queue {
    /// Waits for a frame; none once nobody can put one in.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            Some(frame) = self.urgent.recv() => Some(frame),
            Some(frame) = self.bulk.recv() => Some(self.taken(frame)),
            else => None,
        }
    }

    /// The next frame, if one is there.
    pub(super) fn try_next(&mut self) -> Option<Bytes> {
        if let Ok(frame) = self.urgent.try_recv() {
            return Some(frame);
        }
        let frame = self.bulk.try_recv().ok()?;
        Some(self.taken(frame))
    }

    fn taken(&self, frame: Bytes) -> Bytes {
        self.bulk_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urgent_frames_go_first_and_each_lane_keeps_its_order() {
        let (outgoing, mut queue) = queue();
        for (lane, frame) in
            [(Lane::Bulk, "b1"), (Lane::Bulk, "b2"), (Lane::Urgent, "u1"), (Lane::Urgent, "u2")]
        {
            outgoing.push(lane, Bytes::from_static(frame.as_bytes())).unwrap();
        }
        drop(outgoing);
        let mut order = Vec::new();
        while let Some(frame) = queue.next().await {
            order.push(frame);
        }
        assert_eq!(order, ["u1", "u2", "b1", "b2"]);
    }

    #[test]
    fn lanes_are_bounded_apart() {
        let (outgoing, mut queue) = queue();
        let frame = Bytes::from_static(b"x");
        for _ in 0..MAX_QUEUED_BULK {
            outgoing.push(Lane::Bulk, frame.clone()).unwrap();
        }
        assert_eq!(outgoing.push(Lane::Bulk, frame.clone()), Err(PushError::Full));
        for _ in 0..MAX_QUEUED_URGENT {
            outgoing.push(Lane::Urgent, frame.clone()).unwrap();
        }
        assert_eq!(outgoing.push(Lane::Urgent, frame.clone()), Err(PushError::Full));

        while queue.try_next().is_some() {}
        assert_eq!(outgoing.push(Lane::Bulk, frame.clone()), Ok(()));
        drop(queue);
        assert_eq!(outgoing.push(Lane::Bulk, frame), Err(PushError::Closed));
    }

    #[test]
    fn bulk_is_bounded_in_bytes() {
        let (outgoing, mut queue) = queue();
        let half = Bytes::from(vec![0; MAX_QUEUED_BULK_BYTES / 2]);
        outgoing.push(Lane::Bulk, half.clone()).unwrap();
        outgoing.push(Lane::Bulk, half.clone()).unwrap();
        assert_eq!(outgoing.push(Lane::Bulk, Bytes::from_static(b"x")), Err(PushError::Full));
        assert_eq!(outgoing.push(Lane::Urgent, Bytes::from_static(b"x")), Ok(()));
        assert!(queue.try_next().is_some_and(|frame| frame.len() == 1), "urgent first");
        assert_eq!(queue.try_next(), Some(half.clone()));
        assert_eq!(outgoing.push(Lane::Bulk, half), Ok(()));
    }
}
