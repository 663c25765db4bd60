//! stub
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
