//! The shape of the schema: what a key is, and the macro in which a section's keys, types, defaults, ranges and
//! documentation are written once. The keys themselves are in `sections.rs`.

use super::Config;
use super::field::{Field, Refusal};
use super::rule::Rule;
use super::yaml::{Node, Place, Value};

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Path with dots, `server.port`.
    pub(super) path: &'static str,
    /// One or more lines of documentation, as written above the field.
    pub(super) doc: &'static [&'static str],
    /// What the value has to be beside its type.
    pub(super) rule: Rule,
    /// Facts about the value's type.
    pub(super) kind: fn() -> Kind,
    /// The value in a configuration, as YAML on one line.
    pub(super) show: fn(&Config) -> String,
    store: Store,
}

/// Writes a key's value into a configuration.
type Store = for<'node> fn(&mut Config, &'node Node, &Rule) -> Result<(), Refusal<'node>>;

/// What a key's type says about its values.
#[derive(Debug)]
pub(super) struct Kind {
    /// `an integer`, `a list of texts`.
    pub(super) expected: String,
    /// Environment and flags give the text as it is, not as YAML.
    pub(super) is_text: bool,
    /// `null` is a value.
    pub(super) is_optional: bool,
    /// The value must not be shown.
    pub(super) is_secret: bool,
}

/// A value that was refused.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) message: String,
}

impl Key {
    pub(super) const fn new<T: Field>(
        path: &'static str,
        doc: &'static [&'static str],
        rule: Rule,
        show: fn(&Config) -> String,
        store: Store,
    ) -> Self {
        Self { path, doc, rule, kind: Kind::of::<T>, show, store }
    }

    /// The name of the environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        variable(self.path)
    }

    /// The section it stands in, `backend.llama_cpp`.
    pub(super) fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The last part of its path.
    pub(super) fn leaf(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, leaf)| leaf)
    }

    /// What it takes, with its range: `an integer from 0 to 65535`.
    pub(super) fn takes(&self) -> String {
        let kind = (self.kind)();
        let null = if kind.is_optional { ", or null" } else { "" };
        format!("{}{}{null}", kind.expected, self.rule)
    }

    /// Stores a value.
    ///
    /// # Errors
    /// What is wrong with the value; the configuration is unchanged then.
    pub(super) fn store(&self, config: &mut Config, node: &Node) -> Result<(), Fault> {
        (self.store)(config, node, &self.rule).map_err(|refusal| match refusal {
            Refusal::Unexpected(found) => Fault { place: found.place, message: self.unexpected(&found.value) },
            Refusal::Because(found, reason) => {
                Fault { place: found.place, message: format!("`{}`: {reason}", self.path) }
            }
        })
    }

    fn unexpected(&self, found: &Value) -> String {
        let kind = (self.kind)();
        let shown = if kind.is_secret { found.kind().to_owned() } else { found.describe() };
        let scalar = matches!(found, Value::Bool(_) | Value::Integer(_) | Value::Float(_));
        let hint = if scalar && kind.expected.contains("text") { " (put it in quotes)" } else { "" };
        format!("`{}` takes {}, not {shown}{hint}", self.path, self.takes())
    }
}

impl Kind {
    fn of<T: Field>() -> Self {
        Self { expected: T::expected(), is_text: T::IS_TEXT, is_optional: T::IS_OPTIONAL, is_secret: T::IS_SECRET }
    }
}

/// The name of the environment variable for a key or section: `CLLM_SERVER__PORT`.
pub(super) fn variable(path: &str) -> String {
    format!("CLLM_{}", path.replace('.', "__").to_uppercase())
}

/// Declares a section: a public struct of its keys, its `Default`, and its rows of the schema.
///
/// `at` names where it stands in [`Config`]; each field has its documentation, type, default and, after a comma, a
/// [`Rule`]; sections inside it follow after `with`.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident at $place:tt {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $default:expr $(, $rule:expr)?;
            )*
        }
        $(with {
            $(
                $(#[doc = $inner_doc:literal])+
                $inner:ident: $inner_type:ty;
            )*
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
            $($($(#[doc = $inner_doc])+ pub $inner: $inner_type,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($inner: <$inner_type>::default(),)*)?
                }
            }
        }

        impl $name {
            /// This section's rows of the schema.
            pub(super) const KEYS: &'static [Key] = &[$(
                Key::new::<$type>(
                    section!(@path $place $field),
                    &[$($doc),+],
                    section!(@rule $($rule)?),
                    |config| section!(@field config $place $field).show(),
                    |config, node, rule| {
                        rule.check(node)?;
                        section!(@field config $place $field) = <$type as Field>::read(node)?;
                        Ok(())
                    },
                ),
            )*];
        }
    };
    (@path ($($segment:ident).+) $field:ident) => { concat!($(stringify!($segment), ".",)+ stringify!($field)) };
    (@field $config:ident ($($segment:ident).+) $field:ident) => { $config.$($segment.)+$field };
    (@rule) => { Rule::Any };
    (@rule $rule:expr) => { $rule };
}

pub(super) use section;
