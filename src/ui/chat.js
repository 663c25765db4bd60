// The chat box: several turns, streamed over fetch. A restart of the engine is the server's business; the stream goes on.

import { count, element, millis, setText } from "./format.js";
import { Refused, stream } from "./server.js";

// The server pings a stream that waits; this long without even that, and the connection is dead.
const IDLE_MS = 60_000;
const DONE = "[DONE]";

const node = (id) => document.getElementById(id);
let turns = [];
let running = null;

export function build() {
  node("chat").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  node("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape") {
      running?.abort();
    }
  });
  node("stop").addEventListener("click", () => running?.abort());
  node("chat-clear").addEventListener("click", () => {
    running?.abort();
    turns = [];
    node("log").replaceChildren(empty());
    setText(node("chat-status"), "");
    node("prompt").focus();
  });
  node("log").append(empty());
}

function empty() {
  return element("p", "hint empty", "Kill an actor in the middle of an answer: the answer goes on. Killing needs an admin key (server.admin_keys): give it with the button “Key”, then click on an actor.");
}

async function send() {
  const text = node("prompt").value.trim();
  if (text === "" || running !== null) return;
  node("log").querySelector(".empty")?.remove();
  node("prompt").value = "";
  bubble("user", text);
  const chat = turns;
  chat.push({ role: "user", content: text });
  const answer = bubble("assistant", "");
  const controller = new AbortController();
  begin(controller);
  const progress = { text: "", pieces: 0, sent: performance.now(), first: 0, timings: null, resumed: 0, reason: null };
  try {
    await receive(answer, progress, controller.signal);
    settle(chat, report(progress));
  } catch (error) {
    settle(chat, failure(error, controller.signal));
  } finally {
    end(answer);
    if (progress.text) chat.push({ role: "assistant", content: progress.text });
    else if (chat === turns) undo(text, answer);
  }
}

/// How an answer ended, unless another chat was begun meanwhile.
function settle(chat, text) {
  if (chat === turns) setText(node("chat-status"), text);
}

function begin(controller) {
  running = controller;
  node("send").disabled = true;
  node("stop").disabled = false;
  node("log").setAttribute("aria-busy", "true");
  setText(node("chat-status"), "waiting for the first token");
}

function end(answer) {
  running = null;
  node("send").disabled = false;
  node("stop").disabled = true;
  node("log").setAttribute("aria-busy", "false");
  answer.parentElement.classList.remove("writing");
}

/// A question without an answer is given back, so that it can be sent again.
function undo(text, answer) {
  turns.pop();
  answer.parentElement.previousElementSibling?.remove();
  answer.parentElement.remove();
  if (node("prompt").value === "") node("prompt").value = text;
}

async function receive(answer, progress, signal) {
  let done = false;
  for await (const event of stream("/v1/chat/completions", { method: "POST", body: request(), signal, idleMs: IDLE_MS })) {
    if (event.comment?.startsWith("queued")) setText(node("chat-status"), `waiting, place ${event.comment.slice(6).trim()} in the queue`);
    if (event.data === null) continue;
    if (event.data === DONE) {
      done = true;
      continue;
    }
    take(JSON.parse(event.data), answer, progress);
  }
  if (!done) throw new Error("the stream ended early");
}

function take(chunk, answer, progress) {
  if (chunk.error) throw new Error(chunk.error.message);
  if (chunk.timings) progress.timings = chunk.timings;
  if (chunk.resumed) progress.resumed = chunk.resumed;
  const choice = chunk.choices?.[0];
  if (choice?.finish_reason) progress.reason = choice.finish_reason;
  const piece = choice?.delta?.content;
  if (!piece) return;
  const now = performance.now();
  if (progress.pieces === 0) progress.first = now;
  progress.pieces += 1;
  progress.text += piece;
  const log = node("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  answer.append(piece);
  if (atEnd) log.scrollTop = log.scrollHeight;
  const seconds = (now - progress.first) / 1000;
  const speed = seconds > 0.2 ? ` · ${count((progress.pieces - 1) / seconds)} tokens/s` : "";
  setText(node("chat-status"), `${progress.pieces} tokens${speed}`);
}

function request() {
  const system = node("system").value.trim();
  const messages = system ? [{ role: "system", content: system }, ...turns] : turns;
  const body = { messages, stream: true, stream_options: { include_usage: true } };
  const temperature = node("temperature").valueAsNumber;
  const most = node("max-tokens").valueAsNumber;
  if (Number.isFinite(temperature)) body.temperature = temperature;
  if (Number.isFinite(most)) body.max_tokens = most;
  return body;
}

function report({ pieces, timings, resumed, reason, first, sent }) {
  const parts = [];
  if (timings) {
    parts.push(`${timings.predicted_n} tokens`, `${count(timings.predicted_per_second)} tokens/s`);
    parts.push(`prompt ${timings.prompt_n} in ${millis(timings.prompt_ms)}${timings.cache_n ? ` (${timings.cache_n} cached)` : ""}`);
    if (timings.queue_ms >= 1) parts.push(`queued ${millis(timings.queue_ms)}`);
  } else {
    parts.push(`${pieces} tokens`);
  }
  if (pieces > 0) parts.push(`first token after ${millis(first - sent)}`);
  if (resumed) parts.push(`resumed ${resumed}×`);
  if (reason === "length") parts.push("cut at the most tokens");
  return parts.join(" · ");
}

function failure(error, signal) {
  if (signal.aborted) return "stopped";
  return error instanceof Refused ? `refused: ${error.message}` : `failed: ${error.message}`;
}

function bubble(role, text) {
  const box = element("div", `turn turn-${role}${role === "assistant" ? " writing" : ""}`);
  box.append(element("span", "turn-role", role === "user" ? "You" : "Model"));
  const content = element("div", "turn-text", text);
  box.append(content);
  node("log").append(box);
  node("log").scrollTop = node("log").scrollHeight;
  return content;
}
