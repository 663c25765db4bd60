//! llama.cpp's log, line by line into `tracing`, and the errors of the running call.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};

use llama_cpp_sys_2 as sys;

/// Errors kept for one call; more are of no use to anyone.
const KEPT: usize = 8;

#[derive(Default)]
struct Lines {
    level: sys::ggml_log_level,
    unfinished: String,
    errors: Vec<String>,
}

thread_local! {
    // Of the thread, because two engines may load at the same time, and llama.cpp logs where it is called.
    static LINES: RefCell<Lines> = RefCell::default();
}

/// Sends everything that llama.cpp and ggml log to `tracing` under the target `llama.cpp`.
pub(super) fn install() {
    // SAFETY: `receive` is a plain function and ignores the user data; both callbacks live as long as the process.
    unsafe {
        sys::llama_log_set(Some(receive), std::ptr::null_mut());
        sys::ggml_set_abort_callback(Some(report_abort));
    }
}

/// Forgets the errors that this thread has seen.
pub(super) fn forget_errors() {
    LINES.with_borrow_mut(|lines| lines.errors.clear());
}

/// The last error that says something, of those that this thread has seen since `forget_errors`.
pub(super) fn last_error() -> Option<String> {
    LINES.with_borrow_mut(|lines| {
        let errors = std::mem::take(&mut lines.errors);
        let telling = errors.iter().rfind(|error| !error.starts_with("failed to load model"));
        telling.or(errors.last()).cloned()
    })
}

unsafe extern "C" fn receive(level: sys::ggml_log_level, text: *const c_char, _user_data: *mut c_void) {
    // SAFETY: llama.cpp passes a string that ends with NUL and lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // Threads that are being torn down have nothing to say.
    let finished = LINES.try_with(|lines| lines.borrow_mut().append(level, &text)).unwrap_or_default();
    for (level, line) in finished {
        emit(level, &line);
    }
}

impl Lines {
    /// Adds a fragment; returns the lines that it finishes.
    fn append(&mut self, level: sys::ggml_log_level, text: &str) -> Vec<(sys::ggml_log_level, String)> {
        if level != sys::GGML_LOG_LEVEL_CONT {
            self.level = level;
        }
        self.unfinished.push_str(text);
        let mut finished = Vec::new();
        while let Some(end) = self.unfinished.find('\n') {
            let rest = self.unfinished.split_off(end + 1);
            let line = std::mem::replace(&mut self.unfinished, rest);
            let line = line.trim_end();
            if !line.is_empty() {
                self.keep_error(line);
                finished.push((self.level, line.to_owned()));
            }
        }
        finished
    }

    fn keep_error(&mut self, line: &str) {
        if self.level == sys::GGML_LOG_LEVEL_ERROR {
            if self.errors.len() == KEPT {
                self.errors.remove(0);
            }
            self.errors.push(without_origin(line).to_owned());
        }
    }
}

/// The line without the names of the functions that pass it on.
fn without_origin(line: &str) -> &str {
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:".contains(&b));
    let mut line = line;
    while let Some((origin, rest)) = line.split_once(": ")
        && (is_name(origin) || origin == "error loading model")
    {
        line = rest;
    }
    line
}

/// llama.cpp's information is a hundred lines per load: ours to debug with, not the operator's.
fn emit(level: sys::ggml_log_level, line: &str) {
    match level {
        sys::GGML_LOG_LEVEL_WARN if is_about_all_sequences(line) => tracing::debug!(target: "llama.cpp", "{line}"),
        sys::GGML_LOG_LEVEL_ERROR => tracing::error!(target: "llama.cpp", "{line}"),
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama.cpp", "{line}"),
        sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: "llama.cpp", "{line}"),
        _ => tracing::trace!(target: "llama.cpp", "{line}"),
    }
}

/// In one pool of cells, what llama.cpp takes for the context of one sequence is that of all. A request is held to
/// less, and `report` in `llama.rs` warns if that is over what the model was trained with.
fn is_about_all_sequences(line: &str) -> bool {
    line.contains("n_ctx_seq (") && line.ends_with("possible training context overflow")
}

/// The last words of a process that ggml is about to abort. Standard error, because a log writer may buffer.
unsafe extern "C" fn report_abort(message: *const c_char) {
    // SAFETY: ggml passes a string that ends with NUL and lives during the call.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    eprintln!("llama.cpp aborts the process: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_become_lines() {
        let mut lines = Lines::default();
        assert!(lines.append(sys::GGML_LOG_LEVEL_INFO, "load: 1").is_empty());
        let finished = lines.append(sys::GGML_LOG_LEVEL_CONT, " of 2\n\nnext");
        assert_eq!(finished, [(sys::GGML_LOG_LEVEL_INFO, "load: 1 of 2".to_owned())]);
        assert_eq!(lines.append(sys::GGML_LOG_LEVEL_CONT, "\n"), [(sys::GGML_LOG_LEVEL_INFO, "next".to_owned())]);
    }

    #[test]
    fn only_the_warning_about_the_whole_buffer_is_lowered() {
        let line = "llama_context: n_ctx_seq (32768) > n_ctx_train (8192) -- possible training context overflow";
        assert!(is_about_all_sequences(line));
        let other = "llama_context: n_ctx_seq (2048) < n_ctx_train (8192) -- the full capacity will not be utilized";
        assert!(!is_about_all_sequences(other));
    }

    #[test]
    fn errors_lose_the_names_of_functions_only() {
        let line = "llama_model_load: error loading model: unknown model architecture: 'nope'";
        assert_eq!(without_origin(line), "unknown model architecture: 'nope'");
    }

    #[test]
    fn the_last_telling_error_is_the_reason() {
        forget_errors();
        LINES.with_borrow_mut(|lines| {
            lines.append(sys::GGML_LOG_LEVEL_ERROR, "llama_model_load: error loading model: wrong number of tensors\n");
            lines.append(sys::GGML_LOG_LEVEL_ERROR, "llama_model_load_from_file_impl: failed to load model\n");
        });
        assert_eq!(last_error().as_deref(), Some("wrong number of tensors"));
        assert_eq!(last_error(), None);
    }
}
