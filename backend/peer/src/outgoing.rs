//! The queue of frames that wait to be written to one connection: two lanes, both bounded. Frames
//! are encoded in the connection's format.
//!
//! Putting a frame in never waits: a full lane refuses. So frames that are put in one after the other go onto the wire
//! in that order, lane by lane.

use super::{
    MAX_QUEUED_BULK, MAX_QUEUED_BULK_BYTES, MAX_QUEUED_URGENT,
    frame::{Frame, Lane},
};
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::mpsc;

/// The end that frames are put into.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    format: u8,
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

/// The queue of a connection of this format.
pub(super) fn queue(format: u8) -> (Outgoing, Queue) {
    let (urgent_in, urgent) = mpsc::channel(MAX_QUEUED_URGENT);
    let (bulk_in, bulk) = mpsc::channel(MAX_QUEUED_BULK);
    let bulk_bytes = Arc::new(AtomicUsize::new(0));
    let outgoing = Outgoing { format, urgent: urgent_in, bulk: bulk_in, bulk_bytes: Arc::clone(&bulk_bytes) };
    (outgoing, Queue { urgent, bulk, bulk_bytes })
}

impl Outgoing {
    pub(super) fn push(&self, frame: &Frame) -> Result<(), PushError> {
        let lane = frame.lane;
        let frame = frame.encode(self.format);
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
    /// Waits for a frame; none once all senders are gone.
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
    use super::{
        super::frame::{Channel, HEADER_BYTES, Kind, Trace},
        *,
    };
    use ringmaster_common::id::GroupId;

    fn frame(lane: Lane, body: impl Into<Bytes>) -> Frame {
        Frame {
            kind: Kind::Cast,
            lane,
            channel: Channel(1),
            group: GroupId(0),
            id: 0,
            trace: Trace::default(),
            body: body.into(),
        }
    }

    #[tokio::test]
    async fn urgent_frames_go_first_and_each_lane_keeps_its_order() {
        let (outgoing, mut queue) = queue(3);
        for (lane, body) in
            [(Lane::Bulk, "b1"), (Lane::Bulk, "b2"), (Lane::Urgent, "u1"), (Lane::Urgent, "u2")]
        {
            outgoing.push(&frame(lane, body)).unwrap();
        }
        drop(outgoing);
        let mut order = Vec::new();
        while let Some(frame) = queue.next().await {
            assert_eq!(frame[0], 3, "in the format of the connection");
            order.push(frame.slice(HEADER_BYTES..));
        }
        assert_eq!(order, ["u1", "u2", "b1", "b2"]);
    }

    #[test]
    fn lanes_are_bounded_apart() {
        let (outgoing, mut queue) = queue(1);
        let (bulk, urgent) = (frame(Lane::Bulk, "x"), frame(Lane::Urgent, "x"));
        for _ in 0..MAX_QUEUED_BULK {
            outgoing.push(&bulk).unwrap();
        }
        assert_eq!(outgoing.push(&bulk), Err(PushError::Full));
        for _ in 0..MAX_QUEUED_URGENT {
            outgoing.push(&urgent).unwrap();
        }
        assert_eq!(outgoing.push(&urgent), Err(PushError::Full));

        while queue.try_next().is_some() {}
        assert_eq!(outgoing.push(&bulk), Ok(()));
        drop(queue);
        assert_eq!(outgoing.push(&bulk), Err(PushError::Closed));
    }

    #[test]
    fn bulk_is_bounded_in_bytes() {
        let (outgoing, mut queue) = queue(1);
        let half = frame(Lane::Bulk, vec![0; MAX_QUEUED_BULK_BYTES / 2 - HEADER_BYTES]);
        outgoing.push(&half).unwrap();
        outgoing.push(&half).unwrap();
        assert_eq!(outgoing.push(&frame(Lane::Bulk, "x")), Err(PushError::Full));
        assert_eq!(outgoing.push(&frame(Lane::Urgent, "x")), Ok(()));
        assert!(queue.try_next().is_some_and(|frame| frame.len() == HEADER_BYTES + 1), "urgent first");
        assert!(queue.try_next().is_some_and(|frame| frame.len() == MAX_QUEUED_BULK_BYTES / 2));
        assert_eq!(outgoing.push(&half), Ok(()));
    }
}
