//! Errors as every client sees them: RFC 9457 problem documents with a stable code.
//!
//! A code that this version does not know, in a record or from a peer of a newer version, is kept as it is
//! ([`UnknownCode`]): it is no error, and is written again as it was read.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $(#[cfg($cfg:meta)])? $name:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// The kind of an error, as one stable word. Codes are never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])* $(#[cfg($cfg)])? $name,)*
            /// A code of another version.
            Unknown(UnknownCode),
        }

        impl Code {
            /// Every code of this version, for documentation and tests.
            pub const ALL: &[Code] = &[$($(#[cfg($cfg)])? Code::$name),*];

            /// The code as it stands in a problem document.
            pub fn as_str(&self) -> &str {
                match self {
                    $($(#[cfg($cfg)])? Code::$name => $code,)*
                    Code::Unknown(code) => code.as_str(),
                }
            }

            /// The HTTP status that goes with it.
            pub fn status(&self) -> u16 {
                match self {
                    $($(#[cfg($cfg)])? Code::$name => $status,)*
                    Code::Unknown(_) => 500,
                }
            }

            /// A short noun phrase, the same for every occurrence.
            pub fn title(&self) -> &'static str {
                match self {
                    $($(#[cfg($cfg)])? Code::$name => $title,)*
                    Code::Unknown(_) => "Error of another version",
                }
            }
        }
    };
}

/// The longest code of any version, in bytes.
pub const MAX_CODE_BYTES: usize = 39;

/// A code that this version does not know. It is small, and copied like the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownCode {
    bytes: [u8; MAX_CODE_BYTES],
    length: u8,
}

impl UnknownCode {
    /// None where the text is no code of any version: one is a short word in ASCII.
    fn new(text: &str) -> Option<UnknownCode> {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if text.is_empty() || text.len() > MAX_CODE_BYTES || !text.bytes().all(is_word) {
            return None;
        }
        let mut bytes = [0; MAX_CODE_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(UnknownCode { bytes, length: text.len() as u8 })
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

codes! {
    /// The request's syntax or a value in it is wrong.
    InvalidRequest = "invalid_request", 400, "Invalid request";
    MalformedJson = "malformed_json", 400, "Malformed JSON";
    UnknownAction = "unknown_action", 400, "Unknown action";
    ForeignOrigin = "foreign_origin", 403, "Foreign origin";
    UnknownHost = "unknown_host", 403, "Unknown host name";
    UnknownRoute = "unknown_route", 404, "Not found";
    UnknownNode = "unknown_node", 404, "Node not found";
    UnknownGroup = "unknown_group", 404, "Raft group not found";
    UnknownSetting = "unknown_setting", 404, "Setting not found";
    UnknownPlan = "unknown_plan", 404, "Plan not found";
    UnknownLock = "unknown_lock", 404, "Lock not found";
    UnknownOperation = "unknown_operation", 404, "Operation not found";
    UnknownUpstream = "unknown_upstream", 404, "Upstream not found";
    UnknownEndpoint = "unknown_endpoint", 404, "Endpoint not found";
    NoSuchRoute = "no_such_route", 404, "Route not found";
    /// The proxy has no route for the request.
    NoRoute = "no_route", 404, "No matching route";
    NotADemo = "not_a_demo", 404, "Not a demo cluster";
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed";
    RequestTimeout = "request_timeout", 408, "Request timeout";
    /// Something that the plan looked at has changed since.
    PlanStale = "plan_stale", 409, "Plan out of date";
    OperationRunning = "operation_running", 409, "Another operation is running";
    /// Others hold the lock, and the wait has passed.
    LockHeld = "lock_held", 409, "Lock held";
    /// The lease has ended: it ran out, was released or was taken away.
    LockLost = "lock_lost", 409, "Lock lost";
    /// The lock is in use under another limit.
    LockLimitDiffers = "lock_limit_differs", 409, "Lock in use with another limit";
    NotAbortable = "not_abortable", 409, "Operation past its last abort point";
    NotAwaitingKeep = "not_awaiting_keep", 409, "Operation not awaiting confirmation";
    NotUndoable = "not_undoable", 409, "Operation cannot be undone";
    IdempotencyKeyReused = "idempotency_key_reused", 409, "Idempotency key reused";
    /// In an operation's error: a step outlasted its bound.
    StepTimeout = "step_timeout", 409, "Step timeout";
    /// In an operation's error: the election that the transfer caused had another winner.
    TransferNotTaken = "transfer_not_taken", 409, "Leadership not transferred";
    /// In an operation's error: what the plan observed no longer holds.
    PreflightFailed = "preflight_failed", 409, "Preflight check failed";
    /// In an operation's error: it was reverted because it was not confirmed in time.
    NotKept = "not_kept", 409, "Operation reverted: not confirmed in time";
    /// In an operation's error: the cluster was recovered from one node while it ran.
    ClusterRecovered = "cluster_recovered", 409, "Cluster recovered meanwhile";
    /// In an operation's error: an operator aborted it.
    AbortedByOperator = "aborted_by_operator", 409, "Aborted by an operator";
    /// In an operation's error: the webhook did not fence the old primary. It is the primary again, if it was when the operation started.
    FenceFailed = "fence_failed", 409, "Fencing failed";
    /// In an operation's error: the cluster refused or failed a change of its members.
    MembershipRefused = "membership_refused", 409, "Membership change refused";
    /// Another route matches the very same requests.
    RouteShadows = "route_shadows", 409, "Conflicting route";
    /// The route's listener is an address of a member.
    ListenerTaken = "listener_taken", 409, "Listener address in use by a node";
    UpstreamInUse = "upstream_in_use", 409, "Upstream in use by a route";
    /// Another address is another process, and one process at a time is the primary.
    EndpointIsPrimary = "endpoint_is_primary", 409, "Endpoint is the primary";
    /// A registration cannot take the id or address of another endpoint.
    EndpointTaken = "endpoint_taken", 409, "Endpoint id or address in use";
    /// The command needs a feature level that not every member supports yet.
    UpgradeUnfinished = "upgrade_unfinished", 409, "Upgrade unfinished";
    StaleReport = "stale_report", 409, "Stale report";
    PlanExpired = "plan_expired", 410, "Plan expired";
    /// The history no longer holds what was asked for.
    HistoryGone = "history_gone", 410, "History no longer available";
    PreconditionFailed = "precondition_failed", 412, "Precondition failed";
    BodyTooLarge = "body_too_large", 413, "Body too large";
    ValueTooLarge = "value_too_large", 413, "Value too large";
    UnsupportedMediaType = "unsupported_media_type", 415, "Unsupported media type";
    PlanBlocked = "plan_blocked", 422, "Plan blocked";
    InvalidSetting = "invalid_setting", 422, "Invalid setting value";
    InvalidUpstream = "invalid_upstream", 422, "Invalid upstream";
    InvalidRoute = "invalid_route", 422, "Invalid route";
    LimitReached = "limit_reached", 422, "Limit reached";
    /// What a version before this one refuses as `limit_reached`.
    #[cfg(feature = "next-version")]
    LockDepthReached = "lock_depth_reached", 422, "Lock entered too often";
    Overloaded = "overloaded", 429, "Too many concurrent requests";
    /// The route lets no more requests through.
    RateLimited = "rate_limited", 429, "Rate limit of the route exceeded";
    HeadTooLarge = "head_too_large", 431, "Request header fields too large";
    Internal = "internal", 500, "Internal error";
    /// The endpoint gave no answer, or one that cannot be trusted.
    BadGateway = "bad_gateway", 502, "Bad gateway";
    /// Every endpoint is left out: its reasons are in the detail.
    NoEndpoint = "no_endpoint", 503, "No eligible endpoint";
    /// No leader was found in time. The request may be sent again.
    NoLeader = "no_leader", 503, "No leader";
    /// The node gave up waiting. The request may or may not take effect.
    OutcomeUnknown = "outcome_unknown", 503, "Outcome unknown";
    NotReady = "not_ready", 503, "Node not ready";
    DemoFailed = "demo_failed", 503, "Demo supervisor failed";
    /// The endpoint may or may not have done what it was asked for.
    GatewayTimeout = "gateway_timeout", 504, "Gateway timeout";
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        if let Some(known) = Code::ALL.iter().find(|known| known.as_str() == word) {
            return Ok(*known);
        }
        UnknownCode::new(&word).map(Code::Unknown).ok_or_else(|| serde::de::Error::custom("this is no code"))
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Code {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("The kind of an error, as one stable word. Codes are never renamed."))
            .enum_values(Some(Code::ALL.iter().map(|code| code.as_str())))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Code {}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: a code, and a sentence that says what was wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{code}: {detail}")]
pub struct Refusal {
    pub code: Code,
    pub detail: String,
    /// For `plan_stale`: the facts that changed, as they stood in the plan's footprint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<crate::plan::Fact>,
    /// For `lock_held`: the longest holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Box<crate::lock::LockHolder>>,
}

impl Refusal {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Refusal { code, detail: detail.into(), facts: Vec::new(), holder: None }
    }

    /// The same, where it is one thing of several that was refused.
    pub fn of(mut self, what: &str) -> Self {
        let goes_on =
            |rest: &str| rest.starts_with(|next: char| next.is_ascii_alphanumeric() || "-_.".contains(next));
        if self.detail.strip_prefix(what).is_none_or(goes_on) {
            self.detail = format!("{what}: {}", self.detail);
        }
        self
    }
}

/// An RFC 9457 problem document: the body of every error answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// A stable code, or, from a newer server, a code that this client does not know.
    pub code: String,
    pub detail: String,
    /// The facts that changed, where the code is `plan_stale`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<crate::plan::Fact>,
    /// The longest holder, where the code is `lock_held`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Box<crate::lock::LockHolder>>,
    /// Everything that keeps the node from being ready, where the code is `not_ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The class of requests whose bound was reached, where the code is `overloaded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// That bound: how many requests of the class a node has under way at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<u64>,
    /// The request's id, to find it in logs and in the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Problem {
            kind: format!("urn:ringmaster:problem:{}", refusal.code),
            title: refusal.code.title().to_owned(),
            status: refusal.code.status(),
            code: refusal.code.as_str().to_owned(),
            detail: refusal.detail,
            facts: refusal.facts,
            holder: refusal.holder,
            reasons: Vec::new(),
            class: None,
            bound: None,
            request_id: None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_is_kept_as_it_is() {
        let json = r#"{"code":"of_a_later_version","detail":"so it was"}"#;
        let refusal: Refusal = serde_json::from_str(json).unwrap();
        assert_eq!((refusal.code.as_str(), refusal.code.status()), ("of_a_later_version", 500));
        assert_eq!(serde_json::to_string(&refusal).unwrap(), json);
        for other in ["", "Not a code", &"x".repeat(MAX_CODE_BYTES + 1)] {
            let json = format!(r#"{{"code":{other:?},"detail":""}}"#);
            assert!(serde_json::from_str::<Refusal>(&json).is_err(), "{other}");
        }
    }

    #[test]
    fn each_code_is_read_as_it_is_written() {
        for code in Code::ALL {
            assert!(code.as_str().len() <= MAX_CODE_BYTES, "{code} is longer than other versions read");
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), *code);
        }
    }
}
