//! Errors of the client.

use crate::Address;
use ringmaster_common::error::{Code, Problem};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A node answered with a problem document.
    #[error("{}", show_problem(.0))]
    Problem(Box<Problem>),
    /// No node answered.
    #[error("{}", show_unreachable(.0))]
    Unreachable(Vec<Attempt>),
    /// The answer is not one that a node of this version sends.
    #[error("{url} does not answer as a Ringmaster node of this version would: {detail}")]
    Protocol { url: Address, detail: String },
}

/// A failed attempt at one address.
#[derive(Debug)]
pub struct Attempt {
    pub url: Address,
    pub reason: String,
    /// Whether a change was sent, and may have taken effect.
    pub in_doubt: bool,
}

impl ClientError {
    /// Whether a node refused with this code.
    pub fn is(&self, code: Code) -> bool {
        matches!(self, ClientError::Problem(problem) if problem.code == code.as_str())
    }

    /// Whether a repeat of the request would be refused again, by every node.
    pub fn is_final(&self) -> bool {
        let ClientError::Problem(problem) = self else { return false };
        let transient = [Code::Overloaded, Code::RequestTimeout, Code::UpgradeUnfinished];
        problem.status < 500 && !transient.iter().any(|code| self.is(*code))
    }
}

fn show_problem(problem: &Problem) -> String {
    let mut text = problem.to_string();
    if !problem.facts.is_empty() {
        let facts: Vec<_> = problem.facts.iter().map(|fact| fact.fact.as_str()).collect();
        text.push_str(&format!("; changed since: {}", facts.join(", ")));
    }
    text
}

fn show_unreachable(attempts: &[Attempt]) -> String {
    let tried: Vec<_> =
        attempts.iter().map(|attempt| format!("{} ({})", attempt.url, attempt.reason)).collect();
    let doubt = if attempts.iter().any(|attempt| attempt.in_doubt) {
        "; the request was sent, and may or may not have taken effect"
    } else {
        ""
    };
    format!("no node answers: {}{doubt}", tried.join(", "))
}
