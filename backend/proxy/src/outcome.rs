//! How an attempt at one endpoint ended: data without behaviour.

/// Why a request had no complete response: the label `reason` of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    ConnectFailed,
    NoResponse,
    /// The head of the response did not come in time.
    Timeout,
    InvalidResponse,
    /// The head of the response is beyond the bounds of this proxy.
    HeadTooLarge,
    /// A response began, and the endpoint broke it off.
    Truncated,
    /// A response began, and nothing came for the idle time-out.
    IdleTimeout,
}

impl ErrorKind {
    pub const ALL: [ErrorKind; 7] = [
        ErrorKind::ConnectFailed,
        ErrorKind::NoResponse,
        ErrorKind::Timeout,
        ErrorKind::InvalidResponse,
        ErrorKind::HeadTooLarge,
        ErrorKind::Truncated,
        ErrorKind::IdleTimeout,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::ConnectFailed => "connect_failed",
            ErrorKind::NoResponse => "no_response",
            ErrorKind::Timeout => "timed_out",
            ErrorKind::InvalidResponse => "invalid_response",
            ErrorKind::HeadTooLarge => "head_too_large",
            ErrorKind::Truncated => "truncated",
            ErrorKind::IdleTimeout => "idle_timeout",
        }
    }

    /// Whether the endpoint, or the path to it, is at fault. A page that takes its time, an event stream without events and
    /// a head beyond our own bounds say nothing of the endpoint's health.
    pub fn is_fault(self) -> bool {
        !matches!(self, ErrorKind::Timeout | ErrorKind::HeadTooLarge | ErrorKind::IdleTimeout)
    }

    /// Whether the request is counted as a response as well.
    pub fn has_response(self) -> bool {
        matches!(self, ErrorKind::Truncated | ErrorKind::IdleTimeout)
    }
}

/// How a response ended that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEnd {
    /// The client has all of it.
    Complete,
    /// The endpoint did not send all of it, or broke the protocol.
    Truncated,
    /// Nothing came from the endpoint for the idle time-out.
    TimedOut,
    /// The client did not take all of it, or the endpoint was drained.
    Abandoned,
}

impl ResponseEnd {
    /// For the access log; empty if the client has all of the response.
    pub fn detail(self) -> &'static str {
        match self {
            ResponseEnd::Complete => "",
            ResponseEnd::Truncated => "the endpoint broke the response off",
            ResponseEnd::TimedOut => "the endpoint sent nothing for the idle time-out",
            ResponseEnd::Abandoned => "the client disconnected, or the endpoint was drained",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// With this status.
    Response(u16, ResponseEnd),
    Error(ErrorKind),
}

impl AttemptOutcome {
    /// Whether it counts towards an ejection: no valid response, a truncated one, or one of 502, 503 and 504.
    pub fn is_failure(self) -> bool {
        match self {
            AttemptOutcome::Error(kind) => kind.is_fault(),
            AttemptOutcome::Response(502..=504, _) | AttemptOutcome::Response(_, ResponseEnd::Truncated) => {
                true
            }
            AttemptOutcome::Response(..) => false,
        }
    }
}
