//! Bytes that were read and are not used yet, in contiguous memory: filled at the end and consumed at the front.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much a buffer holds at first.
const SMALL: usize = 4 << 10;
/// How much it holds at the most, which is also the bound of a head.
pub const MAX_BUFFER: usize = 64 << 10;

#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn is_full(&self) -> bool {
        self.len() == MAX_BUFFER
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Removes the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Reads once; 0 at the end. There has to be room.
    pub async fn read_from(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        if self.end == self.bytes.len() {
            self.make_room();
        }
        let count = source.read(&mut self.bytes[self.end..]).await?;
        self.end += count;
        // A sender that fills the buffer has more to send.
        if self.end == self.bytes.len() && self.end < MAX_BUFFER {
            self.grow();
        }
        Ok(count)
    }

    fn make_room(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.bytes.len() {
            assert!(self.end < MAX_BUFFER, "a reader checks that there is room");
            self.grow();
        }
    }

    fn grow(&mut self) {
        self.bytes.resize((2 * self.bytes.len()).clamp(SMALL, MAX_BUFFER), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_out_in_the_order_they_went_in() {
        let text: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let (mut source, mut buffer, mut out) = (text.as_slice(), Buffer::default(), Vec::new());
        while buffer.read_from(&mut source).await.unwrap() > 0 {
            // Part of it stays, so that what is left has to move.
            let used = if buffer.is_full() { buffer.len() } else { buffer.len() / 3 };
            out.extend_from_slice(&buffer.filled()[..used]);
            buffer.consume(used);
        }
        out.extend_from_slice(buffer.filled());
        assert_eq!(out, text);
    }
}
