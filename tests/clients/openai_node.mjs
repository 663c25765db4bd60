// The official OpenAI Node client against our server. Usage: node openai_node.mjs BASE_URL
// The same contract as openai_python.py, as far as another HTTP stack and another SSE reader can make a difference.
import assert from "node:assert/strict";

import OpenAI from "openai";

const settings = { baseURL: `${process.argv[2]}/v1`, apiKey: "unused", maxRetries: 0, timeout: 120_000 };
// Every answer is computed: a stream compared with its own replay would prove nothing.
const client = new OpenAI({ ...settings, defaultHeaders: { "Cache-Control": "no-store" } });
const question = {
  model: "default",
  messages: [{ role: "user", content: "What is the capital of France? Answer in one short sentence." }],
  temperature: 0,
  max_tokens: 40,
};

const tests = {
  async chat_answers_sensibly() {
    const answer = await client.chat.completions.create(question);
    assert.match(answer.choices[0].message.content, /Paris/);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  },

  async a_stream_says_the_same_as_an_answer() {
    const answer = await client.chat.completions.create(question);
    let text = "";
    let usage = null;
    const stream = await client.chat.completions.create({ ...question, stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, answer.choices[0].message.content);
    assert.equal(usage.completion_tokens, answer.usage.completion_tokens);
  },

  async the_same_question_again_is_answered_from_the_cache() {
    const caching = new OpenAI(settings);
    const again = { ...question, messages: [{ role: "user", content: `Say a word about the number ${process.hrtime.bigint()}.` }], max_tokens: 12 };
    const first = await caching.chat.completions.create(again).withResponse();
    const second = await caching.chat.completions.create(again).withResponse();
    assert.deepEqual([first.response.headers.get("x-cache"), second.response.headers.get("x-cache")], ["miss", "hit"]);
    assert.equal(second.data.choices[0].message.content, first.data.choices[0].message.content);
  },

  async the_stream_helper_of_the_client_works() {
    const runner = client.chat.completions.stream(question);
    assert.match(await runner.finalContent(), /Paris/);
  },

  async an_aborted_stream_harms_nobody() {
    const stream = await client.chat.completions.create({ ...question, max_tokens: 500, ignore_eos: true, stream: true });
    for await (const _ of stream) break;
    const answer = await client.chat.completions.create(question);
    assert.match(answer.choices[0].message.content, /Paris/);
  },

  async completions_go_on_with_the_prompt() {
    const answer = await client.completions.create({ model: "default", prompt: "1, 2, 3, 4, 5, 6,", temperature: 0, max_tokens: 8 });
    assert.match(answer.choices[0].text, /^\s*7/);
  },

  async errors_have_the_classes_of_the_client() {
    await assert.rejects(client.chat.completions.create({ ...question, model: "no-such-model" }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError, String(error));
      assert.deepEqual([error.status, error.code, error.param], [404, "model_not_found", "model"]);
      return true;
    });
    await assert.rejects(client.chat.completions.create({ ...question, temperature: -1 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError, String(error));
      assert.equal(error.param, "temperature");
      return true;
    });
  },

  async models_are_listed_and_found_by_name() {
    const [model] = (await client.models.list()).data;
    assert.equal((await client.models.retrieve(model.id)).id, model.id);
  },

  async the_request_id_comes_back() {
    const { response, request_id } = await client.chat.completions.create({ ...question, max_tokens: 2 }).withResponse();
    assert.ok(request_id);
    assert.equal(response.headers.get("x-request-id"), request_id);
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`openai_node ${name} ... ok`);
  } catch (error) {
    failed += 1;
    console.log(`openai_node ${name} ... FAILED\n${error.stack}`);
  }
}
console.log(`openai_node: ${Object.keys(tests).length - failed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
