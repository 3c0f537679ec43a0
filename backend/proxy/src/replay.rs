//! The beginning of a request's body, kept for as long as the request may have to be sent again.
//!
//! An endpoint that closes an HTTP/2 connection says which requests it has not processed. Such a request is sent again
//! whatever its method, if all that was taken of its body is still here. A larger body is not kept.

use crate::wire::message::{BodyChunk, BodySource, StreamError};

/// How much of a body is kept, in bytes and in chunks.
const MAX_BYTES: usize = 64 << 10;
const MAX_CHUNKS: usize = 64;

#[derive(Debug)]
pub struct Replay {
    chunks: Vec<BodyChunk>,
    /// The next chunk to be sent.
    next: usize,
    max_bytes: usize,
    bytes: usize,
    is_whole: bool,
    has_content: bool,
}

impl Replay {
    /// `keeps`: chunks are kept, not only counted.
    pub fn new(keeps: bool) -> Replay {
        let max_bytes = if keeps { MAX_BYTES } else { 0 };
        Replay { chunks: Vec::new(), next: 0, max_bytes, bytes: 0, is_whole: true, has_content: false }
    }

    /// From now on chunks come from the beginning.
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    /// Whether everything that was taken of the body is here.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether any content was taken, kept or not.
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// The request will not be sent again. Chunks that this attempt has yet to send stay until it has.
    pub fn forget(&mut self) {
        self.is_whole = false;
        self.chunks.drain(..self.next);
        self.next = 0;
    }

    /// The next chunk: a kept one, or one from `body`.
    pub async fn chunk(&mut self, body: &mut impl BodySource) -> Result<BodyChunk, StreamError> {
        if let Some(chunk) = self.chunks.get(self.next).cloned() {
            self.next += 1;
            if !self.is_whole {
                self.forget();
            }
            return Ok(chunk);
        }
        let chunk = body.chunk().await?;
        if let BodyChunk::Data(data) = &chunk {
            self.has_content |= !data.is_empty();
            self.bytes += data.len();
        }
        if self.is_whole && self.bytes <= self.max_bytes && self.chunks.len() < MAX_CHUNKS {
            self.chunks.push(chunk.clone());
            self.next = self.chunks.len();
        } else {
            self.forget();
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    struct Chunks(VecDeque<BodyChunk>);

    impl BodySource for Chunks {
        async fn chunk(&mut self) -> Result<BodyChunk, StreamError> {
            self.0.pop_front().ok_or(StreamError::Closed)
        }
    }

    fn body(sizes: &[usize]) -> Chunks {
        let data = sizes.iter().enumerate().map(|(n, size)| BodyChunk::Data(vec![n as u8; *size].into()));
        Chunks(data.chain([BodyChunk::End(None)]).collect())
    }

    /// The sizes of what comes, up to `count` chunks.
    async fn take(replay: &mut Replay, body: &mut Chunks, count: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..count {
            match replay.chunk(body).await {
                Ok(BodyChunk::Data(data)) => sizes.push(data.len()),
                _ => break,
            }
        }
        sizes
    }

    #[tokio::test]
    async fn what_was_taken_comes_again_and_then_the_rest() {
        let (mut replay, mut body) = (Replay::new(true), body(&[5, 6, 7]));
        assert_eq!(take(&mut replay, &mut body, 2).await, [5, 6]);
        replay.rewind();
        assert!(replay.is_whole());
        assert_eq!(take(&mut replay, &mut body, 9).await, [5, 6, 7]);
        replay.rewind();
        assert_eq!(take(&mut replay, &mut body, 9).await, [5, 6, 7], "with its end");
    }

    #[tokio::test]
    async fn a_body_beyond_the_bounds_is_not_kept() {
        for sizes in [vec![MAX_BYTES, 1], vec![1; MAX_CHUNKS + 1]] {
            let (mut replay, mut body) = (Replay::new(true), body(&sizes));
            assert_eq!(take(&mut replay, &mut body, sizes.len() - 1).await.len(), sizes.len() - 1);
            assert!(replay.is_whole());
            take(&mut replay, &mut body, 1).await;
            assert!(!replay.is_whole() && replay.chunks.is_empty());
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_sent_again_still_comes_to_its_end() {
        let (mut replay, mut body) = (Replay::new(true), body(&[5, 6, 7, 8]));
        assert_eq!(take(&mut replay, &mut body, 3).await, [5, 6, 7]);
        replay.rewind();
        assert_eq!(take(&mut replay, &mut body, 1).await, [5]);
        // Its response has begun.
        replay.forget();
        assert!(!replay.is_whole() && replay.chunks.len() == 2);
        assert_eq!(take(&mut replay, &mut body, 1).await, [6]);
        assert_eq!(replay.chunks.len(), 1, "a chunk that was sent is not kept");
        replay.forget();
        assert_eq!(take(&mut replay, &mut body, 9).await, [7, 8]);
        assert!(replay.chunks.is_empty());
    }

    #[tokio::test]
    async fn an_empty_body_has_no_content() {
        let (mut replay, mut body) = (Replay::new(false), body(&[]));
        assert!(matches!(replay.chunk(&mut body).await, Ok(BodyChunk::End(None))));
        assert!(!replay.has_content() && replay.is_whole());
    }
}
