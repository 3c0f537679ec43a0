//! Files that people write: TOML or JSON, with errors of one line.
//!
//! An error names the place and what is wrong there, and never repeats the file: it may be the wrong file, with
//! secrets, or one line of a megabyte.

use serde::de::DeserializeOwned;

/// The longest error, in characters.
const MAX_ERROR: usize = 240;

pub fn toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let at = |error: &toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|char| *char != '\n').count() + 1;
        format!("line {line}, column {column}")
    };
    let parsed = toml::de::Deserializer::parse(text);
    let deserializer = parsed.map_err(|error| one_line(&format!("{}: {}", at(&error), error.message())))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let inner = error.inner();
        one_line(&format!("{}, {}: {}", at(inner), error.path(), inner.message()))
    })
}

pub fn json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| one_line(&format!("{}: {}", error.path(), error.inner())))?;
    deserializer.end().map_err(|error| one_line(&error.to_string()))?;
    Ok(value)
}

/// Without the values that stand in quotes, and no longer than the bound.
fn one_line(message: &str) -> String {
    let mut line = String::new();
    for (nth, part) in message.split('"').enumerate() {
        match nth % 2 {
            0 => line.push_str(part),
            _ => line.push_str("\"…\""),
        }
    }
    let line: String = line.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    match line.char_indices().nth(MAX_ERROR) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct File {
        weights: BTreeMap<String, u32>,
    }

    #[test]
    fn both_forms_are_read() {
        let file = File { weights: BTreeMap::from([("a".to_owned(), 1)]) };
        assert_eq!(toml::<File>("[weights]\na = 1"), Ok(File { weights: file.weights.clone() }));
        assert_eq!(json::<File>(r#"{"weights": {"a": 1}}"#), Ok(file));
    }

    #[test]
    fn an_error_names_the_place_in_one_line_and_repeats_no_value() {
        let secret = "s3cret".repeat(50_000);
        for (error, expected) in [
            (
                toml::<File>("[weights]\na = \"s3cret\"").unwrap_err(),
                "line 2, column 5, weights.a: invalid type: string",
            ),
            (toml::<File>("weights = {}\nother = 1").unwrap_err(), "unknown field `other`"),
            (toml::<File>(&format!("root:{secret}")).unwrap_err(), "line 1, column"),
            (toml::<File>(&format!("a = \"{secret}")).unwrap_err(), "line 1, column"),
            (
                json::<File>(&format!(r#"{{"weights": {{"a": "{secret}"}}}}"#)).unwrap_err(),
                "weights.a: invalid type: string",
            ),
            (
                json::<File>(r#"{"weights": {}} s3cret"#).unwrap_err(),
                "trailing characters at line 1 column 17",
            ),
            (json::<File>("{").unwrap_err(), "at line 1 column"),
        ] {
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("s3cret") && !error.contains('\n'), "{error}");
        }
        let error = json::<File>(&format!(r#"{{"{secret}": 1}}"#)).unwrap_err();
        assert!(error.chars().count() <= MAX_ERROR + 1, "{error}");
    }
}
