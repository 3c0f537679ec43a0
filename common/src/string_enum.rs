//! Enums whose variants are one word each, the same in JSON as in sentences.
//!
//! `as_str` is the single source of the words: what is written, what is read, and what an error lists.

/// Writes and reads an enum as its `as_str`, and lists its variants where it has no list yet.
macro_rules! string_enum {
    ($name:ident: $($variant:ident)*) => {
        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];
        }

        string_enum!($name);
    };
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = std::borrow::Cow::<str>::deserialize(deserializer)?;
                let known = $name::ALL.iter().find(|known| known.as_str() == word);
                known.copied().ok_or_else(|| {
                    let known = $name::ALL.iter().map(|known| known.as_str());
                    serde::de::Error::custom($crate::string_enum::unknown(&word, known))
                })
            }
        }
    };
}

/// The message for a word that is no variant. It lists the variants.
pub(crate) fn unknown<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("unknown value {word:?}; expected one of {}", known.collect::<Vec<_>>().join(", "))
}

pub(crate) use string_enum;
