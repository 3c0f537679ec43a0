use super::*;
use crate::http::route_table::ROWS;
use ringmaster_common::action::Action;
use std::{collections::BTreeSet, sync::LazyLock};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| Description::of(ROWS).document().clone());

/// Each operation: its path, its method and its description.
fn operations() -> Vec<(String, String, Value)> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().clone();
        let path = path.clone();
        methods.into_iter().map(move |(method, operation)| (path.clone(), method, operation))
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn the_document_has_the_rows_of_the_route_table_and_no_others() {
    let documented: BTreeSet<_> = operations()
        .into_iter()
        .map(|(path, method, operation)| (path, method, operation["x-permission"].to_string()))
        .collect();
    let rows: BTreeSet<_> = ROWS
        .iter()
        .map(|row| {
            let permission = json!(row.policy.permission.as_str()).to_string();
            (row.path.replace("{*", "{"), format!("{:?}", row.method).to_lowercase(), permission)
        })
        .collect();
    assert_eq!(rows.len(), ROWS.len(), "a path takes a method once");
    assert_eq!(documented, rows);
}

#[test]
fn a_change_needs_more_than_the_permission_to_view() {
    use crate::http::{policy::Permission, row::Method};
    for row in ROWS.iter().filter(|row| row.method != Method::Get) {
        assert!(row.policy.permission >= Permission::Use, "{:?} {}", row.method, row.path);
    }
}

#[test]
fn operations_have_names_tags_and_summaries_of_their_own() {
    let known: BTreeSet<_> =
        DOCUMENT["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone().to_string()).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations() {
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
