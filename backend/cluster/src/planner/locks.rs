//! Taking a lock away from those who hold it.
//!
//! The holder is not asked, and may go on for a while as if it still held the lock. Its token is void
//! from the moment on at which this is applied; only where tokens are checked is that the end of it.
//!
//! Of a lock that nobody holds, and nobody is granted yet because of how a lease of it ended, the delay is lifted.

use super::{footprint, unchanged};
use crate::{
    State,
    plans::{Draft, FactKey, Goal},
};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    id::Token,
    lock::{Lock, LockHolder},
    plan::{Impact, LockImpact, Warning},
};
use std::collections::BTreeSet;

pub(super) fn release(
    state: &State,
    action: Action,
    name: String,
    token: Option<Token>,
) -> Result<Draft, Refusal> {
    let unknown = || Refusal::new(Code::UnknownLock, format!("nobody holds or waits for a lock {name:?}"));
    let lock = state.locks.detail(&name, state.clock).ok_or_else(unknown)?.lock;
    let holders: Vec<_> =
        lock.holders.into_iter().filter(|holder| token.is_none_or(|token| token == holder.token)).collect();
    let lifts_delay = holders.is_empty() && token.is_none() && lock.delayed_for_ms.is_some();
    if holders.is_empty() && !lifts_delay {
        return Err(match token {
            Some(token) => {
                Refusal::new(Code::LockLost, format!("token {token} does not hold {name}; look at it again"))
            }
            None => Refusal::new(Code::UnknownLock, format!("nobody holds {name}")),
        });
    }
    let tokens: BTreeSet<Token> = holders.iter().map(|holder| holder.token).collect();
    let after = state.without(&name, &tokens).ok_or_else(unknown)?;
    let is_new = |holder: &LockHolder| holder.token >= state.locks.next_token();
    let promoted: Vec<_> = after.holders.into_iter().filter(is_new).collect();
    let subject = FactKey::Lock(name.clone());
    let (code, detail) = if lifts_delay {
        (
            "delay_lifted",
            "Its last holder asked for the delay: they may still be at work, and have not said that they ended.",
        )
    } else {
        (
            "holder_not_asked",
            "A holder that still works goes on until it notices. Only a resource that checks tokens refuses it.",
        )
    };
    let mut warnings =
        vec![Warning { code: code.to_owned(), detail: detail.to_owned(), subject: subject.to_string() }];
    if let Some(delay) = after.delayed_for_ms {
        warnings.push(Warning {
            code: "lock_delay".to_owned(),
            detail: format!("Nobody is granted it for {delay} ms then, as its holder asked for."),
            subject: subject.to_string(),
        });
    }
    let owners = |owners: &mut dyn Iterator<Item = &str>| owners.collect::<Vec<_>>().join(", ");
    let next = match promoted.as_slice() {
        [] => "Nobody is next.".to_owned(),
        [next] => format!("Next is {}, with a token of {} or more.", next.owner, next.token),
        next => format!(
            "Next are {}, with tokens of {} or more.",
            owners(&mut next.iter().map(|holder| holder.owner.as_str())),
            next[0].token
        ),
    };
    let summary = if lifts_delay {
        format!("{name} is granted again at once. {next}")
    } else {
        let losing = owners(&mut holders.iter().map(|holder| holder.owner.as_str()));
        format!("{name} is taken away from {losing}. {next}")
    };
    Ok(Draft {
        summary,
        footprint: footprint(state, [subject]),
        impact: Impact {
            lock: Some(LockImpact { holders, promoted, next_token: state.locks.next_token() }),
            leader_before: state.leader(),
            leader_after: state.leader(),
            ..unchanged(state)
        },
        observations: Vec::new(),
        warnings,
        blockers: Vec::new(),
        goal: Goal::ReleaseLock { name, tokens },
        revision: state.revision,
        undoes: None,
        action,
    })
}

impl State {
    /// The lock as it would stand if it were taken away from these: tried out on a copy that nobody sees.
    fn without(&self, name: &str, tokens: &BTreeSet<Token>) -> Option<Lock> {
        let mut locks = self.locks.clone();
        locks.force(&mut self.context(), name, tokens);
        Some(locks.detail(name, self.clock)?.lock)
    }
}
