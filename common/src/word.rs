//! Enums that are one word each, in JSON as in sentences.
//!
//! What is derived for such an enum reads it from numbers and bytes too, which nobody writes, and a
//! browser would have to load all of that.

/// Writes and reads an enum as what its `as_str` says, and lists its variants where it has no list yet.
macro_rules! as_word {
    ($name:ident: $($variant:ident)*) => {
        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];
        }

        as_word!($name);
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
                known.copied().ok_or_else(|| serde::de::Error::custom(format_args!("there is no {word:?} here")))
            }
        }
    };
}

pub(crate) use as_word;
