// Numbers, times and elements. Every text goes through textContent: nothing from the server becomes markup.

const NONE = "–";

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = String(text);
  return made;
}

/// Writes only what changes, so that a reader's selection and a screen reader's place survive an update.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function micros(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 1000) return `${Math.round(value)} µs`;
  return millis(value / 1000);
}

export function millis(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 10) return `${value.toFixed(1)} ms`;
  if (value < 1000) return `${Math.round(value)} ms`;
  return duration(value);
}

export function duration(ms) {
  if (ms === null || ms === undefined) return NONE;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function count(value) {
  if (value === null || value === undefined) return NONE;
  if (value >= 100_000) return `${(value / 1000).toFixed(0)}k`;
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

export function bytes(value) {
  if (value < 1024) return `${value} B`;
  const units = ["KiB", "MiB", "GiB"];
  const power = Math.min(Math.floor(Math.log2(value) / 10), units.length);
  const amount = value / 1024 ** power;
  return `${amount.toFixed(amount < 10 ? 1 : 0)} ${units[power - 1]}`;
}

export function clock(unixMs) {
  return new Date(unixMs).toLocaleTimeString([], { hour12: false });
}

/// `cllm/engine-0/backend-0` without its root.
export function shortPath(path) {
  return path.startsWith("cllm/") ? path.slice(5) : path;
}

export function isSession(path) {
  return /(^|\/)sessions\/./.test(path);
}

const SUMMARIES = {
  scheduler: ({ running, waiting, step_tokens: step }) => [`${running} running`, `${waiting} waiting`, step && `${step} tokens/step`],
  "kv-cache": ({ entries, retained_tokens: tokens }) => [`${entries} prefixes`, `${count(tokens)} tokens kept`],
  backend: ({ engine, pid, step_us: step, cells_used: used, n_ctx: all }) => [
    pid ? `pid ${pid}` : engine,
    step && `${micros(step)}/step`,
    all && `${count(used)}/${count(all)} cells`,
  ],
  "response-cache": ({ entries, bytes: size, hits }) => [`${count(entries)} answers`, entries > 0 && bytes(size), hits > 0 && `${count(hits)} hits`],
  http: ({ connections, listening }) => [`${connections} connections`, listening === false && "not listening"],
  sessions: ({ open }) => [`${open} open`],
  session: ({ phase, emitted_tokens: emitted, resumed }) => [phase, `${emitted} tokens`, resumed && `resumed ${resumed}×`],
};

/// One line of an actor's own state; what has no words here is left to the details.
export function summary(kind, state) {
  if (state === null || typeof state !== "object") return "";
  const plain = () => Object.entries(state).filter(([, value]) => value !== null && typeof value !== "object").map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  return (SUMMARIES[kind] ?? plain)(state).filter(Boolean).join(" · ");
}
