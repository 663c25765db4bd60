//! Types a key can have: how each is read from YAML and written as YAML.

use std::path::PathBuf;

use cllm_actors::engine::spec::{Alphabet, FlashAttention, KvType, SplitMode};
use cllm_actors::supervision::Restart;

use super::yaml::{self, Node, Value};

/// A type of values.
pub(super) trait Field: Sized {
    /// Environment and flags give the text as it is, not as YAML.
    const IS_TEXT: bool = false;
    /// `null` is a value.
    const IS_OPTIONAL: bool = false;
    /// The value must not be shown.
    const IS_SECRET: bool = false;

    /// The type in words, with its article.
    fn expected() -> String;

    /// # Errors
    /// The node that is not of this type.
    fn read(node: &Node) -> Result<Self, Refusal<'_>>;

    /// The value as YAML on one line; reads back as the same value.
    fn show(&self) -> String;
}

/// Why a value was refused.
#[derive(Debug)]
pub(super) enum Refusal<'node> {
    /// It is of another type or out of range.
    Unexpected(&'node Node),
    /// For this reason.
    Because(&'node Node, String),
}

impl Field for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Refusal<'_>> {
        if let Value::Bool(value) = node.value { Ok(value) } else { Err(Refusal::Unexpected(node)) }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! integers {
    ($($type:ty)+) => {$(
        impl Field for $type {
            fn expected() -> String {
                "an integer".to_owned()
            }

            fn read(node: &Node) -> Result<Self, Refusal<'_>> {
                let Value::Integer(value) = node.value else { return Err(Refusal::Unexpected(node)) };
                Self::try_from(value).map_err(|_| Refusal::Unexpected(node))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

integers!(u16 u32 u64 i32);

impl Field for f64 {
    fn expected() -> String {
        "a number".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Refusal<'_>> {
        match node.value {
            #[expect(clippy::cast_precision_loss, reason = "a number with a fraction is asked for")]
            Value::Integer(value) => Ok(value as Self),
            Value::Float(value) => Ok(value),
            _ => Err(Refusal::Unexpected(node)),
        }
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Field for f32 {
    fn expected() -> String {
        f64::expected()
    }

    fn read(node: &Node) -> Result<Self, Refusal<'_>> {
        #[expect(clippy::cast_possible_truncation, reason = "single precision is what llama.cpp takes")]
        f64::read(node).map(|value| value as Self)
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Field for String {
    const IS_TEXT: bool = true;

    fn expected() -> String {
        "a text".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Refusal<'_>> {
        if let Value::Text(text) = &node.value { Ok(text.clone()) } else { Err(Refusal::Unexpected(node)) }
    }

    fn show(&self) -> String {
        yaml::quote(self)
    }
}

impl Field for PathBuf {
    const IS_TEXT: bool = true;

    fn expected() -> String {
        "a text".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Refusal<'_>> {
        String::read(node).map(Self::from)
    }

    fn show(&self) -> String {
        yaml::quote(&self.to_string_lossy())
    }
}

impl<T: Field> Field for Option<T> {
    const IS_TEXT: bool = T::IS_TEXT;
    const IS_OPTIONAL: bool = true;
    const IS_SECRET: bool = T::IS_SECRET;

    fn expected() -> String {
        T::expected()
    }

    fn read(node: &Node) -> Result<Self, Refusal<'_>> {
        if node.value == Value::Null { Ok(None) } else { T::read(node).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "null".to_owned(), T::show)
    }
}

impl<T: Field> Field for Vec<T> {
    const IS_SECRET: bool = T::IS_SECRET;

    fn expected() -> String {
        let item = T::expected();
        let noun = item.strip_prefix("a ").or_else(|| item.strip_prefix("an ")).unwrap_or(&item);
        format!("a list of {noun}s")
    }

    fn read(node: &Node) -> Result<Self, Refusal<'_>> {
        if let Value::List(items) = &node.value {
            items.iter().map(T::read).collect()
        } else {
            Err(Refusal::Unexpected(node))
        }
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(T::show).collect::<Vec<_>>().join(", "))
    }
}

/// Makes an enum a field that is written as one of a few words.
macro_rules! choice {
    ($type:ty: $($word:literal = $variant:ident),+) => {
        impl $crate::config::field::Field for $type {
            const IS_TEXT: bool = true;

            fn expected() -> String {
                format!("one of {}", [$(concat!("`", $word, "`")),+].join(", "))
            }

            fn read(node: &$crate::config::yaml::Node) -> Result<Self, $crate::config::field::Refusal<'_>> {
                match &node.value {
                    $($crate::config::yaml::Value::Text(text) if text == $word => Ok(Self::$variant),)+
                    _ => Err($crate::config::field::Refusal::Unexpected(node)),
                }
            }

            fn show(&self) -> String {
                match self {
                    $(Self::$variant => $crate::config::yaml::quote($word),)+
                }
            }
        }
    };
}

pub(super) use choice;

choice!(KvType: "f32" = F32, "f16" = F16, "bf16" = Bf16, "q8_0" = Q8_0, "q4_0" = Q4_0, "q4_1" = Q4_1,
    "iq4_nl" = Iq4Nl, "q5_0" = Q5_0, "q5_1" = Q5_1);
choice!(FlashAttention: "auto" = Auto, "enabled" = Enabled, "disabled" = Disabled);
choice!(SplitMode: "none" = None, "layer" = Layer, "row" = Row, "tensor" = Tensor);
choice!(Restart: "permanent" = Permanent, "transient" = Transient, "temporary" = Temporary);
choice!(Alphabet: "ascii" = Ascii, "multibyte" = Multibyte);
