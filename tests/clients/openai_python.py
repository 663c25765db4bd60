"""The official OpenAI Python client against our server. Usage: openai_python.py BASE_URL

Each `test_*` function is one behaviour; needs no test framework. Questions are asked at temperature 0, so that an answer
can be compared with itself, and with `no-store`, so that it is computed both times and not replayed from the cache.
"""
from __future__ import annotations

import asyncio
import math
import sys
import time
import traceback

import openai
from openai import AsyncOpenAI, OpenAI

ROOT_URL = sys.argv[1].rstrip("/")
SETTINGS = {"api_key": "unused", "max_retries": 0, "timeout": 120.0, "default_headers": {"Cache-Control": "no-store"}}
client = OpenAI(base_url=f"{ROOT_URL}/v1", **SETTINGS)
MODEL = "default"
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]


def ask(messages=QUESTION, **settings):
    """A chat completion, greedy unless said otherwise."""
    return client.chat.completions.create(model=MODEL, messages=messages, **{"temperature": 0, "max_tokens": 40, **settings})


def raised(kind: type[openai.APIStatusError], call) -> openai.APIStatusError:
    """The error of class `kind` that the call raises; anything else is a failure."""
    try:
        call()
    except openai.APIStatusError as error:
        assert type(error) is kind, f"expected {kind.__name__}, got {error!r}"
        assert error.message and error.type, f"message or type is missing: {error.body}"
        return error
    raise AssertionError(f"expected {kind.__name__}, got an answer")


def test_chat_answers_sensibly():
    answer = ask()
    choice = answer.choices[0]
    assert "Paris" in choice.message.content, choice
    assert (choice.message.role, choice.finish_reason, choice.index) == ("assistant", "stop", 0)
    assert (answer.object, answer.id.startswith("chatcmpl-")) == ("chat.completion", True), answer
    assert abs(answer.created - time.time()) < 600
    usage = answer.usage
    assert usage.prompt_tokens > 5 and usage.completion_tokens > 3, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_says_the_same_as_an_answer():
    chunks = list(ask(stream=True))
    assert {(chunk.object, chunk.id) for chunk in chunks} == {("chat.completion.chunk", chunks[0].id)}
    assert all(chunk.usage is None for chunk in chunks), "usage was not asked for"
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == ask().choices[0].message.content
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["stop"]
    assert len(chunks) > 4, "it came in one piece"


def test_stream_options_add_one_chunk_with_usage():
    *before, last = ask(stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and all(chunk.usage is None for chunk in before)
    usage = ask().usage
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)


def test_the_stream_helper_of_the_client_works():
    with client.chat.completions.stream(model=MODEL, messages=QUESTION, temperature=0, max_tokens=40) as stream:
        kinds = {event.type for event in stream}
    assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
    assert "Paris" in stream.get_final_completion().choices[0].message.content


def test_completions_go_on_with_the_prompt():
    settings = {"model": MODEL, "prompt": "1, 2, 3, 4, 5, 6,", "temperature": 0, "max_tokens": 8}
    answer = client.completions.create(**settings)
    assert answer.object == "text_completion" and answer.choices[0].text.strip().startswith("7"), answer
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 8)
    streamed = [chunk.choices[0].text for chunk in client.completions.create(**settings, stream=True) if chunk.choices]
    assert "".join(streamed) == answer.choices[0].text


def test_completions_take_several_prompts():
    answer = client.completions.create(model=MODEL, prompt=["1, 2, 3,", "A, B, C,"], temperature=0, max_tokens=4)
    texts = {choice.index: choice.text for choice in answer.choices}
    assert "4" in texts[0] and "D" in texts[1], texts


def test_completions_give_logprobs_in_their_own_shape():
    answer = client.completions.create(model=MODEL, prompt="1, 2, 3,", temperature=0, max_tokens=4, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 4, logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert all(len(top) >= 2 for top in logprobs.top_logprobs)


def test_chat_logprobs_cover_each_token():
    answer = ask(logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == answer.choices[0].message.content
    for token in tokens:
        top = [candidate.logprob for candidate in token.top_logprobs]
        assert len(top) == 3 and top == sorted(top, reverse=True), token
        assert sum(map(math.exp, top)) <= 1.001 and token.logprob <= 0
        assert token.token == token.top_logprobs[0].token, "a greedy token is the likeliest"
    streamed = [choice.logprobs for chunk in ask(stream=True, logprobs=True) for choice in chunk.choices]
    content = [token.token for logprobs in streamed if logprobs for token in logprobs.content or []]
    assert content == [token.token for token in tokens]


def test_n_gives_as_many_choices():
    answer = ask(n=2, temperature=1, seed=7, max_tokens=12)
    assert sorted(choice.index for choice in answer.choices) == [0, 1]
    assert all(choice.message.content for choice in answer.choices)
    indices = {choice.index for chunk in ask(n=2, stream=True, max_tokens=4) for choice in chunk.choices}
    assert indices == {0, 1}


def test_a_stop_string_ends_the_answer_before_it():
    for stop in ("Paris", ["Berlin", "Paris"]):
        choice = ask(stop=stop).choices[0]
        assert "Paris" not in choice.message.content and choice.finish_reason == "stop", choice
    streamed = "".join(choice.delta.content or "" for chunk in ask(stop="Paris", stream=True) for choice in chunk.choices)
    assert streamed == choice.message.content


def test_both_names_of_the_token_limit_work():
    for limit in ({"max_tokens": 3}, {"max_tokens": openai.omit, "max_completion_tokens": 3}):
        answer = ask(**limit)
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 3), answer


def test_a_seed_repeats_an_answer():
    answers = {ask(seed=seed, temperature=1.2, max_tokens=16).choices[0].message.content for seed in (1, 1, 1)}
    assert len(answers) == 1, answers


def test_the_same_question_again_is_answered_from_the_cache():
    caching = OpenAI(base_url=f"{ROOT_URL}/v1", **{**SETTINGS, "default_headers": {}})
    messages = [{"role": "user", "content": f"Say a word about the number {time.time_ns()}."}]

    def answer(stream: bool) -> tuple[str, str]:
        raw = caching.chat.completions.with_raw_response.create(
            model=MODEL, messages=messages, temperature=0, max_tokens=12, stream=stream)
        parsed = raw.parse()
        if not stream:
            return raw.headers["x-cache"], parsed.choices[0].message.content
        return raw.headers["x-cache"], "".join(choice.delta.content or "" for chunk in parsed for choice in chunk.choices)

    first, text = answer(stream=False)
    assert (first, text != "") == ("miss", True)
    assert answer(stream=False) == ("hit", text)
    assert answer(stream=True) == ("hit", text)


def test_a_system_message_and_content_parts_are_taken():
    answer = ask([
        {"role": "system", "content": "You answer in one word."},
        {"role": "user", "content": [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": " of France?"}]},
    ])
    assert answer.choices[0].message.content


def test_characters_are_never_cut():
    messages = [{"role": "user", "content": "Repeat exactly: 你好世界 😀🎉 café"}]
    for limit in (1, 2, 3, 5, 8, 13):
        text = "".join(choice.delta.content or "" for chunk in ask(messages, stream=True, max_tokens=limit)
                       for choice in chunk.choices)
        assert "\ufffd" not in text, (limit, text)
        assert "\ufffd" not in ask(messages, max_tokens=limit).choices[0].message.content


def test_an_unknown_model_is_not_found():
    error = raised(openai.NotFoundError, lambda: client.chat.completions.create(model="no-such-model", messages=QUESTION))
    assert (error.code, error.param) == ("model_not_found", "model"), error.body


def test_a_value_out_of_range_names_its_field():
    for field, value in [("temperature", -1), ("top_p", 2), ("max_tokens", -5), ("n", 0), ("presence_penalty", 9)]:
        error = raised(openai.BadRequestError, lambda: ask(**{field: value}))
        assert error.param == field and error.code, (field, error.body)


def test_messages_that_are_empty_or_wrong_are_bad_requests():
    for messages in ([], [{"role": "wizard", "content": "hi"}], [{"role": "user", "content": 5}], "hi"):
        error = raised(openai.BadRequestError, lambda: ask(messages))
        assert error.param and error.param.startswith("messages"), (messages, error.body)


def test_a_prompt_over_the_context_says_so():
    error = raised(openai.BadRequestError, lambda: ask([{"role": "user", "content": "word " * 20_000}]))
    assert error.code == "context_length_exceeded", error.body


def test_an_unknown_route_is_not_found():
    raised(openai.NotFoundError, lambda: client.post("/no/such/route", cast_to=object, body={}))


def test_models_are_listed_and_found_by_name():
    models = client.models.list().data
    assert len(models) == 1 and models[0].object == "model", models
    assert client.models.retrieve(models[0].id).id == models[0].id
    assert raised(openai.NotFoundError, lambda: client.models.retrieve("no-such-model")).code == "model_not_found"
    named = client.chat.completions.create(model=models[0].id, messages=QUESTION, max_tokens=2)
    assert named.model == models[0].id


def test_the_request_id_goes_out_and_comes_back():
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=2)
    assert raw.headers["x-request-id"] and raw.parse()._request_id == raw.headers["x-request-id"]
    own = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=2, extra_headers={"X-Request-Id": "my-own-id-1"})
    assert own.headers["x-request-id"] == "my-own-id-1"
    assert raised(openai.BadRequestError, lambda: ask(temperature=-1)).request_id


def test_paths_without_v1_work():
    bare = OpenAI(base_url=ROOT_URL, **SETTINGS)
    assert "Paris" in bare.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0).choices[0].message.content


def test_a_stream_left_early_harms_nobody():
    stream = ask([{"role": "user", "content": "Tell me a very long story."}], stream=True, max_tokens=500)
    next(iter(stream))
    stream.close()
    assert "Paris" in ask().choices[0].message.content


def test_many_at_once_are_all_answered():
    async def all_at_once() -> list[str]:
        async with AsyncOpenAI(base_url=f"{ROOT_URL}/v1", **SETTINGS) as many:
            asked = [many.chat.completions.create(model=MODEL, temperature=0, max_tokens=8, messages=[
                {"role": "user", "content": f"What is {number} plus {number}?"}]) for number in range(10)]
            return [answer.id for answer in await asyncio.gather(*asked) if answer.choices[0].message.content]

    assert len(set(asyncio.run(all_at_once()))) == 10


def main() -> int:
    """Runs every test; returns 1 when one failed."""
    tests = {name: test for name, test in globals().items() if name.startswith("test_")}
    failed = 0
    for name, test in tests.items():
        try:
            test()
            print(f"openai_python {name[5:]} ... ok", flush=True)
        except Exception:
            failed += 1
            print(f"openai_python {name[5:]} ... FAILED\n{traceback.format_exc(limit=3)}", flush=True)
    print(f"openai_python: {len(tests) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
