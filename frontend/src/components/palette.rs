//! `Ctrl K`: everything that the page can show or do, by typing.
//!
//! Test ids: `palette`, `palette-input`, `palette-item`.

use crate::{
    browser,
    components::{
        desk::{Desk, use_desk},
        shell::ThemeSwitch,
    },
    format::capitalised,
    store::{Store, use_store},
};
use leptos::{ev, html::Dialog, prelude::*, task::spawn_local};
use ringmaster_common::{demo::Chaos, id::NodeId};
use wasm_bindgen::JsCast;

/// How many of the latest operations it offers.
const OPERATIONS: usize = 10;

#[derive(Clone, Copy, Debug)]
pub struct Palette {
    open: RwSignal<bool>,
}

impl Palette {
    pub fn new() -> Self {
        Palette { open: RwSignal::new(false) }
    }

    pub fn open(self) {
        self.open.set(true);
    }
}

/// What an item does.
#[derive(Clone, Debug, PartialEq)]
enum Does {
    Go(String),
    HandOver(NodeId),
    Chaos(NodeId, Chaos),
    AddNode,
    Theme,
}

#[derive(Clone, Debug, PartialEq)]
struct Item {
    kind: &'static str,
    label: String,
    does: Does,
}

fn items(store: Store) -> Vec<Item> {
    let item = |kind, label: &str, does| Item { kind, label: label.to_owned(), does };
    let mut items: Vec<Item> =
        [("Overview", "/"), ("Nodes", "/nodes"), ("Operations", "/operations"), ("Events", "/events")]
            .map(|(label, path)| item("page", label, Does::Go(path.to_owned())))
            .to_vec();
    let leader = store.leader();
    let ids = store.node_ids.get();
    for id in &ids {
        let Some(node) = store.node(*id) else { continue };
        let (name, voter) = node.facts.with(|node| (node.name.clone(), node.voter));
        items.push(item("node", &format!("Node {id} · {name}"), Does::Go(format!("/nodes/{id}"))));
        if voter && leader != Some(*id) {
            items.push(item("plan", &format!("Make node {id} the leader…"), Does::HandOver(*id)));
        }
    }
    store.operations.with(|operations| {
        for operation in operations.iter().take(OPERATIONS) {
            let label = format!("Operation {} · {}", operation.id, operation.action);
            items.push(item("operation", &label, Does::Go(format!("/operations/{}", operation.id))));
        }
    });
    if store.demo.get() {
        for id in &ids {
            for chaos in Chaos::ALL {
                let label = format!("{} node {id}", capitalised(chaos.as_str()));
                items.push(item("chaos", &label, Does::Chaos(*id, *chaos)));
            }
        }
        items.push(item("chaos", "Add a node", Does::AddNode));
    }
    items.push(item("page setting", "Switch the theme: light, dark, system", Does::Theme));
    items
}

fn perform(does: Does, store: Store, desk: Desk, theme: ThemeSwitch) {
    match does {
        Does::Go(path) => desk.go(&path, false),
        Does::HandOver(id) => desk.hand_over(id),
        Does::Theme => theme.next(),
        Does::Chaos(id, chaos) => {
            // Its result is on the page that shows it; here only a refusal would be lost.
            desk.go(&format!("/nodes/{id}"), false);
            spawn_local(async move {
                if let Err(error) = store.api.chaos(id, chaos).await {
                    desk.refused.set(Some(error));
                }
            });
        }
        Does::AddNode => {
            desk.go("/nodes", false);
            spawn_local(async move {
                if let Err(error) = store.api.add_demo_node().await {
                    desk.refused.set(Some(error));
                }
            });
        }
    }
}

#[component]
pub fn PaletteDialog() -> impl IntoView {
    let palette = expect_context::<Palette>();
    let store = use_store();
    let desk = use_desk();
    let theme = expect_context::<ThemeSwitch>();
    let dialog = NodeRef::<Dialog>::new();
    let words = RwSignal::new(String::new());
    let chosen = RwSignal::new(0_usize);

    let found = Memo::new(move |_| {
        if !palette.open.get() {
            return Vec::new();
        }
        let words = words.get().to_lowercase();
        let matches = |item: &Item| {
            let text = format!("{} {}", item.label, item.kind).to_lowercase();
            words.split_whitespace().all(|word| text.contains(word))
        };
        items(store).into_iter().filter(matches).collect::<Vec<_>>()
    });

    Effect::new(move |_| {
        let Some(dialog) = dialog.get() else { return };
        match (palette.open.get(), dialog.open()) {
            (true, false) => {
                words.set(String::new());
                chosen.set(0);
                dialog.show_modal().ok();
            }
            (false, true) => dialog.close(),
            _ => {}
        }
    });
    let shortcut = window_event_listener(ev::keydown, move |event| {
        if (event.ctrl_key() || event.meta_key()) && event.key().eq_ignore_ascii_case("k") {
            event.prevent_default();
            palette.open.update(|open| *open = !*open);
        }
    });
    on_cleanup(move || shortcut.remove());

    let run = move |item: Item| {
        palette.open.set(false);
        perform(item.does, store, desk, theme);
    };
    let on_key = move |event: ev::KeyboardEvent| {
        let last = found.with(Vec::len).saturating_sub(1);
        match event.key().as_str() {
            "ArrowDown" => chosen.update(|chosen| *chosen = if *chosen >= last { 0 } else { *chosen + 1 }),
            "ArrowUp" => chosen.update(|chosen| *chosen = if *chosen == 0 { last } else { *chosen - 1 }),
            "Home" => chosen.set(0),
            "End" => chosen.set(last),
            "Enter" => {
                if let Some(item) = found.with(|found| found.get(chosen.get_untracked()).cloned()) {
                    run(item);
                }
            }
            _ => return,
        }
        event.prevent_default();
        request_animation_frame(|| browser::scroll_into_view(".palette [aria-selected=true]"));
    };
    let close_on_backdrop = move |event: ev::MouseEvent| {
        if event.target().is_some_and(|target| target.dyn_ref::<web_sys::HtmlDialogElement>().is_some()) {
            palette.open.set(false);
        }
    };
    view! {
        <dialog
            node_ref=dialog
            class="palette"
            data-testid="palette"
            aria-label="Go to"
            on:cancel=move |event: ev::Event| {
                event.prevent_default();
                palette.open.set(false);
            }
            on:mousedown=close_on_backdrop
        >
            <div>
                <input
                    type="text"
                    autofocus
                    role="combobox"
                    aria-expanded="true"
                    aria-controls="palette-list"
                    aria-activedescendant=move || format!("palette-{}", chosen.get())
                    aria-label="A page, a node, an action"
                    placeholder="A page, a node, an action…"
                    data-testid="palette-input"
                    autocomplete="off"
                    spellcheck="false"
                    prop:value=words
                    on:input=move |event| {
                        words.set(event_target_value(&event));
                        chosen.set(0);
                    }
                    on:keydown=on_key
                />
                <ul id="palette-list" role="listbox" aria-label="Found">
                    {move || {
                        found
                            .get()
                            .into_iter()
                            .enumerate()
                            .map(|(index, item)| {
                                let (kind, label) = (item.kind, item.label.clone());
                                view! {
                                    <li
                                        id=format!("palette-{index}")
                                        role="option"
                                        data-testid="palette-item"
                                        aria-selected=move || (chosen.get() == index).to_string()
                                        on:click=move |_| run(item.clone())
                                        on:mousemove=move |_| crate::store::set(chosen, index)
                                    >
                                        <span class="clip">{label}</span>
                                        <span class="quiet">{kind}</span>
                                    </li>
                                }
                            })
                            .collect_view()
                    }}
                </ul>
                <p class="quiet palette-foot">
                    {move || {
                        if found.with(Vec::is_empty) {
                            view! { "Nothing has these words." }.into_any()
                        } else {
                            view! {
                                <kbd>"↑"</kbd>
                                <kbd>"↓"</kbd>
                                " choose "
                                <kbd>"Enter"</kbd>
                                " go "
                                <kbd>"Esc"</kbd>
                                " close. What ends in “…” opens a plan first."
                            }
                                .into_any()
                        }
                    }}
                </p>
            </div>
        </dialog>
    }
}
