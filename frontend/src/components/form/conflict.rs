//! Edit conflicts: another change of the object while a form was open, and the ways out.
//!
//! Nothing is merged, and nothing is overwritten unseen. The stream reports the other change before the reader saves;
//! if it is late, the version in the request does.

use crate::{
    components::{
        live::click,
        text::{callout, revision},
    },
    tone::Tone,
};
use leptos::prelude::*;
use ringmaster_common::id::Revision;

/// Whether the object was changed or removed since the form was opened. The stream may be behind the version that the
/// form shows.
fn is_overtaken(current: Option<&(Revision, String)>, base: Option<Revision>) -> bool {
    base.is_some_and(|base| current.is_none_or(|(version, _)| *version > base))
}

/// The conflicting change, and the ways out.
pub fn conflict(
    current: Option<(Revision, String)>,
    base: RwSignal<Option<Revision>>,
    start_again: impl Fn() + 'static,
) -> Option<AnyView> {
    if !is_overtaken(current.as_ref(), base.get()) {
        return None;
    }
    let choice = |id: &'static str, label: &'static str, act: Box<dyn Fn()>| {
        view! { <button type="button" class="small" data-testid=id on:click=click(act)>{label}</button> }
            .into_any()
    };
    let contents = match current {
        Some((now, by)) => view! {
            <p>
                <strong>{by} " has changed it meanwhile"</strong> ", at revision " {revision(now)}
                ". Nothing of yours is saved yet: say which of the two it is to be."
            </p>
            <div class="buttons">
                {choice("form-theirs", "Load theirs, and lose mine", Box::new(start_again))}
                {choice("form-overwrite", "Keep mine, and overwrite theirs", Box::new(move || base.set(Some(now))))}
            </div>
        }
        .into_any(),
        None => view! {
            <p><strong>"It has been removed meanwhile."</strong> " Nothing of yours is saved yet."</p>
            <div class="buttons">{choice("form-anew", "Make it anew from mine", Box::new(move || base.set(None)))}</div>
        }
        .into_any(),
    };
    Some(
        view! { <div data-testid="form-conflict" role="alert">{callout(Tone::Warning, contents)}</div> }
            .into_any(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_that_was_overtaken_is_reported() {
        let now = |version| Some((Revision(version), "ops".to_owned()));
        assert!(is_overtaken(now(8).as_ref(), Some(Revision(7))));
        assert!(is_overtaken(None, Some(Revision(7))), "it was removed");
        assert!(!is_overtaken(now(7).as_ref(), Some(Revision(7))));
        assert!(!is_overtaken(now(6).as_ref(), Some(Revision(7))), "the stream is behind");
        assert!(!is_overtaken(now(8).as_ref(), None), "a new one has no version yet");
    }
}
