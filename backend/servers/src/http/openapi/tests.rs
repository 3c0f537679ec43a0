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

fn schemas() -> &'static serde_json::Map<String, Value> {
    DOCUMENT["components"]["schemas"].as_object().unwrap()
}

/// Tools take the tag of a variant from the discriminator, and the name of its class from the schema.
#[test]
fn every_union_with_a_tag_names_its_variants() {
    let unions: Vec<_> = schemas().iter().filter(|(_, schema)| schema["discriminator"].is_object()).collect();
    let names: BTreeSet<_> = unions.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["Action", "ClientMessage", "Event", "HashKey", "HealthCheck", "ServerMessage"]
    );
    for (name, union) in unions {
        assert_eq!(union["discriminator"]["propertyName"], "type");
        let mapping = union["discriminator"]["mapping"].as_object().unwrap();
        let variants: BTreeSet<_> =
            union["oneOf"].as_array().unwrap().iter().map(|one| &one["$ref"]).map(Value::to_string).collect();
        assert_eq!(variants, mapping.values().map(Value::to_string).collect(), "{name}");
        for (tag, reference) in mapping {
            let variant = DOCUMENT.pointer(&reference.as_str().unwrap()[1..]).unwrap();
            let own = variant["allOf"].as_array().cloned().unwrap_or_else(|| vec![variant.clone()]);
            let tagged: Vec<_> = own.iter().filter(|part| part["properties"]["type"].is_object()).collect();
            assert_eq!(tagged.len(), 1, "{name} {tag}");
            // A constant would not be checked.
            assert_eq!(tagged[0]["properties"]["type"], json!({ "type": "string", "enum": [tag] }), "{name}");
            assert!(tagged[0]["required"].as_array().unwrap().contains(&json!("type")), "{name} {tag}");
        }
    }
}

/// Generators make further names from those of schemas and operations, which must be free.
#[test]
fn no_name_is_one_that_generators_make_themselves() {
    let pascal =
        |id: &str| -> String { id.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect() };
    // The parameters of an operation (typescript-fetch), the constructor of a type (go), keywords.
    let requests = operations()
        .into_iter()
        .map(|(.., operation)| format!("{}Request", pascal(operation["operationId"].as_str().unwrap())));
    let constructors = schemas().keys().map(|name| format!("New{name}"));
    let keywords = ["Import", "Class", "Default", "Enum", "Function", "Package", "Type"].map(str::to_owned);
    let taken: BTreeSet<_> = requests.chain(constructors).chain(keywords).collect();
    let colliding: Vec<_> = schemas().keys().filter(|name| taken.contains(*name)).collect();
    assert!(colliding.is_empty(), "{colliding:?}");
}

#[test]
fn pages_refer_to_the_schema_of_their_items() {
    let pages: Vec<_> = schemas().iter().filter(|(name, _)| name.starts_with("Page_")).collect();
    assert!(pages.len() > 8);
    for (name, page) in pages {
        let item = name.trim_start_matches("Page_");
        assert_eq!(
            page["properties"]["items"]["items"],
            json!({ "$ref": format!("#/components/schemas/{item}") })
        );
    }
}

#[test]
fn descriptions_are_prose() {
    fn check(value: &Value) {
        match value {
            Value::Object(map) => {
                let text = map.get("description").and_then(Value::as_str).unwrap_or_default();
                assert!(!text.contains("[`") && !text.contains("crate::"), "{text}");
                map.values().for_each(check);
            }
            Value::Array(list) => list.iter().for_each(check),
            _ => {}
        }
    }
    check(&DOCUMENT);
}

#[test]
fn a_body_that_may_be_left_out_has_a_plain_schema() {
    let body = &DOCUMENT["paths"]["/v1/plans/{id}/apply"]["post"]["requestBody"];
    let schema = &body["content"]["application/json"]["schema"];
    assert_eq!(schema, &json!({ "$ref": "#/components/schemas/ApplyRequest" }));
    assert_ne!(body["required"], true);
}

/// What a check says of a body.
type Check = fn(Value) -> Result<(), String>;

fn checked<T: serde::de::DeserializeOwned>(
    body: Value,
    check: fn(&T) -> Result<(), String>,
) -> Result<(), String> {
    let body: T = serde_json::from_value(body).map_err(|error| error.to_string())?;
    check(&body)
}

/// The documented bounds are those of the checks: each is accepted, and the next value beyond it refused.
#[test]
fn bounds_are_those_of_the_checks() {
    use ringmaster_common::{
        lock::AcquireLock,
        traffic::{register::Register, route::RouteSpec, upstream::UpstreamSpec},
    };
    let upstream: Check = |body| checked(body, UpstreamSpec::check);
    let within: fn(&str, Value) -> Value = |field, value| json!({ field: value });
    let cases: [(&str, Value, &str, Check); 14] = [
        ("AcquireLock", json!({ "name": "a", "owner": "b", "ttl_ms": 1000 }), "", |body| {
            checked(body, AcquireLock::check)
        }),
        ("Register", json!({ "id": "a", "addr": "a:1", "ttl_ms": 1000 }), "", |body| {
            checked(body, Register::check)
        }),
        ("RouteSpec", json!({ "upstream": "a" }), "", |body| checked(body, RouteSpec::check)),
        ("Configured_EndpointSpec", json!({}), "", upstream),
        ("EndpointSpec", json!({ "id": "a", "addr": "a:1" }), "endpoints", upstream),
        ("OutlierEjection", json!({ "base_ms": 100, "max_ms": 86_400_000 }), "outlier_ejection", upstream),
        ("Retries", json!({}), "retries", upstream),
        ("Timeouts", json!({}), "timeouts", upstream),
        ("ActiveStandby", json!({}), "active_standby", upstream),
        ("HashKeyHeader", json!({ "type": "header", "name": "a" }), "hash_key", upstream),
        ("HashKeyCookie", json!({ "type": "cookie", "name": "a" }), "hash_key", upstream),
        ("HealthCheckHttp", json!({ "type": "http" }), "health_check", upstream),
        ("HealthCheckTcp", json!({ "type": "tcp" }), "health_check", upstream),
        ("HealthCheckHeartbeat", json!({ "type": "heartbeat", "ttl_ms": 1000 }), "health_check", upstream),
    ];
    let mut bounds = 0;
    for (name, base, field, check) in cases {
        let try_with = |property: &str, value: Value| {
            let mut body = base.clone();
            body[property] = value;
            let body = match field {
                "" => body,
                "endpoints" => within(field, json!([body])),
                field => within(field, body),
            };
            check(body)
        };
        for (property, schema) in schemas()[name]["properties"].as_object().unwrap() {
            let text = |length: u64| {
                let start = match property.as_str() {
                    "path" | "path_prefix" | "rewrite_prefix" => "/",
                    "fence_webhook" => "http://a/",
                    _ => "",
                };
                let filled = (length as usize).saturating_sub(start.len());
                json!(if length == 0 { String::new() } else { start.to_owned() + &"a".repeat(filled) })
            };
            let probes = [
                (
                    "minimum",
                    schema["minimum"]
                        .as_u64()
                        .map(|min| (json!(min), min.checked_sub(1).map(|low| json!(low)))),
                ),
                ("maximum", schema["maximum"].as_u64().map(|max| (json!(max), Some(json!(max + 1))))),
                ("minLength", schema["minLength"].as_u64().map(|min| (text(min), Some(text(min - 1))))),
                ("maxLength", schema["maxLength"].as_u64().map(|max| (text(max), Some(text(max + 1))))),
            ];
            for (bound, probe) in probes {
                let Some((inside, outside)) = probe else { continue };
                // A wildcard host may be two bytes longer than a name.
                let inside = match (name, property.as_str(), bound) {
                    ("RouteSpec", "host", "maxLength") => {
                        json!(format!("*.{}", [63, 63, 63, 61].map(|length| "a".repeat(length)).join(".")))
                    }
                    _ => inside,
                };
                assert_eq!(try_with(property, inside), Ok(()), "{name}.{property}: {bound}");
                if let Some(outside) = outside {
                    assert!(try_with(property, outside).is_err(), "{name}.{property} beyond {bound}");
                    bounds += 1;
                }
            }
        }
    }
    assert!(bounds > 70, "{bounds} bounds");
}

/// Every number of a body says how large it may be.
#[test]
fn numbers_of_bodies_have_bounds() {
    let bodies = [
        "AcquireLock",
        "RenewLock",
        "Register",
        "RouteSpec",
        "Configured_EndpointSpec",
        "EndpointSpec",
        "OutlierEjection",
        "Retries",
        "Timeouts",
        "ActiveStandby",
        "ApplyRequest",
    ];
    for name in bodies {
        for (property, schema) in schemas()[name]["properties"].as_object().unwrap() {
            let kind = schema["type"].to_string();
            assert!(!kind.contains("integer") || schema["maximum"].is_u64(), "{name}.{property}: {schema}");
        }
    }
}
