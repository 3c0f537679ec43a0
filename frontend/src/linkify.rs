//! Links in sentences.
//!
//! The server writes "node 3" and "operation 17" into its sentences. [`parts`] finds them, so that every list,
//! reason and summary links to its subject, with no markup in the contract.

/// A piece of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Node { text: String, id: u64 },
    Operation { text: String, id: u64 },
    Plan { text: String, id: u64 },
    AuditEntry { text: String, id: u64 },
}

/// Cuts a sentence where it names a node, an operation, a plan or an entry of the audit.
pub fn parts(sentence: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text_from = 0;
    let mut position = 0;
    while let Some((start, end, part)) = next_name(sentence, position) {
        if start > text_from {
            parts.push(Part::Text(sentence[text_from..start].to_owned()));
        }
        parts.push(part);
        text_from = end;
        position = end;
    }
    if text_from < sentence.len() {
        parts.push(Part::Text(sentence[text_from..].to_owned()));
    }
    parts
}

/// The first name at or after `from`: where it starts and ends, and what it names.
fn next_name(sentence: &str, from: usize) -> Option<(usize, usize, Part)> {
    const NOUNS: [&str; 4] = ["node ", "operation ", "plan ", "audit entry "];
    let lower = sentence.to_ascii_lowercase();
    let starts = |index: &usize| NOUNS.iter().find(|noun| lower[*index..].starts_with(**noun));
    let indices = lower.char_indices().map(|(index, _)| index).filter(|index| *index >= from);
    indices.filter_map(|index| Some((index, *starts(&index)?))).find_map(|(start, noun)| {
        let begins_a_word = !lower[..start].ends_with(|letter: char| letter.is_ascii_alphanumeric());
        let digits_from = start + noun.len();
        let digits = lower[digits_from..].bytes().take_while(u8::is_ascii_digit).count();
        let id: u64 = lower[digits_from..digits_from + digits].parse().ok().filter(|_| begins_a_word)?;
        let end = digits_from + digits;
        let text = sentence[start..end].to_owned();
        let part = match noun {
            "node " => Part::Node { text, id },
            "plan " => Part::Plan { text, id },
            "audit entry " => Part::AuditEntry { text, id },
            _ => Part::Operation { text, id },
        };
        Some((start, end, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sentence: &str) -> String {
        parts(sentence)
            .into_iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Node { text, id } => format!("[{text}→n{id}]"),
                Part::Operation { text, id } => format!("[{text}→o{id}]"),
                Part::Plan { text, id } => format!("[{text}→p{id}]"),
                Part::AuditEntry { text, id } => format!("[{text}→a{id}]"),
            })
            .collect()
    }

    #[test]
    fn names_become_links() {
        for (sentence, expected) in [
            ("", ""),
            ("All is well.", "All is well."),
            ("Node 3 is down: node 1 agrees.", "[Node 3→n3] is down: [node 1→n1] agrees."),
            (
                "operation 17 was undone by operation 18",
                "[operation 17→o17] was undone by [operation 18→o18]",
            ),
            ("audit entry 7", "[audit entry 7→a7]"),
            ("plan 812: drain", "[plan 812→p812]: drain"),
            ("the node is silent; a supernode 3 too", "the node is silent; a supernode 3 too"),
            ("node 12 – œ node", "[node 12→n12] – œ node"),
        ] {
            assert_eq!(shown(sentence), expected);
        }
    }
}
