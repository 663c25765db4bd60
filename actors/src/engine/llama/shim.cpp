// Calls of llama.cpp that may throw, with the exception turned into a message: a C++ exception that reaches Rust ends the process.
// Every function returns 0, or 1 after an exception with its text in `message`.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>

#include "llama.h"

namespace {

void copy(const char * text, char * message, size_t capacity) noexcept {
    if (capacity > 0) {
        std::strncpy(message, text, capacity - 1);
        message[capacity - 1] = '\0';
    }
}

template <typename Call> int32_t guarded(char * message, size_t capacity, Call call) noexcept {
    try {
        call();
        return 0;
    } catch (const std::exception & error) {
        copy(error.what(), message, capacity);
    } catch (...) {
        copy("unknown C++ exception", message, capacity);
    }
    return 1;
}

} // namespace

extern "C" {

int32_t cllm_decode(llama_context * ctx, const llama_batch * batch, int32_t * code, char * message, size_t capacity) {
    return guarded(message, capacity, [&] { *code = llama_decode(ctx, *batch); });
}

int32_t cllm_tokenize(const llama_vocab * vocab, const char * text, int32_t length, llama_token * tokens, int32_t n_tokens_max,
                      int32_t * n_tokens, char * message, size_t capacity) {
    return guarded(message, capacity, [&] {
        *n_tokens = llama_tokenize(vocab, text, length, tokens, n_tokens_max, false, false);
    });
}

int32_t cllm_token_to_piece(const llama_vocab * vocab, llama_token token, char * piece, int32_t length, int32_t * n_bytes,
                            char * message, size_t capacity) {
    return guarded(message, capacity, [&] { *n_bytes = llama_token_to_piece(vocab, token, piece, length, 0, true); });
}

}
