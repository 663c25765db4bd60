// Speaks to the server: the key, JSON requests, and server-sent events over fetch (EventSource cannot send a key).

const KEY = "cllm-key";
const ANSWER_MS = 10_000;

export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function key() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
  window.dispatchEvent(new Event("keychange"));
}

function headers(more) {
  return key() ? { Authorization: `Bearer ${key()}`, ...more } : more;
}

async function checked(response) {
  if (response.ok) return response;
  let code = null;
  let message = `the server answered ${response.status}`;
  try {
    const { error } = await response.json();
    code = error?.code ?? null;
    message = (typeof error === "string" ? error : error?.message) ?? message;
  } catch {
    // Whatever stands between us and the server writes its own errors; the status says enough.
  }
  if (response.status === 401) window.dispatchEvent(new CustomEvent("keywanted", { detail: message }));
  throw new Refused(response.status, code, message);
}

export async function getJson(path) {
  const response = await fetch(path, { headers: headers({}), signal: AbortSignal.timeout(ANSWER_MS), cache: "no-store" });
  return (await checked(response)).json();
}

/// Does `action` to an actor; throws `Refused` with the server's words.
export async function act(path, action) {
  const encoded = path.split("/").map(encodeURIComponent).join("/");
  const request = { method: "POST", headers: headers({}), signal: AbortSignal.timeout(ANSWER_MS) };
  return (await checked(await fetch(`/actors/${encoded}/${action}`, request))).json();
}

/// The events of a stream. `idleMs` without a byte, pings included, ends it with an error.
export async function* stream(path, { method = "GET", body, more = {}, signal, idleMs }) {
  const silence = new AbortController();
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(new Error("the connection went silent")), idleMs);
  };
  heard();
  try {
    const all = headers(body ? { "Content-Type": "application/json", ...more } : more);
    const request = { method, headers: all, body: body && JSON.stringify(body), cache: "no-store" };
    request.signal = AbortSignal.any(signal ? [signal, silence.signal] : [silence.signal]);
    const response = await checked(await fetch(path, request));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) yield parse(block);
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

function parse(block) {
  const event = { id: null, kind: "message", data: null, comment: null };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "") event.comment = value;
    else if (name === "id") event.id = value;
    else if (name === "event") event.kind = value;
    else if (name === "data") event.data = event.data === null ? value : `${event.data}\n${value}`;
  }
  return event;
}
