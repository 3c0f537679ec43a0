//! How an attempt at one endpoint ended: data without behaviour.

/// The errors that count against an endpoint: the label `reason` of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    ConnectFailed,
    NoResponse,
    Timeout,
    InvalidResponse,
    /// A response began and did not end.
    Truncated,
}

impl ErrorKind {
    pub const ALL: [ErrorKind; 5] = [
        ErrorKind::ConnectFailed,
        ErrorKind::NoResponse,
        ErrorKind::Timeout,
        ErrorKind::InvalidResponse,
        ErrorKind::Truncated,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::ConnectFailed => "connect_failed",
            ErrorKind::NoResponse => "no_response",
            ErrorKind::Timeout => "timed_out",
            ErrorKind::InvalidResponse => "invalid_response",
            ErrorKind::Truncated => "truncated",
        }
    }
}

/// How a response ended that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEnd {
    /// The client has all of it.
    Complete,
    /// The endpoint did not send all of it, or broke the protocol.
    Truncated,
    /// The client did not take all of it, or the endpoint was drained.
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// With this status.
    Response(u16, ResponseEnd),
    Error(ErrorKind),
}

impl AttemptOutcome {
    /// Whether it counts towards an ejection: no response, a truncated one, or one of 502, 503 and 504.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            AttemptOutcome::Error(_)
                | AttemptOutcome::Response(502..=504, _)
                | AttemptOutcome::Response(_, ResponseEnd::Truncated)
        )
    }
}
