//! Standard output: the only module that writes to it.
//!
//! What always holds: colours and cursor movements are written only to a terminal that has them, and colours only
//! without `NO_COLOR`. A closed pipe (`ringmaster events | head`) ends the command without an error.

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal, Write},
    sync::{Mutex, PoisonError},
};

/// Standard output.
pub struct Out {
    sink: Mutex<Box<dyn Write + Send>>,
    terminal: bool,
    paint: Paint,
}

/// Standard output failed, usually because its reader has closed it.
#[derive(Debug)]
pub struct Closed(pub io::Error);

/// Whether to write colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(bool);

/// The meaning of a word, shown as a colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    Faint,
    Strong,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

impl Out {
    pub fn stdout() -> Out {
        let terminal = io::stdout().is_terminal() && has_escapes(env::var_os("TERM").as_deref());
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Out { sink: Mutex::new(Box::new(io::stdout())), terminal, paint: Paint(terminal && !no_color) }
    }

    /// Writes to `sink`, without colours.
    #[cfg(test)]
    pub fn plain(sink: Box<dyn Write + Send>) -> Out {
        Out { sink: Mutex::new(sink), terminal: false, paint: Paint(false) }
    }

    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// Writes `text` and ends the line.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), Closed> {
        self.write(&format!("{}\n", text.as_ref()))
    }

    /// Writes `text`, which is empty or ends with a line end.
    pub fn text(&self, text: impl AsRef<str>) -> Result<(), Closed> {
        self.write(text.as_ref())
    }

    /// Writes `text` over the text of the last call; below it, if this is not a terminal.
    pub fn redraw(&self, text: &str) -> Result<(), Closed> {
        if !self.terminal {
            return self.write(&format!("{text}\n"));
        }
        // Each line clears the rest of its row, and the end clears the rows below: no flicker.
        let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
        self.write(&format!("\x1b[H{lines}\x1b[J"))
    }

    /// Clears the terminal for [`Out::redraw`].
    pub fn clear(&self) -> Result<(), Closed> {
        if self.terminal { self.write("\x1b[2J\x1b[H") } else { Ok(()) }
    }

    /// Writes a line that the next call of this or of [`Out::replace`] overwrites; on a terminal only.
    pub fn provisional(&self, text: &str) -> Result<(), Closed> {
        if self.terminal { self.write(&format!("\r\x1b[K{text}")) } else { Ok(()) }
    }

    /// Writes a line over a provisional one.
    pub fn replace(&self, text: &str) -> Result<(), Closed> {
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        self.write(&format!("{start}{text}\n"))
    }

    fn write(&self, text: &str) -> Result<(), Closed> {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink.write_all(text.as_bytes()).and_then(|()| sink.flush()).map_err(Closed)
    }
}

/// Whether a terminal of this type takes colours and cursor movements.
fn has_escapes(term: Option<&OsStr>) -> bool {
    term.is_none_or(|term| term != "dumb")
}

impl Paint {
    #[cfg(test)]
    pub const NONE: Paint = Paint(false);

    pub fn has_colours(self) -> bool {
        self.0
    }

    pub fn apply(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct ClosedPipe;

    impl Write for ClosedPipe {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_not_a_panic() {
        let Closed(error) = Out::plain(Box::new(ClosedPipe)).line("x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_dumb_terminal_gets_plain_text() {
        assert!(!has_escapes(Some("dumb".as_ref())));
        assert!(has_escapes(Some("xterm-256color".as_ref())) && has_escapes(None));
    }

    #[test]
    fn colours_are_for_terminals() {
        assert_eq!(Paint::NONE.apply(Tone::Bad, "down"), "down");
        assert_eq!(Paint(true).apply(Tone::Bad, "down"), "\x1b[31mdown\x1b[0m");
    }
}
