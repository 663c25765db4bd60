//! Ten prompts at once against the same ten one at a time.
//!
//! # Why the texts may differ at all
//! Found by feeding the same tokens alone and with nine neighbours, and comparing the log-probabilities of the likeliest
//! token (SmolLM2-135M Q4_1 on x86-64, llama.cpp as pinned in `Cargo.toml`):
//!
//! - Prefilled apart and decoded ten at a time: **bit-equal** to alone. So neither the matrix products of a batch nor
//!   other sequences in the same cells move anything, nor does the number of threads.
//! - Prefilled in one step: moved by up to 0.14 nats in the prompt's last row, and by up to 0.3 in the rows that follow,
//!   which read the KV of that prefill. From 64 rows in a ubatch on, ggml's CPU backend computes flash attention in tiles
//!   and in F32 (`GGML_FA_TILE_Q`); below, row by row, with sums in F16. A prompt of twenty tokens alone is below, ten of
//!   them together are not. With `n_ubatch` 1 everything is bit-equal again.
//! - F32 KV changes nothing, because flash attention takes F16 and casts. Without flash attention the sums run over the
//!   cells of all sequences, so every neighbour moves decoding too, by up to 0.25, with F32 KV 0.21.
//! - What starts in the last bits of a sum becomes tenths of a nat because activations are rounded to 8 bits before each
//!   product with quantised weights: a last bit decides on which side a rounding falls.
//!
//! A greedy choice between two tokens nearer to each other than that may fall the other way; nothing else may happen.

use std::time::Duration;

use cllm_actors::engine::protocol::{Token, TokenLogprob};
use cllm_actors::engine::spec::{EngineSpec, LlamaSpec};
use cllm_actors::{GenerateRequest, GenerationEvent, Prompt, System};
use futures_util::StreamExt;
use futures_util::future::join_all;

use super::{PROMPT, model_path};

/// Far beyond anything that is waited for here.
const PATIENCE: Duration = Duration::from_secs(300);

const QUESTIONS: [&str; 10] = [
    "What is the capital of France?",
    "Count from one to five.",
    "Name three colours.",
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "What is two plus two?",
    "Who wrote Hamlet?",
    "Explain what a compiler does.",
    "List the days of the week.",
    "Tell me a story about a dog.",
];

const TOKENS: u32 = 48;

/// Two tokens are near a tie when their log-probabilities differ by no more, in nats.
const NEAR_TIE: f32 = 0.5;

/// The tokens that may be drawn at each place, with what they are drawn by.
type Answer = Vec<TokenLogprob>;

async fn start(instance: &str) -> System {
    let spec = LlamaSpec {
        n_ctx: Some(4096),
        max_context_length: 256,
        running: QUESTIONS.len() as u32,
        // Nothing of one answer may help the next.
        retained: 0,
        n_batch: 512,
        n_threads: 1,
        ..LlamaSpec::new(model_path())
    };
    let system = System::builder().instance(instance).engine(EngineSpec::Llama(Box::new(spec)));
    let system = system.start().await.expect("starts");
    tokio::time::timeout(PATIENCE, system.ready()).await.expect("in time").expect("the test model loads");
    system
}

async fn ask(system: &System, question: &str) -> Answer {
    let prompt = PROMPT.replace("What is the capital of France?", question);
    let mut request = GenerateRequest::new(Prompt::Text(prompt.into()));
    (request.max_tokens, request.logprobs) = (Some(TOKENS), Some(20));
    request.sampling.temperature = 0.0;
    request.sampling.ignore_eos = true;
    let mut generation = system.generate(request).await.expect("admitted");
    let mut answer = Answer::new();
    while let Some(event) = tokio::time::timeout(PATIENCE, generation.next()).await.expect("in time") {
        match event {
            GenerationEvent::Delta(delta) => answer.extend(delta.logprobs),
            GenerationEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(answer.len(), TOKENS as usize, "{question}");
    answer
}

/// How much less likely `other` was than what was drawn, in nats; `None`: it was not even among the twenty best.
fn behind(drawn: &TokenLogprob, other: Token) -> Option<f32> {
    let logprob = |id| drawn.top.iter().find(|(token, ..)| *token == id).map(|(.., logprob)| *logprob);
    Some(logprob(drawn.id)? - logprob(other)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_prompts_at_once_get_the_text_of_each_alone_but_for_near_ties() {
    let system = start("together").await;
    let mut alone = Vec::new();
    for question in QUESTIONS {
        alone.push(ask(&system, question).await);
    }
    let together = join_all(QUESTIONS.map(|question| ask(&system, question))).await;
    let (mut equal, mut moved) = (0, 0.0_f32);
    for ((question, alone), together) in QUESTIONS.iter().zip(&alone).zip(&together) {
        let both = || alone.iter().zip(together);
        let differs = both().position(|(alone, together)| alone.id != together.id);
        for (alone, together) in both().take(differs.unwrap_or(alone.len())) {
            moved = moved.max((alone.logprob.unwrap_or(0.0) - together.logprob.unwrap_or(0.0)).abs());
        }
        let Some(at) = differs else {
            equal += 1;
            continue;
        };
        let behind = behind(&alone[at], together[at].id);
        assert!(
            behind.is_some_and(|behind| behind <= NEAR_TIE),
            "{question}: token {at} is another, behind by {behind:?}"
        );
    }
    println!("{equal} of {} equal; log-probabilities moved by up to {moved}", QUESTIONS.len());
    assert!(equal * 2 >= QUESTIONS.len(), "only {equal} answers are equal");
    system.stop().await;
}
