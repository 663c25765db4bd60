//! The C++ shim: calls that may throw, with exceptions as `Err`.

use std::ffi::{CStr, c_char};

use llama_cpp_sys_2 as sys;

const MESSAGE_BYTES: usize = 512;

unsafe extern "C" {
    fn cllm_decode(
        ctx: *mut sys::llama_context,
        batch: *const sys::llama_batch,
        code: *mut i32,
        message: *mut c_char,
        capacity: usize,
    ) -> i32;

    fn cllm_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        length: i32,
        tokens: *mut sys::llama_token,
        n_tokens_max: i32,
        n_tokens: *mut i32,
        message: *mut c_char,
        capacity: usize,
    ) -> i32;

    fn cllm_token_to_piece(
        vocab: *const sys::llama_vocab,
        token: sys::llama_token,
        piece: *mut c_char,
        length: i32,
        n_bytes: *mut i32,
        message: *mut c_char,
        capacity: usize,
    ) -> i32;
}

/// `llama_decode`: its return code, or the text of an exception.
///
/// # Safety
/// `ctx` must be a live context that no other thread uses, and `batch` must fulfil what `llama_decode` asks of it.
pub(super) unsafe fn decode(ctx: *mut sys::llama_context, batch: &sys::llama_batch) -> Result<i32, String> {
    // SAFETY: the caller vouches for `ctx` and `batch`; the rest points to locals that outlive the call.
    guarded(|code, message| unsafe { cllm_decode(ctx, batch, code, message, MESSAGE_BYTES) })
}

/// `llama_tokenize` without beginning and end tokens, control tokens' texts being text: the number of tokens, or minus the
/// room needed.
///
/// # Safety
/// `vocab` must belong to a live model.
pub(super) unsafe fn tokenize(
    vocab: *const sys::llama_vocab,
    text: &str,
    tokens: &mut [sys::llama_token],
) -> Result<i32, String> {
    let length = i32::try_from(text.len()).map_err(|_| "text of 2 GiB or more".to_owned())?;
    let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
    let (text, tokens) = (text.as_ptr().cast(), tokens.as_mut_ptr());
    // SAFETY: `text` and `tokens` are as long as `length` and `room` say at least; the caller vouches for `vocab`.
    guarded(|n, message| unsafe { cllm_tokenize(vocab, text, length, tokens, room, n, message, MESSAGE_BYTES) })
}

/// `llama_token_to_piece` with control tokens shown: the number of bytes, or minus the room needed.
///
/// # Safety
/// `vocab` must belong to a live model.
pub(super) unsafe fn token_to_piece(
    vocab: *const sys::llama_vocab,
    token: sys::llama_token,
    piece: &mut [u8],
) -> Result<i32, String> {
    let room = i32::try_from(piece.len()).unwrap_or(i32::MAX);
    let piece = piece.as_mut_ptr().cast();
    // SAFETY: `piece` has `room` bytes; a token out of range throws, which the shim catches.
    guarded(|n, message| unsafe { cllm_token_to_piece(vocab, token, piece, room, n, message, MESSAGE_BYTES) })
}

fn guarded(call: impl FnOnce(*mut i32, *mut c_char) -> i32) -> Result<i32, String> {
    let mut value = 0;
    let mut message: [c_char; MESSAGE_BYTES] = [0; MESSAGE_BYTES];
    if call(&raw mut value, message.as_mut_ptr()) == 0 {
        return Ok(value);
    }
    // SAFETY: the shim ends the message with a NUL inside the buffer.
    let message = unsafe { CStr::from_ptr(message.as_ptr()) };
    Err(message.to_string_lossy().into_owned())
}
