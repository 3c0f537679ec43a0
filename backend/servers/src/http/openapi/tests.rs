use super::*;
use ringmaster_common::action::Action;
use std::collections::BTreeSet;

fn documented() -> BTreeSet<String> {
    DOCUMENT["paths"].as_object().unwrap().keys().cloned().collect()
}

/// What the router really has, by what it says of itself.
fn routed() -> BTreeSet<String> {
    let (router, _) = routes().split_for_parts();
    let text = format!("{router:?}");
    let (own, _) = text.split_once("fallback_router").expect("a router tells its fallback last");
    let (_, paths) = own.split_once("paths: {").expect("a router tells its paths");
    paths
        .split('"')
        .skip(1)
        .step_by(2)
        .take_while(|path| path.starts_with('/'))
        .map(|path| path.replace("{*", "{"))
        .collect()
}

#[test]
fn every_route_is_documented_and_every_documented_route_is_there() {
    assert!(routed().len() > 20, "{:?}", routed());
    assert_eq!(routed(), documented());
}

#[test]
fn operations_have_names_tags_and_summaries_of_their_own() {
    let known: BTreeSet<_> =
        DOCUMENT["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone().to_string()).collect();
    let mut ids = BTreeSet::new();
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{place} has a name"));
            assert!(ids.insert(id.to_owned()), "{place}: {id} is taken");
            assert!(known.contains(&operation["tags"][0].to_string()), "{place}: {}", operation["tags"]);
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place}");
            for parameter in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(parameters.iter().any(|known| known["name"] == parameter), "{place}: {parameter}");
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    references(&DOCUMENT, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(DOCUMENT.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_action_has_an_example() {
    let examples = DOCUMENT
        .pointer("/paths/~1v1~1plans/post/requestBody/content/application~1json/examples")
        .and_then(Value::as_object)
        .unwrap();
    let shown: BTreeSet<_> =
        examples.values().filter_map(|example| example["value"]["action"]["type"].as_str()).collect();
    assert_eq!(shown, Action::TYPES.iter().copied().collect());
}
