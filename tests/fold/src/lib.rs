//! The browser's fold, as WebAssembly, checked against views that the server computed.
//!
//! The host pushes the histories byte by byte, calls [`check`], and reads the report byte by byte. Numbers alone
//! cross the border, so that no memory is shared and no bindings are needed.

use ringmaster_common::{event::EventBatch, view::ClusterView};
use serde::Deserialize;
use std::cell::RefCell;

/// A history: batches of events, and the view that the server has after each.
#[derive(Deserialize)]
struct History {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    batch: EventBatch,
    view: ClusterView,
}

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static REPORT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Takes the next byte of the histories, a JSON array.
#[unsafe(no_mangle)]
pub extern "C" fn push(byte: u32) {
    INPUT.with_borrow_mut(|input| input.push(byte as u8));
}

/// Folds all histories. Returns the number of checked steps, or 0 with a report of the first difference.
#[unsafe(no_mangle)]
pub extern "C" fn check() -> u32 {
    match INPUT.with_borrow(|input| fold_all(input)) {
        Ok(steps) => steps,
        Err(difference) => {
            REPORT.set(difference.into_bytes());
            0
        }
    }
}

/// The byte of the report at a position, and 0 behind its end.
#[unsafe(no_mangle)]
pub extern "C" fn report(position: u32) -> u32 {
    REPORT.with_borrow(|report| report.get(position as usize).copied().unwrap_or(0).into())
}

fn fold_all(input: &[u8]) -> Result<u32, String> {
    let histories: Vec<History> =
        serde_json::from_slice(input).map_err(|error| format!("the histories cannot be decoded: {error}"))?;
    let mut checked = 0;
    for (number, history) in histories.iter().enumerate() {
        let mut folded = ClusterView::default();
        for step in &history.steps {
            folded.fold(&step.batch);
            if folded != step.view {
                return Err(format!(
                    "history {number}, revision {}:\nfolded {folded:?}\nserver {:?}",
                    step.batch.revision, step.view
                ));
            }
            checked += 1;
        }
    }
    Ok(checked)
}
