//! Enums that are one word each, in JSON as in sentences.
//!
//! What is derived for such an enum reads it from numbers and bytes too, which nobody writes, and a
//! browser would have to load all of that.

/// Writes and reads an enum as what its `as_str` says, and lists its variants where it has no list yet.
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

/// Says what could have been written. The dashboard shows no such message, and does not load it.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn unknown<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("there is no {word:?} here, only {}", known.collect::<Vec<_>>().join(", "))
}

#[cfg(target_family = "wasm")]
pub(crate) fn unknown<'a>(_: &str, _: impl Iterator<Item = &'a str>) -> &'static str {
    "an unknown word"
}

pub(crate) use string_enum;
