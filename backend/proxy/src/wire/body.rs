//! Bodies of HTTP/1 messages: where they end, and which bytes are passed on.
//!
//! A chunked body is passed on in the chunks that it came in, so every byte of its framing is checked first: what is
//! passed on can be read in one way only. Extensions and trailers are left out.

/// The longest line with the size of a chunk and its extensions.
const MAX_SIZE_LINE: usize = 256;
/// The number of digits of the largest size.
const MAX_SIZE_DIGITS: usize = 16;
/// How much of trailers is read.
const MAX_TRAILERS: usize = 8 << 10;

use super::head::Framing;

/// A body, and how much of it is still to come.
#[derive(Debug)]
pub struct Body {
    framing: Rest,
    /// Chunks lose their framing: the receiver does not know chunks.
    unframed: bool,
    /// How many bytes of content there were so far.
    pub content: u64,
}

#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Chunks),
    /// Until the connection ends.
    Unknown,
}

/// The framing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug)]
struct Chunks {
    state: State,
    left: u64,
    /// Of the line, or of all trailers.
    read: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl Body {
    pub fn new(framing: Framing) -> Body {
        let framing = match framing {
            Framing::Empty => Rest::Length(0),
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Chunks { state: State::Size, left: 0, read: 0 }),
            Framing::Close => Rest::Unknown,
        };
        Body { framing, unframed: false, content: 0 }
    }

    /// The same without its framing.
    pub fn unframed(self) -> Body {
        Body { unframed: true, ..self }
    }

    pub fn is_done(&self) -> bool {
        match &self.framing {
            Rest::Length(left) => *left == 0,
            Rest::Chunked(chunks) => chunks.state == State::Done,
            Rest::Unknown => false,
        }
    }

    /// Whether the body may end where the connection does.
    pub fn may_end(&self) -> bool {
        matches!(self.framing, Rest::Unknown)
    }

    /// Appends the bytes of `input` that are passed on to `out`. Returns how much of `input` belongs to this body.
    pub fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        let count = match &mut self.framing {
            Rest::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= count as u64;
                count
            }
            Rest::Unknown => input.len(),
            Rest::Chunked(chunks) => return chunks.take(input, out, self.unframed, &mut self.content),
        };
        self.content += count as u64;
        out.extend_from_slice(&input[..count]);
        Ok(count)
    }
}

impl Chunks {
    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        unframed: bool,
        content: &mut u64,
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - at);
                out.extend_from_slice(&input[at..at + count]);
                *content += count as u64;
                self.left -= count as u64;
                at += count;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let byte = input[at];
            at += 1;
            self.step(byte)?;
            let is_passed_on = !unframed
                && !matches!(self.state, State::Extension | State::Trailer | State::TrailerLf | State::EndLf);
            match self.state {
                // Of the lines behind the last chunk only the empty one is passed on.
                State::Done if !unframed => out.extend_from_slice(b"\r\n"),
                State::TrailerStart if is_passed_on && self.read > 0 => {}
                _ if is_passed_on => out.push(byte),
                _ => {}
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() && self.read < MAX_SIZE_DIGITS => {
                let digit = u64::from(char::from(byte).to_digit(16).expect("it is a digit"));
                // A larger size would lose digits.
                if self.left >> 56 != 0 {
                    return Err(Malformed);
                }
                self.left = self.left << 4 | digit;
                self.read += 1;
                State::Size
            }
            (State::Size, b'\r') if self.read > 0 => State::SizeEnd,
            (State::Size, b';') if self.read > 0 => State::Extension,
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\t' | b' '..=b'~') if self.read < MAX_SIZE_LINE => {
                self.read += 1;
                State::Extension
            }
            (State::SizeEnd, b'\n') => {
                self.read = 0;
                if self.left == 0 { State::TrailerStart } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 0x80..)
                if self.read < MAX_TRAILERS =>
            {
                self.read += 1;
                State::Trailer
            }
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(Malformed),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of a chunked body that comes in pieces, and how much was taken.
    fn chunked(text: &str, piece: usize, unframed: bool) -> Result<(String, usize, bool), Malformed> {
        let mut body = Body::new(Framing::Chunked);
        if unframed {
            body = body.unframed();
        }
        let (mut out, mut taken) = (Vec::new(), 0);
        for piece in text.as_bytes().chunks(piece) {
            taken += body.take(piece, &mut out)?;
        }
        Ok((String::from_utf8(out).unwrap(), taken, body.is_done()))
    }

    #[test]
    fn chunks_are_passed_on_as_they_came_but_for_extensions() {
        let text = "5;x=\"y\"\r\nhello\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n";
        for piece in 1..text.len() {
            let bare = text.replace(";x=\"y\"", "");
            assert_eq!(chunked(text, piece, false), Ok((bare, text.len(), true)));
            let plain = "helloabcdefghijklmnopqrstuvwxyz".to_owned();
            assert_eq!(chunked(text, piece, true), Ok((plain, text.len(), true)));
        }
    }

    #[test]
    fn trailers_are_left_out_and_what_follows_is_not_taken() {
        let text = "1\r\na\r\n0\r\nX-Forwarded-For: me\r\nY: z\r\n\r\n";
        for piece in 1..text.len() {
            assert_eq!(chunked(text, piece, false), Ok(("1\r\na\r\n0\r\n\r\n".to_owned(), text.len(), true)));
        }
        let (_, taken, done) = chunked("0\r\n\r\nGET / HTTP/1.1\r\n", 100, false).unwrap();
        assert!(done && taken == 5);
    }

    #[test]
    fn ambiguous_framing_is_malformed() {
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1 \r\n",
            "1\na",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1;\nx\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
            "fffffffffffffffff\r\n",
            "1;a\u{1}\r\n",
        ] {
            assert_eq!(chunked(text, 100, false), Err(Malformed), "{text:?}");
        }
        let long = format!("1;{}\r\n", "x".repeat(MAX_SIZE_LINE));
        assert_eq!(chunked(&long, 100, false), Err(Malformed));
    }

    #[test]
    fn a_length_takes_no_more_than_it_says() {
        let mut body = Body::new(Framing::Length(5));
        let mut out = Vec::new();
        assert_eq!(body.take(b"hel", &mut out), Ok(3));
        assert_eq!(body.take(b"loGET", &mut out), Ok(2));
        assert!(body.is_done() && out == b"hello");
    }
}
