//! The headers of responses, by what a route is: a read says how old its state is, a write names its request.

use ringmaster_common::headers::{AGE_MS, REQUEST_ID, REVISION};
use serde_json::{Map, Value, json};

/// A header: its name, its schema, and whether every response has it.
type Header = (&'static str, Value, bool);

fn integer(description: &str) -> Value {
    json!({ "description": description, "schema": { "type": "integer", "format": "int64", "minimum": 0 } })
}

fn revision_read() -> Header {
    (REVISION, integer("The revision of the state that was read"), false)
}

fn age() -> Header {
    (AGE_MS, integer("The age of that state in milliseconds: 0 where the leader confirmed it"), false)
}

fn request_id() -> Header {
    let description = "The id of the request, as in logs, events and the audit";
    (REQUEST_ID, json!({ "description": description, "schema": { "type": "string" } }), false)
}

fn revision_written() -> Header {
    (REVISION, integer("The revision that carried the request out"), false)
}

fn retry_after() -> Header {
    ("retry-after", integer("The seconds after which to try again"), true)
}

/// Adds the headers of all responses of an operation.
pub fn add(operation: &mut Map<String, Value>) {
    let has = |name: &str| {
        let parameters = operation.get("parameters").and_then(Value::as_array);
        parameters.is_some_and(|all| all.iter().any(|parameter| parameter["name"] == name))
    };
    let (is_read, is_write) = (has("consistency"), has("Idempotency-Key"));
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, response) in responses {
        let is_success = status.starts_with('2');
        let mut headers = Vec::new();
        if is_read && is_success {
            headers.extend([revision_read(), age()]);
        }
        // A read that finds nothing says in which state.
        if is_read && status == "404" {
            headers.extend([revision_read(), age()]);
        }
        if is_write {
            headers.push(request_id());
        }
        if is_write && is_success {
            headers.push(revision_written());
        }
        if status == "429" || status == "503" {
            headers.push(retry_after());
        }
        // Those of the annotation are in every response.
        if let Some(annotated) = response.get_mut("headers").and_then(Value::as_object_mut) {
            annotated.values_mut().for_each(|header| header["required"] = json!(true));
        }
        for (name, mut header, always) in headers {
            header["required"] = json!(always);
            response["headers"][name] = header;
        }
    }
}
