//! One upstream: its endpoints with what each does right now, what can be done with them, who sees which of them
//! healthy, why requests went where they went, and what happened.
//!
//! A change of the serving endpoints is a plan. Weights, checks and automatic failover are configuration, written with
//! the version that the reader saw.
//!
//! Test ids: `upstream-status`, `upstream-problem`, `fail-over`, `automatic`, `countdown`, `edit-upstream`, `new-endpoint`, and those of
//! [`endpoints`], [`observers`], [`why`] and [`crate::components::form`].

mod endpoints;
mod observers;
mod why;

use crate::{
    address::use_address,
    api::ApiError,
    browser,
    components::{
        feed::{RowDetail, feed},
        form::{at, set_at},
        icons::labelled,
        live::{class_if, click, either, live, text, when},
        load::{failures, load_of, rate_cell},
        plan_button::{Offer, page_plan_button},
        text::{callout, card, empty, line, moment, quantity, quiet, refusal, revision, skeleton},
    },
    format::{self, grouped, micros, seconds_left},
    pages::traffic::forms,
    store::{Store, use_store},
    timeline::{Entry, Kind},
    tone::Tone,
    traffic::{TrafficScope, mode},
    upstream_health::{availability, problem, tone},
};
use leptos::{ev, prelude::*, task::spawn_local};
use ringmaster_common::{
    action::Action,
    id::Revision,
    traffic::upstream::{Primary, Upstream},
};
use serde_json::{Value, json};

/// How many events about the upstream are shown.
const EVENTS: usize = 14;

/// The upstream that a page is about, for as long as it is there.
type Shown = Memo<Option<Upstream>>;

pub fn upstream_page(name: String) -> AnyView {
    let store = use_store();
    store.traffic_wanted.set(Some(name.clone()));
    on_cleanup(move || store.traffic_wanted.set(None));
    let upstream = {
        let name = name.clone();
        Memo::new(move |_| store.with_view(|view| view.upstreams.get(&name).cloned()))
    };
    let name_of_none = name.clone();
    either(
        move || upstream.with(Option::is_some),
        move || known(store, name.clone(), upstream),
        move || unknown(store, name_of_none.clone()),
    )
    .into_any()
}

/// There is no upstream of that name, now or any more. Its past events are still shown.
fn unknown(store: Store, name: String) -> AnyView {
    let past = headlines_of(store, &name);
    let title = name.clone();
    let missing = move || {
        let ways = view! {
            <p>
                "There is no upstream named " <b class="whole-name" data-testid="unknown-upstream">{name.clone()}</b>
                ". " <a href="/traffic">"See all upstreams"</a> ", or "
                <a href="/traffic?new=upstream">"make a new one"</a> "."
            </p>
        };
        let events = move || card("", "events-title", "Events", ().into_any(), happened(past));
        view! {
            {empty("Upstream not found", ways.into_any())}
            {when(move || !past.with(Vec::is_empty), events)}
        }
        .into_any()
    };
    view! {
        <div class="page">
            <div class="page-head">{heading(title)}</div>
            {either(move || store.loaded.get(), missing, || skeleton(6))}
        </div>
    }
    .into_any()
}

fn heading(name: String) -> AnyView {
    view! { <h1><a class="plain quiet" href="/traffic">"Traffic /"</a> <span class="whole-name">{name}</span></h1> }
        .into_any()
}

fn known(store: Store, name: String, upstream: Shown) -> AnyView {
    let address = use_address();
    let said = RwSignal::new(None::<ApiError>);
    let primary = Memo::new(move |_| upstream.with(|upstream| upstream.as_ref()?.primary.clone()));
    let is_standby = move || primary.with(Option::is_some);
    let load = load_of(TrafficScope::Upstream(name.clone()));
    let status = live(move || {
        upstream.with(|upstream| {
            let upstream = upstream.as_ref()?;
            let tone = store.with_view(|view| tone(view, upstream, load.get()));
            Some(labelled(tone, &availability(upstream).in_words()))
        })
    });
    let trouble = Memo::new(move |_| {
        let now = store.now.get();
        let time_of = |at| format::moment(at, now, browser::offset_minutes(now));
        let found = upstream.with(|upstream| {
            store.with_view(|view| problem(view, upstream.as_ref()?, load.get(), &time_of))
        })?;
        let text = format!("{}. {} {}", found.text, found.effect, found.reaction);
        Some((found.tone, text.trim().to_owned()))
    });
    let how = text(move || upstream.with(|upstream| upstream.as_ref().map(mode).unwrap_or_default()));
    let fail_over = {
        let name = name.clone();
        move || {
            let action = Action::FailOverUpstream { upstream: name.clone(), to: None };
            page_plan_button(Offer::new("fail-over", "Fail over…", action))
        }
    };
    let all_events =
        view! { <a href=format!("/events?kind=traffic&words={name}")>"all its events"</a> }.into_any();
    let form = Memo::new(move |_| (address.parameter("edit"), address.parameter("new")));
    let editor = {
        let name = name.clone();
        live(move || {
            let (edited, new) = form.get();
            opened(&name, upstream, edited.as_deref(), new.is_some())
        })
    };
    let open = move |key: &'static str, value: &'static str| {
        click(move || address.set_parameter(key, Some(value), true))
    };
    let title = name.clone();
    view! {
        <div class="page">
            <div class="page-head">
                {heading(title)}
                <span class="chip">{how}</span>
                <span data-testid="upstream-status">{status}</span>
                <span class="spacer"></span>
                <div class="controls" role="group" aria-label="Actions for the upstream">
                    <button type="button" data-testid="new-endpoint" on:click=open("new", "endpoint")>"New endpoint"</button>
                    <button type="button" data-testid="edit-upstream" on:click=open("edit", "")>"Edit"</button>
                    {when(is_standby, fail_over)}
                </div>
            </div>
            {live(move || {
                trouble.get().map(|(tone, text)| {
                    let sentence = view! { <span data-testid="upstream-problem">{text}</span> };
                    callout(tone, sentence.into_any())
                })
            })}
            {when(is_standby, {
                let name = name.clone();
                move || standby(store, &name, upstream, primary, said)
            })}
            {live(move || said.get().map(|error| refusal(&error)))}
            {editor}
            {card("", "endpoints-title", "Endpoints", summary(&name), endpoints::endpoints(store, &name, upstream))}
            <div class="columns">
                {card("", "observers-title", "Health by node", quiet("each node runs its own checks".to_owned()), observers::matrix(store, upstream))}
                {card("", "why-title", "Routing decisions", quiet("a sample of the latest requests".to_owned()), why::decisions(store, &name))}
                {card("", "events-title", "Events", all_events, happened(headlines_of(store, &name)))}
                {card("", "leads-title", "Configured", live(move || changed(upstream)).into_any(), configured(store, &name, upstream))}
            </div>
        </div>
    }
    .into_any()
}

/// The load over all nodes, in the heading of its endpoints.
fn summary(name: &str) -> AnyView {
    let what = TrafficScope::Upstream(name.to_owned());
    let load = load_of(what.clone());
    view! {
        <span class="measures">
            {rate_cell(load, what)}
            <span>{live(move || quantity(failures(load.get())))} " failing"</span>
            <span>"p99 " {live(move || quantity(load.get().p99_us.map(micros)))}</span>
            <span>{text(move || grouped(load.get().in_flight))} " in flight"</span>
        </span>
    }
    .into_any()
}

/// The form that the address names: the upstream's own, or that of an endpoint.
fn opened(name: &str, upstream: Shown, edited: Option<&str>, new: bool) -> Option<AnyView> {
    let address = use_address();
    let close = move || {
        address.set_parameter("edit", None, true);
        address.set_parameter("new", None, true);
    };
    let of = name.to_owned();
    let shown = match (edited, new) {
        (_, true) => {
            let version =
                upstream.with_untracked(|upstream| upstream.as_ref().map(|upstream| upstream.version));
            untrack(|| forms::endpoint(of, None, json!({}), version, move |_| close()))
        }
        (Some(""), _) => forms::loaded(format!("/v1/upstreams/{name}"), move |body, version| {
            let of = of.clone();
            forms::upstream(Some(of), body, version, move |_| close())
        }),
        (Some(endpoint), _) => {
            let endpoint = endpoint.to_owned();
            let version =
                upstream.with_untracked(|upstream| upstream.as_ref().map(|upstream| upstream.version));
            forms::loaded(format!("/v1/upstreams/{name}/endpoints/{endpoint}"), move |body, _| {
                forms::endpoint(of.clone(), Some(endpoint.clone()), body, version, move |_| close())
            })
        }
        (None, false) => return None,
    };
    Some(view! { <section class="card" aria-label="Configure">{shown}</section> }.into_any())
}

/// The primary, the switch for automatic failover, and the countdown to it.
fn standby(
    store: Store,
    name: &str,
    upstream: Shown,
    primary: Memo<Option<Primary>>,
    said: RwSignal<Option<ApiError>>,
) -> AnyView {
    let version =
        Memo::new(move |_| upstream.with(|upstream| upstream.as_ref().map(|upstream| upstream.version)));
    let config = RwSignal::new(None::<Value>);
    let path = format!("/v1/upstreams/{name}");
    let fetched = path.clone();
    Effect::new(move |_| {
        version.get();
        let path = fetched.clone();
        spawn_local(async move {
            match store.api.value(&path).await {
                Ok(value) => config.set(Some(value)),
                Err(error) => said.set(Some(error)),
            }
        });
    });
    let automatic = class_if(move || {
        config.with(|config| {
            config.as_ref().is_some_and(|config| at(config, "active_standby.automatic") == true)
        })
    });
    let turn: Box<dyn FnMut(ev::MouseEvent)> = Box::new(move |event| {
        // The switch moves when the cluster has agreed, and stays where that is refused.
        event.prevent_default();
        let Some(mut body) = config.get_untracked() else { return };
        let known = body["version"].as_u64().map(Revision);
        let on = !automatic.get_untracked();
        set_at(&mut body, "active_standby.automatic", on.into());
        let path = path.clone();
        said.set(None);
        spawn_local(async move {
            match store.api.put(path, body, known).await {
                Ok(value) => config.set(Some(value)),
                Err(error) => said.set(Some(error)),
            }
        });
    });
    let who = live(move || {
        let primary = primary.get()?;
        let shown = match &primary.endpoint {
            Some(endpoint) => view! { <b data-testid="primary">{endpoint.clone()}</b> " is primary in epoch " {grouped(primary.epoch)} }.into_any(),
            None => view! { <b data-testid="primary">"none"</b> " is primary, so no request is served; the last epoch is " {grouped(primary.epoch)} }.into_any(),
        };
        Some(view! { {shown} ", since " {moment(primary.since)} }.into_any())
    });
    let due = move || primary.with(|primary| primary.as_ref()?.fails_over_at);
    let countdown = move || {
        let text = text(move || match due() {
            Some(at) => format!(
                "The primary is down. Automatic failover in {} s, unless it is healthy again before.",
                seconds_left(at, store.now.get())
            ),
            None => String::new(),
        });
        view! { <div data-testid="countdown" role="status">{callout(Tone::Warning, view! { <span>{text}</span> }.into_any())}</div> }.into_any()
    };
    view! {
        <section class="card standby" aria-label="Primary">
            <p>{who}</p>
            <label class="switch">
                <span>"Fail over automatically when the primary is down"</span>
                <input
                    type="checkbox"
                    role="switch"
                    data-testid="automatic"
                    disabled=class_if(move || config.with(Option::is_none) || !store.is_live())
                    prop:checked=automatic
                    on:click=turn
                />
            </label>
            {when(move || due().is_some(), countdown)}
        </section>
    }
    .into_any()
}

fn changed(upstream: Shown) -> Option<AnyView> {
    upstream.with(|upstream| {
        let upstream = upstream.as_ref()?;
        let (by, at, version) = (upstream.updated_by.clone(), upstream.updated_at, upstream.version);
        Some(
            view! { <span class="quiet">"by " {by} ", " {moment(at)} " " {revision(version)}</span> }
                .into_any(),
        )
    })
}

fn configured(store: Store, name: &str, upstream: Shown) -> AnyView {
    let name = name.to_owned();
    let routes = live(move || {
        let names: Vec<(String, String)> = store.with_view(|view| {
            let here = view.routes.values().filter(|route| route.spec.upstream == name);
            let entry = |route: &ringmaster_common::traffic::route::Route| {
                let host = route.spec.host.as_deref().unwrap_or_default();
                (route.name.clone(), format!("{host}{}", route.spec.path_prefix))
            };
            here.map(entry).collect()
        });
        if names.is_empty() {
            return quiet("No route: no request comes here.".to_owned());
        }
        let link = |(name, matched): (String, String)| {
            view! { <a class="pill" href=format!("/traffic?edit={name}")>{name.clone()} " " <code>{matched}</code></a> " " }.into_any()
        };
        names.into_iter().map(link).collect_view().into_any()
    });
    let says = move |read: fn(&Upstream) -> String| {
        text(move || upstream.with(|upstream| upstream.as_ref().map(read).unwrap_or_default()))
    };
    view! {
        <dl>
            {line("Routes", routes)}
            {line("Mode", says(mode))}
            {line("Protocol", says(|upstream| upstream.config.protocol.as_str().to_owned()))}
        </dl>
    }
    .into_any()
}

/// The headlines about it, the latest first.
fn headlines_of(store: Store, name: &str) -> Memo<Vec<Entry>> {
    let name = name.to_owned();
    Memo::new(move |_| {
        store.headlines.with(|headlines| {
            let about = headlines.iter().filter(|entry| {
                matches!(entry.kind, Kind::Traffic | Kind::Operations) && names(&entry.sentence, &name)
            });
            about.take(EVENTS).cloned().collect()
        })
    })
}

fn happened(entries: Memo<Vec<Entry>>) -> AnyView {
    let nothing = || quiet("No events loaded for this upstream.".to_owned());
    view! { {feed(entries, RowDetail::Short)} {when(move || entries.with(Vec::is_empty), nothing)} }
        .into_any()
}

/// Whether a sentence names an upstream: `web` is not in `web-2`.
fn names(sentence: &str, name: &str) -> bool {
    sentence.split([' ', ':', ',', ';']).any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn one_name_is_not_another() {
        assert!(names("Endpoint e1 of web is unhealthy; unhealthy to 1, 2", "web"));
        assert!(names("Fail over upstream web: done", "web"));
        assert!(!names("Endpoint e1 of web-2 is healthy", "web"));
    }
}
