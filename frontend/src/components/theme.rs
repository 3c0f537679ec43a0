//! The theme: light, dark, or as the system has it.
//!
//! Test id: `theme`.

use crate::{
    browser::Theme,
    components::live::{click, text},
};
use leptos::prelude::*;

/// The theme, as the reader chose it.
#[derive(Clone, Copy, Debug)]
pub struct ThemeSwitch(RwSignal<Theme>);

impl ThemeSwitch {
    pub fn new() -> Self {
        ThemeSwitch(RwSignal::new(Theme::preferred()))
    }

    pub fn next(self) {
        self.0.update(|theme| *theme = theme.next());
        self.0.get_untracked().apply();
    }
}

pub fn theme_button() -> AnyView {
    let theme = expect_context::<ThemeSwitch>();
    let label = text(move || {
        let theme = theme.0.get();
        format!("Theme: {}. Switch to {}", theme.as_str(), theme.next().as_str())
    });
    let path = text(move || {
        match theme.0.get() {
            Theme::Light => "M8 4.5a3.5 3.5 0 1 1 0 7a3.5 3.5 0 0 1 0-7zM8 .5v1.5M8 14v1.5M.5 8h1.5M14 8h1.5M2.7 2.7l1.1 1.1M12.2 12.2l1.1 1.1M2.7 13.3l1.1-1.1M12.2 3.8l1.1-1.1",
            Theme::Dark => "M13.5 9.7A6 6 0 0 1 6.3 2.5A6 6 0 1 0 13.5 9.7z",
            Theme::System => "M1.5 2.5h13v8.5h-13zM5.5 14h5M8 11v3",
        }
        .to_owned()
    });
    view! {
        <button type="button" class="pill icon" data-testid="theme" title=label aria-label=label on:click=click(move || theme.next())>
            <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d=path /></svg>
        </button>
    }
    .into_any()
}
