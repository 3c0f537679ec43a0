//! Taking a lock away from its holders.
//!
//! The holder is not asked, and may continue for a while as if it still held the lock. Its token is void from the moment
//! at which the change is applied; only resources that check tokens refuse it.
//!
//! For a lock without holders that is not granted yet because of the way in which a lease of it ended, the delay is
//! lifted.

use crate::{
    draft::{ENTRY_WITHIN, draft, step, texts_of_warnings},
    warning::Warning,
};
use ringmaster_cluster::{
    State,
    observations::Observations,
    plans::{Draft, DraftStep, FactKey},
    steps::StepSpec,
};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    id::Token,
    lock::LockHolder,
    plan::{Impact, LockImpact, Scope},
};
use std::collections::BTreeSet;

pub fn plan(
    state: &State,
    observations: &Observations,
    action: Action,
    name: String,
    token: Option<Token>,
) -> Result<Draft, Refusal> {
    let unknown = || Refusal::new(Code::UnknownLock, format!("lock {name:?} has no holder and no waiter"));
    let lock = state.locks.detail(&name, state.clock).ok_or_else(unknown)?.lock;
    let holders: Vec<_> =
        lock.holders.into_iter().filter(|holder| token.is_none_or(|token| token == holder.token)).collect();
    let lifts_delay = holders.is_empty() && token.is_none() && lock.delayed_for_ms.is_some();
    if holders.is_empty() && !lifts_delay {
        return Err(match token {
            Some(token) => {
                Refusal::new(Code::LockLost, format!("token {token} does not hold {name}; look at it again"))
            }
            None => Refusal::new(Code::UnknownLock, format!("lock {name:?} has no holder")),
        });
    }
    let tokens: BTreeSet<Token> = holders.iter().map(|holder| holder.token).collect();
    let after = state.lock_without(&name, &tokens).ok_or_else(unknown)?;
    let is_new = |holder: &LockHolder| holder.token >= state.locks.next_token();
    let promoted: Vec<_> = after.holders.into_iter().filter(is_new).collect();
    let mut warnings = vec![if lifts_delay {
        Warning::DelayLifted { lock: name.clone() }
    } else {
        Warning::HolderNotAsked { lock: name.clone() }
    }];
    if let Some(delay_ms) = after.delayed_for_ms {
        warnings.push(Warning::LockDelay { lock: name.clone(), delay_ms });
    }
    let draft = draft(state, observations, action, Scope::Lock(name.clone()), [FactKey::Lock(name.clone())]);
    Ok(Draft {
        summary: summary(&name, &holders, &promoted, lifts_delay),
        impact: Impact {
            lock: Some(LockImpact { holders, promoted, next_token: state.locks.next_token() }),
            ..draft.impact
        },
        warnings: texts_of_warnings(&warnings),
        steps: steps(name, tokens),
        ..draft
    })
}

fn steps(name: String, tokens: BTreeSet<Token>) -> Vec<DraftStep> {
    let title = if tokens.is_empty() {
        format!("Lift the delay of {name}")
    } else {
        format!("Take {name} away from its holders")
    };
    vec![step(StepSpec::ReleaseLock { name, tokens }, title, ENTRY_WITHIN)]
}

fn summary(name: &str, holders: &[LockHolder], promoted: &[LockHolder], lifts_delay: bool) -> String {
    let owners = |holders: &[LockHolder]| {
        holders.iter().map(|holder| holder.owner.as_str()).collect::<Vec<_>>().join(", ")
    };
    let next = match promoted {
        [] => "No owner waits for it.".to_owned(),
        [next] => format!("Next is {}, with a token of {} or more.", next.owner, next.token),
        next => format!("Next are {}, with tokens of {} or more.", owners(next), next[0].token),
    };
    if lifts_delay {
        format!("{name} can be granted again at once. {next}")
    } else {
        format!("{name} is taken away from {}. {next}", owners(holders))
    }
}
