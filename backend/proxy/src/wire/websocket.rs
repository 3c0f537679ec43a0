//! The part of WebSockets (RFC 6455) that is needed to close one properly: where frames begin and end, and the Close
//! frame. Headers are read, payloads are skipped.

/// The server goes away (RFC 6455, 7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// Two bytes, eight more of a length, four of a mask.
const MAX_HEADER: usize = 14;
const CLOSE: u8 = 8;

/// The frames of one direction, as far as they have passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    header: [u8; MAX_HEADER],
    /// How much of a header is known; 0 between frames and within payloads.
    known: usize,
    /// What is left of the payload.
    left: u64,
    /// The current frame is a Close.
    closing: bool,
    /// A Close has passed completely.
    pub closed: bool,
}

impl Frames {
    /// Follows bytes that pass.
    pub fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.step(rest)..];
        }
    }

    /// How many of these bytes belong to the current frame: none between two frames.
    pub fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut ahead = *self;
        let mut count = 0;
        while !ahead.is_between() && count < bytes.len() {
            count += ahead.step(&bytes[count..]);
        }
        count
    }

    /// Whether a frame could be inserted here.
    pub fn is_between(&self) -> bool {
        self.known == 0 && self.left == 0
    }

    /// Follows a part that ends with a header, with a payload or with the bytes. Returns its length.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= count as u64;
            self.end_if_whole();
            return count;
        }
        let count = (self.wanted() - self.known).min(bytes.len());
        self.header[self.known..self.known + count].copy_from_slice(&bytes[..count]);
        self.known += count;
        // The second byte says how long the header is.
        if self.known >= 2 && self.known == self.wanted() {
            self.closing = self.header[0] & 0x0f == CLOSE;
            self.left = self.length();
            self.known = 0;
            self.end_if_whole();
        }
        count
    }

    fn end_if_whole(&mut self) {
        self.closed |= self.closing && self.left == 0;
    }

    /// The length of the header, by what is known of it.
    fn wanted(&self) -> usize {
        let Some(second) = self.header.get(1).filter(|_| self.known >= 2) else { return 2 };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + mask
    }

    fn length(&self) -> u64 {
        let [_, second, rest @ ..] = &self.header;
        match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([rest[0], rest[1]])),
            127 => rest[..8].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            short => short.into(),
        }
    }
}

/// A Close with a reason, as a server sends it, or with a mask, as a client must.
pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
    let length = length.expect("reasons are short");
    let mut frame = vec![0x80 | CLOSE, length];
    match mask {
        None => frame.extend(payload),
        Some(mask) => {
            frame[1] |= 0x80;
            frame.extend(mask);
            frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames with each form of length, with and without a mask, and where each ends.
    fn stream() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for length in [0usize, 1, 125, 126, 4_000, 70_000] {
            for masked in [false, true] {
                let bit = if masked { 0x80 } else { 0 };
                bytes.push(0x82);
                match length {
                    ..126 => bytes.push(bit | u8::try_from(length).unwrap()),
                    126..65_536 => {
                        bytes.push(bit | 126);
                        bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
                    }
                    _ => {
                        bytes.push(bit | 127);
                        bytes.extend((length as u64).to_be_bytes());
                    }
                }
                bytes.extend(if masked { &[8, 8, 8, 8][..] } else { &[] });
                // What looks like the end of everything is payload here.
                bytes.extend(std::iter::repeat_n(0x88, length));
                ends.push(bytes.len());
            }
        }
        (bytes, ends)
    }

    #[test]
    fn frames_end_at_the_same_place_however_they_are_split() {
        let (bytes, ends) = stream();
        for piece in [1, 2, 3, 7, 1_000, bytes.len()] {
            let (mut frames, mut at) = (Frames::default(), 0);
            for piece in bytes.chunks(piece) {
                assert_eq!(frames.is_between(), ends.contains(&at), "at {at}");
                let end = ends.iter().find(|end| **end >= at).unwrap();
                assert_eq!(frames.rest_of_frame(&bytes[at..]), end - at, "at {at}");
                frames.pass(piece);
                at += piece.len();
            }
            assert!(frames.is_between() && !frames.closed);
        }
    }

    #[test]
    fn a_close_frame_is_recognised() {
        for mask in [None, Some([1, 2, 3, 4])] {
            let frame = close(GOING_AWAY, "bye", mask);
            let mut frames = Frames::default();
            frames.pass(&frame[..frame.len() - 1]);
            assert!(!frames.closed && !frames.is_between());
            frames.pass(&frame[frame.len() - 1..]);
            assert!(frames.closed && frames.is_between());
        }
        assert_eq!(close(GOING_AWAY, "", None), [0x88, 2, 0x03, 0xe9]);
        assert_eq!(close(GOING_AWAY, "", Some([1, 2, 3, 4])), [0x88, 0x82, 1, 2, 3, 4, 0x02, 0xeb]);
    }
}
