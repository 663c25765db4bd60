//! Models of a layer or two with a SentencePiece vocabulary, written by hand: for tokenizer rules and kinds of memory that the
//! downloaded model does not have. Their weights are zeros, or noise where it matters what is computed.

const WIDTH: u64 = 32;

/// Ordinary tokens, better ones first; `▁` is a space.
const WORDS: [&str; 11] = ["▁hello", "hello", "▁he", "llo", "he", "ll", "▁", "h", "e", "l", "o"];

/// Types of tokens, as the format numbers them.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const BYTE: i32 = 6;
}

struct Writer {
    pairs: Vec<u8>,
    n_pairs: u64,
    tensors: Vec<u8>,
    n_tensors: u64,
    data: Vec<u8>,
    /// Where weights are drawn from; zeros without.
    noise: Option<fastrand::Rng>,
}

/// The file's bytes. Tokens 0, 1 and 2 are `<unk>`, `<s>` and `</s>`.
pub(crate) fn spm_model() -> Vec<u8> {
    let mut writer = Writer::new("llama", 1);
    let n_vocab = writer.vocabulary();
    writer.pair("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes());
    writer.tensor("token_embd.weight", &[WIDTH, n_vocab]);
    writer.tensor("output_norm.weight", &[WIDTH]);
    writer.layer(0, &["attn_norm", "ffn_norm"], &SEPARATE);
    writer.finish()
}

/// As [`spm_model`], but every other layer sees the last `window` tokens only.
pub(crate) fn windowed_model(window: u32) -> Vec<u8> {
    let mut writer = Writer::new("gemma2", 2);
    let n_vocab = writer.vocabulary();
    writer.pair("gemma2.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes());
    writer.number("gemma2.attention.sliding_window", window);
    writer.tensor("token_embd.weight", &[WIDTH, n_vocab]);
    writer.tensor("output_norm.weight", &[WIDTH]);
    for layer in 0..2 {
        writer.layer(layer, &["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"], &SEPARATE);
    }
    writer.finish()
}

/// As [`spm_model`], with a table of 256 learned positions.
pub(crate) fn learned_model() -> Vec<u8> {
    let mut writer = Writer::new("gpt2", 1);
    let n_vocab = writer.vocabulary();
    writer.pair("gpt2.attention.layer_norm_epsilon", 6, &1e-5_f32.to_le_bytes());
    writer.tensor("token_embd.weight", &[WIDTH, n_vocab]);
    writer.tensor("position_embd.weight", &[WIDTH, 256]);
    for name in ["output_norm.weight", "output_norm.bias"] {
        writer.tensor(name, &[WIDTH]);
    }
    writer.layer(0, &["attn_norm", "ffn_norm"], &["attn_output", "ffn_down", "ffn_up"]);
    writer.tensor("blk.0.attn_qkv.weight", &[WIDTH, 3 * WIDTH]);
    writer.tensor("blk.0.attn_qkv.bias", &[3 * WIDTH]);
    for name in ["attn_norm", "ffn_norm", "attn_output", "ffn_down", "ffn_up"] {
        writer.tensor(&format!("blk.0.{name}.bias"), &[WIDTH]);
    }
    writer.finish()
}

/// Two layers with a state and no attention, with weights that are noise.
pub(crate) fn recurrent_model() -> Vec<u8> {
    let mut writer = Writer::new("mamba", 2);
    writer.state_space("mamba");
    for layer in 0..2 {
        writer.layer(layer, &["attn_norm"], &[]);
        writer.state_space_layer(layer);
    }
    writer.finish()
}

/// As [`recurrent_model`], and a third layer has attention.
pub(crate) fn hybrid_model() -> Vec<u8> {
    let mut writer = Writer::with_key_heads("jamba", &[0, 0, 1]);
    writer.state_space("jamba");
    for layer in 0..3 {
        writer.layer(layer, &["attn_norm", "ffn_norm"], &["ffn_gate", "ffn_up", "ffn_down"]);
        if layer < 2 {
            writer.state_space_layer(layer);
            for (name, len) in [("ssm_dt_norm", RANK), ("ssm_b_norm", STATE), ("ssm_c_norm", STATE)] {
                writer.tensor(&format!("blk.{layer}.{name}.weight"), &[len]);
            }
        } else {
            writer.layer(layer, &[], &["attn_q", "attn_k", "attn_v", "attn_output"]);
        }
    }
    writer.finish()
}

/// Sizes of a layer with a state.
const INNER: u64 = 2 * WIDTH;
const STATE: u64 = 16;
const RANK: u64 = 2;
const CONVOLUTION: u64 = 4;

/// Square weights of a layer with attention and a gated network.
const SEPARATE: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

impl Writer {
    /// With the sizes that all of them have.
    fn new(architecture: &str, layers: u32) -> Self {
        let mut writer = Self::with_layers(architecture, layers);
        writer.number(&format!("{architecture}.attention.head_count_kv"), 1);
        writer
    }

    /// With so many heads of keys and values in each layer.
    fn with_key_heads(architecture: &str, heads: &[u32]) -> Self {
        let mut writer = Self::with_layers(architecture, u32::try_from(heads.len()).expect("few"));
        let values: Vec<u8> = heads.iter().flat_map(|heads| heads.to_le_bytes()).collect();
        writer.array(&format!("{architecture}.attention.head_count_kv"), 4, heads.len() as u64, &values);
        writer
    }

    fn with_layers(architecture: &str, layers: u32) -> Self {
        let (pairs, tensors, data) = (Vec::new(), Vec::new(), Vec::new());
        let mut writer = Self { pairs, n_pairs: 0, tensors, n_tensors: 0, data, noise: None };
        writer.string("general.architecture", architecture);
        let sizes = [("context_length", 256), ("embedding_length", 32), ("feed_forward_length", 32)];
        let layers = [("block_count", layers), ("attention.head_count", 1)];
        for (key, value) in sizes.into_iter().chain(layers) {
            writer.number(&format!("{architecture}.{key}"), value);
        }
        writer
    }

    /// Vocabulary, sizes and outer weights of a model with a state, whose weights are noise from here on.
    fn state_space(&mut self, architecture: &str) {
        let n_vocab = self.vocabulary();
        self.pair(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 6, &1e-5_f32.to_le_bytes());
        let sizes =
            [("inner_size", INNER), ("state_size", STATE), ("time_step_rank", RANK), ("conv_kernel", CONVOLUTION)];
        for (key, value) in sizes {
            self.number(&format!("{architecture}.ssm.{key}"), u32::try_from(value).expect("small"));
        }
        self.noise = Some(fastrand::Rng::with_seed(5));
        self.tensor("token_embd.weight", &[WIDTH, n_vocab]);
        self.tensor("output_norm.weight", &[WIDTH]);
    }

    fn state_space_layer(&mut self, layer: u32) {
        let shapes: [(&str, &[u64]); 9] = [
            ("ssm_in.weight", &[WIDTH, 2 * INNER]),
            ("ssm_conv1d.weight", &[CONVOLUTION, INNER]),
            ("ssm_conv1d.bias", &[INNER]),
            ("ssm_x.weight", &[INNER, RANK + 2 * STATE]),
            ("ssm_dt.weight", &[RANK, INNER]),
            ("ssm_dt.bias", &[INNER]),
            ("ssm_a", &[STATE, INNER]),
            ("ssm_d", &[INNER]),
            ("ssm_out.weight", &[INNER, WIDTH]),
        ];
        for (name, shape) in shapes {
            self.tensor(&format!("blk.{layer}.{name}"), shape);
        }
    }

    fn layer(&mut self, layer: u32, norms: &[&str], weights: &[&str]) {
        for name in norms {
            self.tensor(&format!("blk.{layer}.{name}.weight"), &[WIDTH]);
        }
        for name in weights {
            self.tensor(&format!("blk.{layer}.{name}.weight"), &[WIDTH, WIDTH]);
        }
    }

    /// Writes the tokens; returns how many.
    fn vocabulary(&mut self) -> u64 {
        let mut tokens = vec![("<unk>".to_owned(), kind::UNKNOWN), ("<s>".to_owned(), kind::CONTROL)];
        tokens.push(("</s>".to_owned(), kind::CONTROL));
        tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), kind::BYTE)));
        tokens.push(("\n\n".to_owned(), kind::USER_DEFINED));
        tokens.extend(WORDS.map(|word| (word.to_owned(), kind::NORMAL)));
        let (mut texts, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for (rank, (token, kind)) in (0_u16..).zip(&tokens) {
            text(&mut texts, token);
            scores.extend((-f32::from(rank)).to_le_bytes());
            kinds.extend(kind.to_le_bytes());
        }
        let count = tokens.len() as u64;
        self.string("tokenizer.ggml.model", "llama");
        self.array("tokenizer.ggml.tokens", 8, count, &texts);
        self.array("tokenizer.ggml.scores", 6, count, &scores);
        self.array("tokenizer.ggml.token_type", 5, count, &kinds);
        count
    }

    fn pair(&mut self, key: &str, kind: u32, value: &[u8]) {
        text(&mut self.pairs, key);
        self.pairs.extend(kind.to_le_bytes());
        self.pairs.extend(value);
        self.n_pairs += 1;
    }

    fn number(&mut self, key: &str, value: u32) {
        self.pair(key, 4, &value.to_le_bytes());
    }

    fn string(&mut self, key: &str, value: &str) {
        let mut bytes = Vec::new();
        text(&mut bytes, value);
        self.pair(key, 8, &bytes);
    }

    fn array(&mut self, key: &str, kind: u32, count: u64, values: &[u8]) {
        let value = [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat();
        self.pair(key, 9, &value);
    }

    fn tensor(&mut self, name: &str, shape: &[u64]) {
        text(&mut self.tensors, name);
        self.tensors.extend(u32::try_from(shape.len()).expect("few").to_le_bytes());
        self.tensors.extend(shape.iter().flat_map(|dim| dim.to_le_bytes()));
        self.tensors.extend(0_u32.to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        for _ in 0..shape.iter().product::<u64>() {
            let draw = self.noise.as_mut().map_or(0.0, |noise| noise.f32() - 0.5);
            // A state decays: what it is multiplied with must be under 0.
            let weight = if name.ends_with("ssm_a") { -draw.abs() } else { draw };
            self.data.extend(weight.to_le_bytes());
        }
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self.n_tensors += 1;
    }

    fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend(self.n_tensors.to_le_bytes());
        file.extend(self.n_pairs.to_le_bytes());
        file.extend(self.pairs);
        file.extend(self.tensors);
        let data = file.len().next_multiple_of(32);
        file.resize(data, 0);
        file.extend(self.data);
        file
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
