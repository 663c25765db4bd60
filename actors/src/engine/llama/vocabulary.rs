//! Text to tokens and back, on any thread.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use crate::engine::model::{ControlTokens, Vocabulary};
use crate::engine::progress::Progress;
use crate::engine::protocol::{AddSpecial, TextPart, Token};
use crate::engine::runs::check_runs;

use super::backend;
use super::partition::{Fragment, Scope, SpecialToken, is_space, join, partition};
use super::shim;
use super::weights::Weights;

/// The vocabulary of a loaded model. Keeps the weights alive.
pub(super) struct LlamaVocabulary {
    weights: Arc<Weights>,
    /// A long text is work that must be seen to go on.
    progress: Progress,
    pieces: Pieces,
    /// The longest first, as llama.cpp matches them.
    specials: Vec<SpecialToken>,
    bos: Option<Token>,
    eos: Option<Token>,
    /// What the model wants before every text.
    added_first: Option<Token>,
    /// What the model wants after every text.
    added_last: Option<Token>,
}

impl LlamaVocabulary {
    /// Reads the vocabulary of a model.
    ///
    /// # Errors
    /// What llama.cpp says about a token that has no text.
    pub(super) fn new(weights: Arc<Weights>, progress: Progress) -> Result<Self, String> {
        let vocab = weights.vocab();
        let pieces = Pieces::read(vocab)?;
        let specials = specials(vocab, pieces.len());
        let known = |token: Token| (u32::try_from(token).is_ok_and(|id| id < pieces.len())).then_some(token);
        // SAFETY: `weights` keeps the vocabulary alive.
        let (bos, eos, sep, add_bos, add_eos, add_sep) = unsafe {
            (
                known(sys::llama_vocab_bos(vocab)),
                known(sys::llama_vocab_eos(vocab)),
                known(sys::llama_vocab_sep(vocab)),
                sys::llama_vocab_get_add_bos(vocab),
                sys::llama_vocab_get_add_eos(vocab),
                sys::llama_vocab_get_add_sep(vocab),
            )
        };
        let added_first = bos.filter(|_| add_bos);
        let added_last = eos.filter(|_| add_eos).or(sep.filter(|_| add_sep));
        Ok(Self { weights, progress, pieces, specials, bos, eos, added_first, added_last })
    }

    /// Beginning token, if there is one.
    pub(super) fn bos(&self) -> Option<Token> {
        self.bos
    }

    /// End token, if there is one.
    pub(super) fn eos(&self) -> Option<Token> {
        self.eos
    }

    /// Whether `AddSpecial::Model` puts the beginning token first.
    pub(super) fn adds_bos(&self) -> bool {
        self.added_first.is_some()
    }

    /// Every token that ends a generation.
    pub(super) fn end_tokens(&self) -> Vec<Token> {
        (0..self.pieces.len()).filter_map(|id| Token::try_from(id).ok()).filter(|token| self.is_end(*token)).collect()
    }

    /// Texts that are recognised as tokens in template text.
    pub(super) fn special_texts(&self) -> Vec<String> {
        self.specials.iter().map(|special| special.text.clone()).collect()
    }

    /// Most bytes of text that `tokenizer`, a name of llama.cpp's, makes one token of, [`Self::lost_bytes`] not counted;
    /// `None` for one that normalises text or leaves parts of it out as it likes.
    ///
    /// The vocabulary's own text of a token counts too: SentencePiece writes a space as a character of three bytes, and
    /// that character in a text becomes the same token.
    pub(super) fn max_token_bytes(&self, tokenizer: Option<&str>) -> Option<u32> {
        if !matches!(tokenizer, Some("llama" | "gpt2" | "gemma4")) {
            return None;
        }
        let length = |token: Token| {
            // SAFETY: `weights` keeps the vocabulary alive, and the token is in range.
            let text = unsafe { backend::string(sys::llama_vocab_get_text(self.weights.vocab(), token)) };
            text.len().max(self.pieces.bytes(token, ControlTokens::Show).len())
        };
        let tokens = (0..self.pieces.len()).filter_map(|id| Token::try_from(id).ok());
        tokens.map(length).max().and_then(|longest| u32::try_from(longest).ok())
    }

    /// Bytes that may vanish from a text: those without a token of their own, which llama.cpp leaves out where no longer
    /// token has them, and white space where a special token swallows what is beside it.
    pub(super) fn lost_bytes(&self) -> Vec<u8> {
        let mut known = [false; 256];
        for id in (0..self.pieces.len()).filter_map(|id| Token::try_from(id).ok()) {
            if let [byte] = self.pieces.bytes(id, ControlTokens::Show) {
                known[usize::from(*byte)] = true;
            }
        }
        let strips = self.specials.iter().any(|special| special.strip_left || special.strip_right);
        (0..=u8::MAX).filter(|byte| !known[usize::from(*byte)] || (strips && is_space(char::from(*byte)))).collect()
    }

    /// The text of a token, control tokens too.
    pub(super) fn text(&self, token: Token) -> String {
        let mut bytes = Vec::new();
        self.piece(token, ControlTokens::Show, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn append(&self, text: &str, out: &mut Vec<Token>) -> Result<(), String> {
        self.progress.advance();
        let start = out.len();
        // Nearly always enough: no token is shorter than a byte, and two may come on top.
        let mut room = text.len() + 2;
        loop {
            out.resize(start + room, 0);
            // SAFETY: `weights` keeps the vocabulary alive.
            let count = unsafe { shim::tokenize(self.weights.vocab(), text, &mut out[start..]) };
            let count = count.map_err(|error| format!("the text cannot be tokenized: {error}"))?;
            match usize::try_from(count) {
                Ok(count) => {
                    out.truncate(start + count);
                    return Ok(());
                }
                Err(_) if count == i32::MIN => return Err("the text has too many tokens".to_owned()),
                Err(_) => room = count.unsigned_abs() as usize,
            }
        }
    }
}

impl Vocabulary for LlamaVocabulary {
    fn n_tokens(&self) -> u32 {
        self.pieces.len()
    }

    fn tokenize(&self, parts: &[TextPart], special: AddSpecial) -> Result<Vec<Token>, String> {
        let joined = join(parts);
        check_runs([&*joined.text])?;
        let mut tokens = Vec::new();
        // Never llama.cpp's own search for special tokens: it walks over all it has found for each that it finds, which
        // takes minutes for a text that is full of them.
        for fragment in partition(&joined, &self.specials) {
            match fragment {
                Fragment::Token(token) => tokens.push(token),
                Fragment::Text(range) => self.append(&joined.text[range], &mut tokens)?,
            }
        }
        if special == AddSpecial::Model {
            self.add_special(&mut tokens);
        }
        Ok(tokens)
    }

    fn piece(&self, token: Token, control: ControlTokens, out: &mut Vec<u8>) {
        out.extend_from_slice(self.pieces.bytes(token, control));
    }

    fn is_end(&self, token: Token) -> bool {
        self.pieces.has(token, END)
    }
}

impl LlamaVocabulary {
    /// Adds what the model wants at both ends, unless it stands there already.
    fn add_special(&self, tokens: &mut Vec<Token>) {
        if let Some(first) = self.added_first
            && tokens.first() != Some(&first)
        {
            tokens.insert(0, first);
        }
        if let Some(last) = self.added_last
            && tokens.last() != Some(&last)
        {
            tokens.push(last);
        }
    }
}

/// Flag of a token that is invisible in text.
const HIDDEN: u8 = 1;

/// Flag of a token that ends a generation.
const END: u8 = 2;

/// The bytes and flags of every token, read once: no call of llama.cpp per generated token.
struct Pieces {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
    flags: Vec<u8>,
}

impl Pieces {
    fn read(vocab: *const sys::llama_vocab) -> Result<Self, String> {
        // SAFETY: the caller's weights keep the vocabulary alive.
        let count = unsafe { sys::llama_vocab_n_tokens(vocab) };
        let capacity = usize::try_from(count).unwrap_or(0);
        let mut pieces =
            Self { bytes: Vec::new(), ends: Vec::with_capacity(capacity), flags: Vec::with_capacity(capacity) };
        let mut buffer = vec![0; 256];
        for token in 0..count {
            let len = read_piece(vocab, token, &mut buffer)?;
            pieces.bytes.extend_from_slice(&buffer[..len]);
            pieces.ends.push(pieces.bytes.len());
            pieces.flags.push(flags(vocab, token));
        }
        Ok(pieces)
    }

    fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// The bytes of a token; none of one out of range.
    fn bytes(&self, token: Token, control: ControlTokens) -> &[u8] {
        let Ok(id) = usize::try_from(token) else { return &[] };
        if id >= self.ends.len() || (control == ControlTokens::Hide && self.has(token, HIDDEN)) {
            return &[];
        }
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..self.ends[id]]
    }

    fn has(&self, token: Token, flag: u8) -> bool {
        usize::try_from(token).ok().and_then(|id| self.flags.get(id)).is_some_and(|flags| flags & flag != 0)
    }
}

fn read_piece(vocab: *const sys::llama_vocab, token: Token, buffer: &mut Vec<u8>) -> Result<usize, String> {
    loop {
        // SAFETY: the caller's weights keep the vocabulary alive.
        let len = unsafe { shim::token_to_piece(vocab, token, buffer) };
        let len = len.map_err(|error| format!("token {token} has no text: {error}"))?;
        match usize::try_from(len) {
            Ok(len) => return Ok(len),
            Err(_) => buffer.resize(len.unsigned_abs() as usize, 0),
        }
    }
}

fn flags(vocab: *const sys::llama_vocab, token: Token) -> u8 {
    let hidden = attributes(vocab, token) & (sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN) != 0;
    // SAFETY: the caller's weights keep the vocabulary alive, and the token is in range.
    let end = unsafe { sys::llama_vocab_is_eog(vocab, token) };
    (u8::from(hidden) * HIDDEN) | (u8::from(end) * END)
}

fn attributes(vocab: *const sys::llama_vocab, token: Token) -> sys::llama_token_attr {
    // SAFETY: the callers' weights keep the vocabulary alive, and the token is in range.
    unsafe { sys::llama_vocab_get_attr(vocab, token) }
}

/// The tokens that llama.cpp recognises by their text, the longest first.
fn specials(vocab: *const sys::llama_vocab, n_tokens: u32) -> Vec<SpecialToken> {
    const CONTROL: sys::llama_token_attr = sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
    let special = |token: Token| {
        let attributes = attributes(vocab, token);
        if attributes & (CONTROL | sys::LLAMA_TOKEN_ATTR_USER_DEFINED) == 0 {
            return None;
        }
        // SAFETY: the caller's weights keep the vocabulary alive, and the token is in range.
        let text = unsafe { backend::string(sys::llama_vocab_get_text(vocab, token)) };
        Some(SpecialToken {
            token,
            text,
            scope: if attributes & CONTROL == 0 { Scope::Everywhere } else { Scope::Template },
            strip_left: attributes & sys::LLAMA_TOKEN_ATTR_LSTRIP != 0,
            strip_right: attributes & sys::LLAMA_TOKEN_ATTR_RSTRIP != 0,
        })
    };
    let tokens = (0..n_tokens).filter_map(|id| Token::try_from(id).ok());
    let mut specials: Vec<_> = tokens.filter_map(special).filter(|special| !special.text.is_empty()).collect();
    specials.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
    specials
}

#[cfg(test)]
mod tests;
