//! The fake engine: a model without weights whose next token is a function of all tokens before it.
//!
//! It keeps real KV books (positions must be contiguous, cells run out, copies carry their tokens), so a lost,
//! repeated or foreign token changes the text that follows. Speed and faults are set by [`FakeSpec`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::engine::batch::Batch;
use crate::engine::model::{ControlTokens, DecodeError, Model, Vocabulary};
use crate::engine::protocol::{AddSpecial, MemoryKind, ModelInfo, SequenceId, TextPart, Token, Trust};
use crate::engine::runs::check_runs;
use crate::engine::spec::{Alphabet, FakeSpec};

#[cfg(test)]
mod tests;

/// Beginning token.
pub const BOS: Token = 256;
/// End token.
pub const EOS: Token = 257;
/// Opens a chat turn.
pub const TURN_START: Token = 258;
/// Closes a chat turn; also ends a generation.
pub const TURN_END: Token = 259;

const N_VOCAB: usize = 260;
const CONTROL: [(Token, &str); 4] =
    [(BOS, "<|bos|>"), (EOS, "<|eos|>"), (TURN_START, "<|im_start|>"), (TURN_END, "<|im_end|>")];

/// A token and its hash, in the state of a sequence.
const STATE_BYTES: u64 = 16;

/// So far above the others that no temperature draws another token.
const PEAK: f32 = 60.0;

const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                        {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const MULTIBYTE: [&str; 8] = ["你", "好", "世", "界", "智", "能", "🙂", "🚀"];

/// The model.
#[derive(Debug)]
pub struct FakeModel {
    spec: FakeSpec,
    info: ModelInfo,
    sequences: Vec<Sequence>,
    rows: Vec<Option<usize>>,
    logits: Vec<f32>,
}

/// Tokens with KV, and the hash of each prefix.
#[derive(Debug, Default, Clone)]
struct Sequence {
    tokens: Vec<Token>,
    hashes: Vec<u64>,
}

impl FakeModel {
    /// "Loads" it.
    ///
    /// # Errors
    /// The configured `load_failure`.
    pub fn load(spec: &FakeSpec) -> Result<Self, String> {
        pause(spec.load_time);
        if let Some(cause) = &spec.load_failure {
            return Err(cause.clone());
        }
        let n_seq_max = spec.running + spec.retained;
        Ok(Self {
            info: info(spec, n_seq_max),
            sequences: vec![Sequence::default(); n_seq_max as usize],
            rows: Vec::new(),
            logits: Vec::new(),
            spec: spec.clone(),
        })
    }

    fn cells_used(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.tokens.len()).sum()
    }

    /// Whether the sequences of a split context have a buffer each, these and those that are in one.
    fn has_streams_for(&self, sequences: impl Iterator<Item = SequenceId>) -> bool {
        let Some(streams) = self.spec.streams else { return true };
        let wanted: BTreeSet<usize> = sequences.map(|sequence| sequence as usize).collect();
        let taken = |at: &usize| !self.sequences[*at].tokens.is_empty() && !wanted.contains(at);
        (0..self.sequences.len()).filter(taken).count() + wanted.len() <= streams as usize
    }

    fn obey_faults(&self, sequence: &Sequence) {
        if ends_with(&sequence.tokens, self.spec.poison.as_deref()) {
            panic!("the fake engine was told to crash");
        }
        if ends_with(&sequence.tokens, self.spec.hang.as_deref()) {
            loop {
                std::thread::park();
            }
        }
    }

    fn write_logits(&mut self, row: usize, sequence: usize) {
        let next = self.sequences[sequence].next(&self.spec);
        self.rows[row] = Some(self.logits.len());
        let start = self.logits.len();
        self.logits.resize(start + N_VOCAB, 0.0);
        self.logits[start + next as usize] = PEAK;
        if self.spec.undecided {
            let hash = self.sequences[sequence].hashes.last().copied().unwrap_or_default();
            for byte in hash.to_le_bytes() {
                let logit = &mut self.logits[start + usize::from(b'a' + byte % 26)];
                *logit = logit.max(PEAK - f32::from(1 + byte % 7) / 4.0);
            }
        }
    }
}

impl Model for FakeModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn vocabulary(&self) -> Arc<dyn Vocabulary> {
        Arc::new(FakeVocabulary)
    }

    fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        let has_streams = self.has_streams_for(batch.rows().iter().map(|row| row.sequence));
        if !has_streams || self.cells_used() + batch.len() > self.spec.n_ctx as usize {
            return Err(DecodeError::NoCells);
        }
        self.rows.clear();
        self.rows.resize(batch.len(), None);
        self.logits.clear();
        for (number, row) in batch.rows().iter().enumerate() {
            let index = row.sequence as usize;
            let sequence = self.sequences.get_mut(index).ok_or_else(|| failed("sequence out of range"))?;
            if sequence.tokens.len() != row.position as usize {
                return Err(failed("position does not continue the sequence"));
            }
            sequence.push(row.token);
            self.obey_faults(&self.sequences[index]);
            if row.output {
                self.write_logits(number, index);
            }
        }
        pause(self.spec.step_time + self.spec.token_time * batch.len() as u32);
        Ok(())
    }

    /// Nothing of it moves.
    fn rest(&mut self, _sequence: SequenceId) {}

    fn logits(&self, row: usize) -> &[f32] {
        match self.rows.get(row).copied().flatten() {
            Some(start) => &self.logits[start..start + N_VOCAB],
            None => &[],
        }
    }

    fn truncate(&mut self, sequence: SequenceId, from: u32) -> bool {
        let can_be_cut = self.spec.memory == MemoryKind::Attention;
        let sequence = &mut self.sequences[sequence as usize];
        let whole = from as usize >= sequence.tokens.len();
        sequence.tokens.truncate(from as usize);
        sequence.hashes.truncate(from as usize);
        if !can_be_cut && !whole {
            sequence.spoil();
        }
        can_be_cut || whole || from == 0
    }

    fn fingerprint(&self) -> String {
        let FakeSpec { alphabet, end_every, memory, .. } = &self.spec;
        format!("fake {alphabet:?} {end_every:?} {memory:?} {}", env!("CARGO_PKG_VERSION"))
    }

    fn save(&mut self, sequence: SequenceId) -> Option<Vec<u8>> {
        let sequence = self.sequences.get(sequence as usize)?;
        if self.spec.window.is_some_and(|window| sequence.tokens.len() > window as usize) {
            return None;
        }
        let pairs = sequence.tokens.iter().zip(&sequence.hashes);
        Some(pairs.flat_map(|(token, hash)| [i64::from(*token).to_le_bytes(), hash.to_le_bytes()].concat()).collect())
    }

    fn restore(&mut self, sequence: SequenceId, state: &[u8], tokens: u32) -> bool {
        let (words, rest) = state.as_chunks::<8>();
        let fits = self.cells_used() + tokens as usize <= self.spec.n_ctx as usize;
        if !fits
            || !self.has_streams_for([sequence].into_iter())
            || !rest.is_empty()
            || words.len() != 2 * tokens as usize
        {
            return false;
        }
        let restored = &mut self.sequences[sequence as usize];
        restored.tokens = words.iter().step_by(2).map(|word| i64::from_le_bytes(*word) as Token).collect();
        restored.hashes = words.iter().skip(1).step_by(2).map(|word| u64::from_le_bytes(*word)).collect();
        true
    }

    fn copy(&mut self, from: SequenceId, to: SequenceId, tokens: u32) -> bool {
        let mut copy = self.sequences[from as usize].clone();
        if self.spec.streams.is_some() {
            self.sequences[to as usize] = Sequence::default();
            return false;
        }
        if self.spec.memory != MemoryKind::Attention && copy.tokens.len() != tokens as usize {
            self.sequences[to as usize] = Sequence::default();
            return false;
        }
        copy.tokens.truncate(tokens as usize);
        copy.hashes.truncate(tokens as usize);
        self.sequences[to as usize] = copy;
        true
    }
}

impl Sequence {
    fn push(&mut self, token: Token) {
        self.hashes.push(mix(self.hashes.last().copied().unwrap_or(0) ^ token as u64));
        self.tokens.push(token);
    }

    /// A state that was cut answers with something else from here on.
    fn spoil(&mut self) {
        if let Some(hash) = self.hashes.last_mut() {
            *hash = !*hash;
        }
    }

    fn next(&self, spec: &FakeSpec) -> Token {
        next_token(&self.tokens, self.hashes.last().copied().unwrap_or(0), spec.alphabet, spec.end_every)
    }
}

/// The tokens the fake engine says after `tokens`: what a test compares an answer with.
pub fn continuation(spec: &FakeSpec, tokens: &[Token], count: usize) -> Vec<Token> {
    let mut sequence = Sequence::default();
    tokens.iter().for_each(|token| sequence.push(*token));
    let mut emitted = Vec::with_capacity(count);
    while emitted.len() < count {
        let next = sequence.next(spec);
        emitted.push(next);
        sequence.push(next);
        if FakeVocabulary.is_end(next) {
            break;
        }
    }
    emitted
}

fn next_token(tokens: &[Token], hash: u64, alphabet: Alphabet, end_every: Option<u32>) -> Token {
    let begun = incomplete_character(tokens);
    if begun.is_empty() && end_every.is_some_and(|every| hash.is_multiple_of(u64::from(every.max(1)))) {
        return EOS;
    }
    let draw = (hash >> 16) as usize;
    match alphabet {
        Alphabet::Ascii => Token::from(b"abcdefghijklmnopqrstuvwxyz "[draw % 27]),
        Alphabet::Multibyte => multibyte(&begun, draw),
    }
}

fn multibyte(begun: &[u8], draw: usize) -> Token {
    let fitting = || MULTIBYTE.iter().filter(|text| text.as_bytes().starts_with(begun));
    let count = fitting().count();
    let chosen = if count == 0 { None } else { fitting().nth(draw % count) };
    chosen.map_or(Token::from(b' '), |text| Token::from(text.as_bytes()[begun.len()]))
}

/// The bytes of a character that the last tokens began and did not finish.
fn incomplete_character(tokens: &[Token]) -> SmallVec<[u8; 4]> {
    let last = tokens[tokens.len().saturating_sub(3)..].iter().rev();
    let mut tail: SmallVec<[u8; 4]> = last.map_while(|token| u8::try_from(*token).ok()).collect();
    tail.reverse();
    (0..tail.len())
        .map(|start| &tail[start..])
        .find(|bytes| {
            std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .map_or_else(SmallVec::new, SmallVec::from_slice)
}

/// SplitMix64's finalizer (Steele et al., 2014).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn ends_with(tokens: &[Token], text: Option<&str>) -> bool {
    text.is_some_and(|text| {
        tokens.len() >= text.len()
            && tokens[tokens.len() - text.len()..]
                .iter()
                .zip(text.bytes())
                .all(|(token, byte)| *token == Token::from(byte))
    })
}

fn failed(cause: &str) -> DecodeError {
    DecodeError::Failed(cause.to_owned())
}

#[expect(clippy::disallowed_methods, reason = "the engine thread may block: this is the fake's arithmetic")]
fn pause(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}

fn info(spec: &FakeSpec, n_seq_max: u32) -> ModelInfo {
    ModelInfo {
        name: "fake".to_owned(),
        architecture: "fake".to_owned(),
        description: "fake engine".to_owned(),
        chat_template: Some(spec.chat_template.clone().unwrap_or_else(|| TEMPLATE.to_owned())),
        bos_text: None,
        eos_text: Some(CONTROL[1].1.to_owned()),
        bos: None,
        add_bos: false,
        end_tokens: vec![EOS, TURN_END],
        control_tokens: CONTROL.iter().map(|(_, text)| (*text).to_owned()).collect(),
        n_vocab: N_VOCAB as u32,
        max_token_bytes: CONTROL.iter().map(|(_, text)| text.len() as u32).max(),
        lost_bytes: Vec::new(),
        n_ctx: spec.n_ctx,
        n_ctx_seq: spec.max_context_length.min(spec.n_ctx),
        streams: spec.streams,
        n_ctx_train: spec.max_context_length,
        n_seq_max,
        n_batch: spec.n_batch,
        n_params: 0,
        size_bytes: 0,
        n_embd: 0,
        n_layer: 0,
        n_head: 0,
        n_head_kv: 0,
        kv_bytes_per_token: STATE_BYTES,
        memory: spec.memory,
        parked_limit: spec.parked_limit,
        parked_bytes: spec.parked_bytes,
        on_gpu: false,
        system: "fake engine".to_owned(),
        metadata: Vec::new(),
    }
}

/// One token for each byte, four control tokens.
#[derive(Debug)]
pub struct FakeVocabulary;

impl Vocabulary for FakeVocabulary {
    fn n_tokens(&self) -> u32 {
        N_VOCAB as u32
    }

    fn tokenize(&self, parts: &[TextPart], _special: AddSpecial) -> Result<Vec<Token>, String> {
        check_runs(parts.iter().map(|part| &*part.text))?;
        let mut tokens = Vec::new();
        for part in parts {
            match part.trust {
                Trust::User => tokens.extend(part.text.bytes().map(Token::from)),
                Trust::Template => tokenize_template(&part.text, &mut tokens),
            }
        }
        Ok(tokens)
    }

    fn piece(&self, token: Token, control: ControlTokens, out: &mut Vec<u8>) {
        match (u8::try_from(token), control) {
            (Ok(byte), _) => out.push(byte),
            (Err(_), ControlTokens::Hide) => {}
            (Err(_), ControlTokens::Show) => {
                let text = CONTROL.iter().find(|(id, _)| *id == token).map_or("", |(_, text)| text);
                out.extend_from_slice(text.as_bytes());
            }
        }
    }

    fn is_end(&self, token: Token) -> bool {
        token == EOS || token == TURN_END
    }
}

fn tokenize_template(text: &str, tokens: &mut Vec<Token>) {
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        match CONTROL.iter().find(|(_, control)| rest.starts_with(control)) {
            Some((token, control)) => {
                tokens.push(*token);
                rest = &rest[control.len()..];
            }
            None => {
                tokens.extend(rest.bytes().take(next.len_utf8()).map(Token::from));
                rest = &rest[next.len_utf8()..];
            }
        }
    }
}
