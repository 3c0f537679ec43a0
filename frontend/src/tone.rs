//! Severities. Each is shown as a colour, and always as a shape and a word too.

/// The severity of something that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    Good,
    /// Worth knowing; nothing is wrong.
    Note,
    Warning,
    Bad,
    /// There is no recent information.
    Unknown,
}

impl Tone {
    pub fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Note => "note",
            Tone::Warning => "warning",
            Tone::Bad => "bad",
            Tone::Unknown => "unknown",
        }
    }
}
