//! The chat template: messages in, text parts for the tokenizer out. Rendered in Rust; no engine is asked.
//!
//! Templates are written for Hugging Face `transformers` (Jinja2 in Python); `environment` gives them what they
//! expect there. [`normalize_messages`] brings what clients send into the one form that templates understand, `context`
//! hands it to the template, and `guard` sees to it that a user's text is never read as a special token.
//!
//! # Whose text is it?
//! The tokenizer turns the text `<|im_end|>` into the control token when a template writes it, and must not when a user
//! does. So the text is rendered twice: as it is, and with the telling characters (`<`, `|`, ...) of everything that
//! came from outside replaced by stand-ins of the same length. Where the two differ, a user wrote the character. Where
//! a control text holds such a character it is forged, and the stretch between the real control tokens around it
//! becomes a [`Trust::User`](crate::engine::protocol::Trust::User) part. Parts are cut at nothing else, for two reasons: a
//! tokenizer that sees `user\n` and `\nhello` apart gives other tokens than for `user\n\nhello`, the text that the model
//! was trained on; and at a control token's edge it cuts anyway.

mod clock;
mod context;
mod dialect;
mod environment;
mod guard;
mod json;
mod literals;
mod messages;
mod methods;
mod parts;
mod size;
pub mod weight;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::protocol::TextPart;
use context::{Inputs, SpecialTexts};
use dialect::Dialect;
use environment::Effort;
use guard::{Guard, Scope};

pub use messages::{MAX_EXTRA_WEIGHT, MessageError, ROLES, normalize_messages};

/// A conversation to be laid out by the model's chat template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatPrompt {
    /// The messages as the template sees them: `role`, `content`, and whatever else the client sent.
    pub messages: Vec<Value>,
    /// Tool definitions, passed to the template.
    pub tools: Vec<Value>,
    /// Whether the template opens the assistant's turn. Default true.
    pub add_generation_prompt: bool,
    /// Further variables of the template (`chat_template_kwargs`).
    pub variables: Map<String, Value>,
}

type Jinja = minijinja::Environment<'static>;

/// Why a template gave no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template itself is broken: the operator's matter.
    #[error("the chat template is invalid: {message}")]
    Invalid {
        /// What is wrong, with the line.
        message: String,
    },
    /// The model's template does not parse, so nothing can be laid out; the client can do without.
    #[error("this model's chat template cannot be used: {message}; send the prompt as text to /v1/completions")]
    Unusable {
        /// What is wrong, with the line.
        message: String,
    },
    /// The template refuses these messages, or fails on them: the client's matter.
    #[error("{message}")]
    Rejected {
        /// What the template says, or what was wrong.
        message: String,
    },
    /// The template cannot have these variables, or fails with them and not without: the client's matter.
    #[error("{message}")]
    BadVariables {
        /// What was wrong.
        message: String,
    },
    /// It computed for too long: the client's matter.
    #[error("the conversation is too much work for the chat template")]
    TooMuchWork,
}

/// Text up to which a conversation is laid out without a thread of its own, in bytes.
const BRIEF_BYTES: usize = 64 << 10;

/// The layout for models without a template: a transcript in plain text, each turn `Role: text` and a blank line.
///
/// Such models are base models. They know no turn tokens, so that the texts of ChatML would be noise to them, but they
/// have read transcripts.
pub const FALLBACK_TEMPLATE: &str = "{% for message in messages %}{{ message.role | capitalize }}: \
     {{ message.content }}\n\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

/// A compiled chat template with the facts of its model. Immutable; share it in an `Arc`.
#[derive(Debug)]
pub struct ChatTemplate {
    brief: Jinja,
    full: Jinja,
    dialect: Dialect,
    guard: Guard,
    specials: SpecialTexts,
    /// What is wrong with the model's own template, if it does not parse.
    unusable: Option<String>,
}

impl ChatTemplate {
    /// Compiles a template and finds out, by rendering small conversations, which form of content it expects.
    ///
    /// `source` is the Jinja text; `None` takes [`FALLBACK_TEMPLATE`]. `bos_text` and `eos_text` become the variables
    /// `bos_token` and `eos_token`. `control_texts` are the texts of the tokens that a user's text must not become.
    ///
    /// # Errors
    /// [`TemplateError::Invalid`] if the template does not parse.
    pub fn compile(
        source: Option<&str>,
        bos_text: Option<&str>,
        eos_text: Option<&str>,
        control_texts: Vec<String>,
    ) -> Result<Self, TemplateError> {
        let source = source.unwrap_or(FALLBACK_TEMPLATE);
        let build = |effort| {
            environment::build(source, effort).map_err(|error| TemplateError::Invalid { message: error.to_string() })
        };
        let mut template = Self {
            brief: build(Effort::Brief)?,
            full: build(Effort::Full)?,
            dialect: Dialect::default(),
            guard: Guard::new(control_texts, source),
            specials: SpecialTexts { bos: bos_text.unwrap_or("").to_owned(), eos: eos_text.unwrap_or("").to_owned() },
            unusable: None,
        };
        template.dialect = Dialect::probe(|chat| template.plain(&template.full, chat, SystemTime::UNIX_EPOCH));
        Ok(template)
    }

    /// In the place of a template that does not parse: says so to everybody who wants a conversation laid out. Another
    /// layout than the model's own would give poor answers that nobody can explain.
    ///
    /// # Errors
    /// None that is expected.
    pub fn unusable(cause: &TemplateError) -> Result<Self, TemplateError> {
        let message = match cause {
            TemplateError::Invalid { message } => message.clone(),
            other => other.to_string(),
        };
        Ok(Self { unusable: Some(message), ..Self::compile(None, None, None, Vec::new())? })
    }

    /// Lays the conversation out. The parts put together are the text that the template gives.
    ///
    /// The messages are those of [`normalize_messages`]. Blocking: some ten to a few hundred microseconds for a common
    /// chat, milliseconds for 50 kB full of brackets; work and depth are bounded (about a second at worst). If
    /// the text begins with the beginning token's, the tokenizer adds no second one.
    ///
    /// # Errors
    /// [`TemplateError::Rejected`] with the template's own words if it calls `raise_exception`, with the reason if it
    /// fails in another way or handles a control text in the messages so that nobody can tell it from the template's own;
    /// [`TemplateError::TooMuchWork`]; [`TemplateError::BadVariables`].
    pub fn render(&self, chat: &ChatPrompt) -> Result<Vec<TextPart>, TemplateError> {
        self.render_at(&self.full, chat, SystemTime::now())
    }

    /// The same if it takes some milliseconds at most; `None` for what may take longer and should not run where others
    /// wait. Common chats do not.
    pub fn render_briefly(&self, chat: &ChatPrompt) -> Option<Result<Vec<TextPart>, TemplateError>> {
        if size::exceeds(chat, BRIEF_BYTES) {
            return None;
        }
        let rendered = self.render_at(&self.brief, chat, SystemTime::now());
        (rendered != Err(TemplateError::TooMuchWork)).then_some(rendered)
    }

    fn render_at(&self, jinja: &Jinja, chat: &ChatPrompt, now: SystemTime) -> Result<Vec<TextPart>, TemplateError> {
        if let Some(message) = &self.unusable {
            return Err(TemplateError::Unusable { message: message.clone() });
        }
        let plain = self.plain(jinja, chat, now).map_err(|error| self.blame(jinja, chat, now, error))?;
        for scope in Scope::STRONGEST_FIRST {
            let marker = self.guard.marker(scope);
            let context = self.context(chat, now, &|text| marker.mark(text))?;
            if !marker.has_marked() {
                return Ok(parts::single(plain));
            }
            let marked = environment::render(jinja, context);
            if marked == Err(TemplateError::TooMuchWork) {
                return Err(TemplateError::TooMuchWork);
            }
            if let Some(tainted) = marked.ok().and_then(|marked| self.guard.tainted(&plain, &marked)) {
                return Ok(self.guard.split(&plain, &tainted));
            }
        }
        Err(TemplateError::Rejected {
            message: "the messages contain the text of a control token, and this chat template handles it so that it \
                      cannot be told from the template's own"
                .to_owned(),
        })
    }

    fn plain(&self, jinja: &Jinja, chat: &ChatPrompt, now: SystemTime) -> Result<String, TemplateError> {
        let context = self.context(chat, now, &|text| text.into())?;
        environment::render(jinja, context)
    }

    /// Whose fault a failure is: what does not fail without the variables fails by them.
    fn blame(&self, jinja: &Jinja, chat: &ChatPrompt, now: SystemTime, error: TemplateError) -> TemplateError {
        match error {
            TemplateError::Rejected { message } if !chat.variables.is_empty() => {
                let without = ChatPrompt { variables: Map::new(), ..chat.clone() };
                match self.plain(jinja, &without, now) {
                    Ok(_) => TemplateError::BadVariables { message },
                    Err(_) => TemplateError::Rejected { message },
                }
            }
            error => error,
        }
    }

    fn context(
        &self,
        chat: &ChatPrompt,
        now: SystemTime,
        mark: context::Mark<'_>,
    ) -> Result<minijinja::Value, TemplateError> {
        context::build(&Inputs { chat, specials: &self.specials, dialect: self.dialect, now }, mark)
    }
}

#[cfg(test)]
mod tests;
