//! What each kind of actor shows of itself in `/actors`: the places of its [`Board`].

use std::sync::Arc;

use crate::supervision::{Board, Field};

/// The boards of the actors that there is one of.
#[derive(Debug)]
pub struct Boards {
    /// See [`scheduler`].
    pub scheduler: Arc<Board>,
    /// See [`kv_cache`].
    pub kv_cache: Arc<Board>,
    /// See [`backend`].
    pub backend: Arc<Board>,
    /// See [`response_cache`].
    pub response_cache: Arc<Board>,
    /// See [`sessions`].
    pub sessions: Arc<Board>,
}

impl Default for Boards {
    fn default() -> Self {
        let board = |fields| Arc::new(Board::new(fields));
        Self {
            scheduler: board(scheduler::FIELDS),
            kv_cache: board(kv_cache::FIELDS),
            backend: board(backend::FIELDS),
            response_cache: board(response_cache::FIELDS),
            sessions: board(sessions::FIELDS),
        }
    }
}

/// Places of the scheduler's board.
pub mod scheduler {
    use super::Field;

    /// Requests with a place.
    pub const RUNNING: usize = 0;
    /// Requests queued.
    pub const WAITING: usize = 1;
    /// Most tokens in a step.
    pub const STEP_TOKENS: usize = 2;
    /// How the step's size is chosen.
    pub const TUNER: usize = 3;
    /// Most prompt tokens in a step that somebody decodes in.
    pub const MIXED_PREFILL_TOKENS: usize = 4;
    /// The time under which such a step is kept, µs.
    pub const MAX_STEP_US: usize = 5;
    /// What the decoding sequences take by themselves, estimated, µs.
    pub const DECODE_US: usize = 6;
    /// What a prompt token adds, estimated, ns.
    pub const PREFILL_TOKEN_NS: usize = 7;
    /// Sequences that decoded in the last step.
    pub const LAST_DECODE_ROWS: usize = 8;
    /// Prompt tokens in the last step.
    pub const LAST_PREFILL_TOKENS: usize = 9;
    /// Time of the last step, µs.
    pub const LAST_STEP_US: usize = 10;
    /// Most requests with a place, at present: fewer than the engine has while deadlines are missed.
    pub const PLACES: usize = 11;

    pub(super) const FIELDS: &[Field] = &[
        Field::Number("running"),
        Field::Number("waiting"),
        Field::Number("step_tokens"),
        Field::Word("tuner", &["static", "adaptive"]),
        Field::Number("mixed_prefill_tokens"),
        Field::Number("max_step_us"),
        Field::Number("decode_us"),
        Field::Number("prefill_token_ns"),
        Field::Number("last_decode_rows"),
        Field::Number("last_prefill_tokens"),
        Field::Number("last_step_us"),
        Field::Number("places"),
    ];
}

/// Places of the kv-cache's board.
pub mod kv_cache {
    use super::Field;

    /// Retained prefixes.
    pub const ENTRIES: usize = 0;
    /// Tokens in them.
    pub const RETAINED_TOKENS: usize = 1;
    /// Cells of the context.
    pub const CELLS: usize = 2;
    /// Most retained prefixes.
    pub const BUDGET_ENTRIES: usize = 3;
    /// Most memory of retained prefixes, bytes.
    pub const BUDGET_BYTES: usize = 4;

    pub(super) const FIELDS: &[Field] = &[
        Field::Number("entries"),
        Field::Number("retained_tokens"),
        Field::Number("cells"),
        Field::Number("budget_entries"),
        Field::Number("budget_bytes"),
    ];
}

/// Places of the backend's board.
pub mod backend {
    use super::Field;

    /// Index of the engine's word.
    pub const ENGINE: usize = 0;
    /// The engine runs in a process of its own.
    pub const ENGINE_PROCESS: u64 = 0;
    /// The engine runs in a thread.
    pub const ENGINE_THREAD: u64 = 1;
    /// The fake engine.
    pub const ENGINE_FAKE: u64 = 2;
    /// Process id of the engine, if it has one of its own.
    pub const PID: usize = 1;
    /// Steps computed.
    pub const STEPS: usize = 2;
    /// Time of the last step, µs.
    pub const STEP_US: usize = 3;
    /// Of it, drawing tokens, µs.
    pub const SAMPLE_US: usize = 4;
    /// Tokens in the last step.
    pub const BATCH_TOKENS: usize = 5;
    /// Cells with KV.
    pub const CELLS_USED: usize = 6;
    /// Cells of the context.
    pub const N_CTX: usize = 7;

    pub(super) const FIELDS: &[Field] = &[
        Field::Word("engine", &["process", "thread", "fake"]),
        Field::Number("pid"),
        Field::Number("steps"),
        Field::Number("step_us"),
        Field::Number("sample_us"),
        Field::Number("batch_tokens"),
        Field::Number("cells_used"),
        Field::Number("n_ctx"),
    ];
}

/// Places of the response cache's board. The counters are those of all incarnations.
pub mod response_cache {
    use super::Field;

    /// Answers kept.
    pub const ENTRIES: usize = 0;
    /// Memory they take, bytes.
    pub const BYTES: usize = 1;
    /// Answers that are being computed and can be followed.
    pub const IN_FLIGHT: usize = 2;
    /// Requests whose answer was there.
    pub const HITS: usize = 3;
    /// Requests that had to compute it.
    pub const MISSES: usize = 4;
    /// Requests that follow another one.
    pub const COALESCED: usize = 5;
    /// Answers forgotten for lack of room.
    pub const EVICTIONS: usize = 6;

    pub(super) const FIELDS: &[Field] = &[
        Field::Number("entries"),
        Field::Number("bytes"),
        Field::Number("in_flight"),
        Field::Number("hits"),
        Field::Number("misses"),
        Field::Number("coalesced"),
        Field::Number("evictions"),
    ];
}

/// Places of the board of the sessions' supervisor.
pub mod sessions {
    use super::Field;

    /// Sessions that are alive.
    pub const OPEN: usize = 0;

    pub(super) const FIELDS: &[Field] = &[Field::Number("open")];
}

/// Places of the chaos actor's board.
pub mod chaos {
    use super::{Board, Field};

    /// Faults that hit somebody.
    pub const INJECTED: usize = 0;
    /// Faults whose victim was not there.
    pub const MISSED: usize = 1;

    /// A board of its own.
    pub fn board() -> Board {
        Board::new(&[Field::Number("injected"), Field::Number("missed")])
    }
}

/// Places of a session's board.
pub mod session {
    use super::{Board, Field};

    /// Index of the phase's word.
    pub const PHASE: usize = 0;
    /// The prompt is being turned into tokens.
    pub const TOKENIZING: u64 = 0;
    /// Queued or running.
    pub const SUBMITTED: u64 = 1;
    /// The engine works on it.
    pub const RUNNING: u64 = 2;
    /// The last event waits to be taken.
    pub const OVER: u64 = 3;
    /// The answer is another request's, given again or followed.
    pub const FOLLOWING: u64 = 4;
    /// Tokens of the prompt.
    pub const PROMPT_TOKENS: usize = 1;
    /// Tokens received.
    pub const EMITTED_TOKENS: usize = 2;
    /// How often it was submitted again.
    pub const RESUMED: usize = 3;

    const FIELDS: &[Field] = &[
        Field::Word("phase", &["tokenizing", "submitted", "running", "over", "following"]),
        Field::Number("prompt_tokens"),
        Field::Number("emitted_tokens"),
        Field::Number("resumed"),
    ];

    /// A new session's board.
    pub fn board() -> Board {
        let board = Board::new(FIELDS);
        board.set(PHASE, TOKENIZING);
        board.set(RESUMED, 0);
        board
    }
}
