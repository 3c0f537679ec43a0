//! `Ctrl K` or `?`: everything that the page can show or do, by typing, and the keys that do it.
//!
//! Test ids: `palette`, `palette-input`, `palette-item`.

use crate::{
    address::use_address,
    browser,
    components::{
        chaos::ChaosAction,
        drawer::{follow_dialog, on_backdrop},
        live::{click, keys, live, optional, text, typed},
        member_controls::actions,
        plan_button::Offer,
        plan_panel::use_plan_panel,
        theme::ThemeSwitch,
    },
    format::capitalised,
    store::{Store, use_store},
};
use leptos::{ev, html::Dialog, prelude::*};
use ringmaster_common::{
    action::Action,
    demo::Chaos,
    id::{GroupId, NodeId},
};

/// Pages that `g` and a letter lead to.
pub const PLACES: [(&str, &str, &str); 9] = [
    ("o", "Overview", "/"),
    ("n", "Nodes", "/nodes"),
    ("c", "Consensus", "/consensus"),
    ("t", "Traffic", "/traffic"),
    ("l", "Locks", "/locks"),
    ("p", "Operations", "/operations"),
    ("e", "Events", "/events"),
    ("a", "Audit", "/audit"),
    ("s", "Settings", "/settings"),
];

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

    pub fn toggle(self) {
        self.open.update(|open| *open = !*open);
    }
}

/// The effect of an item.
#[derive(Clone, Debug, PartialEq)]
enum Does {
    Go(String),
    Plan(Action),
    Chaos(Chaos, NodeId),
    AddNode,
    Theme,
    Docs,
}

#[derive(Clone, Debug, PartialEq)]
struct Item {
    kind: &'static str,
    label: String,
    does: Does,
    /// The letter that leads there after `g`.
    key: &'static str,
}

impl Item {
    fn new(kind: &'static str, label: impl Into<String>, does: Does) -> Self {
        Item { kind, label: label.into(), does, key: "" }
    }

    fn has(&self, words: &str) -> bool {
        let text = format!("{} {}", self.label, self.kind).to_ascii_lowercase();
        words.to_ascii_lowercase().split_ascii_whitespace().all(|word| text.contains(word))
    }
}

fn items(store: Store) -> Vec<Item> {
    let place = |(key, label, path): (&'static str, &str, &str)| Item {
        key,
        ..Item::new("page", label, Does::Go(path.to_owned()))
    };
    let mut items: Vec<Item> = PLACES.into_iter().map(place).collect();
    items.push(Item::new("page", "API docs", Does::Docs));
    items.push(Item::new("page", "New setting", Does::Go("/settings?new=1".to_owned())));
    items.push(Item::new("page", "New upstream", Does::Go("/traffic?new=upstream".to_owned())));
    items.push(Item::new("page", "New route", Does::Go("/traffic?new=route".to_owned())));
    store.with_view(|view| {
        for upstream in view.upstreams.values() {
            let name = &upstream.name;
            items.push(Item::new("upstream", name.clone(), Does::Go(format!("/traffic/upstreams/{name}"))));
            if upstream.primary.is_some() && store.is_live() {
                let action = Action::FailOverUpstream { upstream: name.clone(), to: None };
                items.push(Item::new("plan", format!("Fail over: upstream {name}…"), Does::Plan(action)));
            }
        }
    });
    let leader = store.leader();
    let ids = store.node_ids.get();
    for id in &ids {
        let Some(node) = store.node(*id) else { continue };
        let (name, voter) = node.facts.with(|node| (node.name.clone(), node.voter));
        items.push(Item::new("node", format!("Node {id} · {name}"), Does::Go(format!("/nodes/{id}"))));
        if voter && leader != Some(*id) && store.is_live() {
            let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: *id };
            items.push(Item::new("plan", format!("Make node {id} the leader…"), Does::Plan(action)));
        }
        if store.is_live() {
            for Offer { label, action, .. } in actions(store, *id) {
                items.push(Item::new("plan", format!("{label}: node {id} · {name}…"), Does::Plan(action)));
            }
        }
    }
    store.operations.with(|operations| {
        for operation in operations.iter().take(OPERATIONS) {
            let label = format!("Operation {} · {}", operation.id, operation.action);
            items.push(Item::new("operation", label, Does::Go(format!("/operations/{}", operation.id))));
        }
    });
    if store.demo.get() {
        for id in &ids {
            for chaos in Chaos::ALL {
                let label = format!("{} node {id}", capitalised(chaos.as_str()));
                items.push(Item::new("demo chaos", label, Does::Chaos(*chaos, *id)));
            }
        }
        items.push(Item::new("demo chaos", "Add a node", Does::AddNode));
    }
    items.push(Item::new("this page", "Switch the theme: light, dark, system", Does::Theme));
    items
}

pub fn palette_dialog() -> AnyView {
    let palette = expect_context::<Palette>();
    let store = use_store();
    let panel = use_plan_panel();
    let address = use_address();
    let theme = expect_context::<ThemeSwitch>();
    let action = expect_context::<ChaosAction>();
    let dialog = NodeRef::<Dialog>::new();
    let sought = RwSignal::new(String::new());
    let chosen = RwSignal::new(0_usize);

    let found = Memo::new(move |_| {
        let open = palette.open.get();
        let all = if open { items(store) } else { Vec::new() };
        sought.with(|sought| all.into_iter().filter(|item| item.has(sought)).collect::<Vec<_>>())
    });
    Effect::new(move |_| {
        if palette.open.get() {
            sought.set(String::new());
            chosen.set(0);
        }
    });
    follow_dialog(dialog, palette.open.into());

    let run = move |index: usize| {
        let Some(item) = found.with_untracked(|found| found.get(index).cloned()) else { return };
        palette.open.set(false);
        match item.does {
            Does::Go(path) => address.go(&path, false),
            Does::Plan(action) => panel.propose(action),
            Does::Docs => browser::leave_for("/docs"),
            Does::Theme => theme.next(),
            // Both answer on the page of nodes.
            Does::Chaos(chaos, id) => {
                address.go("/nodes", false);
                action.run(chaos, id);
            }
            Does::AddNode => {
                address.go("/nodes", false);
                action.add_node();
            }
        }
    };
    let on_key = move |event: ev::KeyboardEvent| {
        let last = found.with_untracked(Vec::len).saturating_sub(1);
        let at = chosen.get_untracked();
        match event.key().as_str() {
            "ArrowDown" => chosen.set(if at >= last { 0 } else { at + 1 }),
            "ArrowUp" => chosen.set(if at == 0 { last } else { at - 1 }),
            "Home" => chosen.set(0),
            "End" => chosen.set(last),
            "Enter" => run(at),
            _ => return,
        }
        event.prevent_default();
        request_animation_frame(|| browser::scroll_into_view(".palette [aria-selected=true]"));
    };
    let option = move |(index, item): (usize, Item)| {
        let shortcut = (!item.key.is_empty())
            .then(|| view! { <span class="keys"><kbd>"g"</kbd> " " <kbd>{item.key}</kbd></span> }.into_any());
        view! {
            <li
                id=format!("palette-{index}")
                role="option"
                data-testid="palette-item"
                aria-selected=text(move || (chosen.get() == index).to_string())
                on:click=click(move || run(index))
                on:mousemove=click(move || crate::signal::set(chosen, index))
            >
                <span class="clip">{item.label}</span>
                {shortcut} <span class="quiet">{item.kind}</span>
            </li>
        }
        .into_any()
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
            on:mousedown=move |event| {
                if on_backdrop(&event) {
                    palette.open.set(false);
                }
            }
        >
            <div>
                <input
                    type="text"
                    autofocus
                    role="combobox"
                    aria-expanded="true"
                    aria-controls="palette-list"
                    aria-activedescendant=optional(move || {
                        found.with(|found| !found.is_empty()).then(|| format!("palette-{}", chosen.get()))
                    })
                    aria-label="A page, a node, an action"
                    placeholder="A page, a node, an action…"
                    data-testid="palette-input"
                    autocomplete="off"
                    spellcheck="false"
                    prop:value={sought}
                    on:input=typed(move |text| {
                        sought.set(text);
                        chosen.set(0);
                    })
                    on:keydown=keys(on_key)
                />
                <ul id="palette-list" role="listbox" aria-label="Results">
                    {live(move || found.get().into_iter().enumerate().map(option).collect_view())}
                </ul>
                <p class="quiet palette-none" role="status">
                    {text(move || {
                        let none = found.with(Vec::is_empty) && sought.with(|sought| !sought.is_empty());
                        if none { "Nothing matches. Locks and settings have a search on their pages." } else { "" }.to_owned()
                    })}
                </p>
                <p class="quiet palette-foot">
                    <kbd>"↑"</kbd>
                    " "
                    <kbd>"↓"</kbd>
                    " choose · "
                    <kbd>"Enter"</kbd>
                    " go · "
                    <kbd>"Esc"</kbd>
                    " close · "
                    <kbd>"/"</kbd>
                    " filter · "
                    <kbd>"h"</kbd>
                    " hold a list · "
                    <kbd>"?"</kbd>
                    " this list · commands with … open a plan first"
                </p>
            </div>
        </dialog>
    }
    .into_any()
}
