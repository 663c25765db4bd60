// The live tree: one row for each actor, updated in place so that focus and selection stay.

import { count, element, isSession, micros, millis, setText, summary } from "./format.js";

const SHOWN_SESSIONS = 20;
const MORE = "more-sessions";

const rows = new Map();
let before = { at: 0, handled: new Map(), restarts: new Map() };
let allSessions = false;
let latest = null;

const body = () => document.getElementById("tree-body");

/// Sets up the keys. `open` is called with the path of a row that is clicked or entered.
export function build(open) {
  body().addEventListener("click", (event) => activate(event.target.closest("tr"), open));
  body().addEventListener("keydown", (event) => {
    const row = event.target.closest("tr");
    if (event.key === "Enter" || event.key === " ") activate(row, open);
    else if (!move(row, event.key)) return;
    event.preventDefault();
  });
}

function activate(row, open) {
  if (!row) return;
  if (row.dataset.path !== MORE) return open(row.dataset.path);
  allSessions = !allSessions;
  if (latest) show(latest);
}

function move(row, pressed) {
  const all = [...body().children];
  const targets = { ArrowDown: all.indexOf(row) + 1, ArrowUp: all.indexOf(row) - 1, Home: 0, End: all.length - 1 };
  if (!(pressed in targets)) return false;
  focus(all[targets[pressed]]);
  return true;
}

function focus(row) {
  if (!row) return;
  for (const other of body().children) other.tabIndex = -1;
  row.tabIndex = 0;
  row.focus();
}

/// Shows an `/actors` document.
export function show(document_) {
  const fresh = document_ !== latest;
  latest = document_;
  const list = visible(document_);
  const wanted = new Set(list.map((entry) => entry.path));
  for (const [path, row] of rows) {
    if (!wanted.has(path)) {
      row.node.remove();
      rows.delete(path);
    }
  }
  list.forEach((entry, index) => {
    const row = rows.get(entry.path) ?? add(entry.path);
    if (body().children[index] !== row.node) body().insertBefore(row.node, body().children[index] ?? null);
    if (entry.path === MORE) setText(row.name, entry.text);
    else fill(row, entry, document_, fresh);
  });
  if (!body().querySelector('[tabindex="0"]') && body().firstElementChild) body().firstElementChild.tabIndex = 0;
  if (fresh) remember(document_);
  const { actors, restarts } = document_.totals;
  setText(document.getElementById("tree-count"), `${actors} running · ${restarts} restart${restarts === 1 ? "" : "s"}`);
}

/// Makes a row light up, when an event tells of a restart before the next document does.
export function flash(path) {
  const row = rows.get(path) ?? rows.get(`cllm/${path}`);
  if (!row) return;
  row.node.classList.remove("flash");
  void row.node.offsetWidth; // starts the animation anew
  row.node.classList.add("flash");
}

export function actor(path) {
  return latest?.actors.find((found) => found.path === path) ?? null;
}

function visible(document_) {
  const sessions = document_.actors.filter((entry) => isSession(entry.path));
  const total = sessions.length + (document_.sessions_omitted ?? 0);
  if (total <= SHOWN_SESSIONS) return document_.actors;
  const kept = new Set((allSessions ? sessions : sessions.slice(0, SHOWN_SESSIONS)).map((entry) => entry.path));
  const list = document_.actors.filter((entry) => !isSession(entry.path) || kept.has(entry.path));
  const lastKept = list.findLastIndex((entry) => isSession(entry.path));
  const hidden = total - kept.size;
  const unlisted = hidden > 0 ? `${hidden} more not listed, ` : "";
  const text = allSessions ? `${unlisted}show fewer sessions` : `show ${hidden} more sessions`;
  list.splice(lastKept + 1, 0, { path: MORE, text });
  return list;
}

function add(path) {
  const node = element("tr");
  node.dataset.path = path;
  node.tabIndex = -1;
  node.setAttribute("role", "row");
  const row = { node };
  const first = element("td", "name");
  row.name = element("span", "name-text");
  first.append(row.name);
  node.append(first);
  if (path === MORE) {
    first.colSpan = 3; // as many columns as the narrowest screen has
    node.className = "more";
  } else {
    row.state = element("span", "own-state");
    first.append(row.state);
    const cells = { status: "status", mailbox: "n", handled: "n wide", wait: "n wide", handle: "n wide", restarts: "n narrow-hide" };
    for (const [cell, className] of Object.entries(cells)) node.append((row[cell] = element("td", className)));
    row.pill = element("span", "pill");
    row.status.append(row.pill);
    row.waiting = element("span");
    row.oldest = element("span", "oldest");
    row.mailbox.append(row.waiting, row.oldest);
    node.addEventListener("animationend", () => node.classList.remove("flash"));
  }
  rows.set(path, row);
  return row;
}

function fill(row, entry, document_, fresh) {
  const depth = entry.path.split("/").length - 1;
  row.node.setAttribute("aria-level", String(depth + 1));
  row.node.dataset.depth = String(Math.min(depth, 4));
  setText(row.name, entry.path.split("/").at(-1));
  setText(row.state, summary(entry.kind, entry.state));
  row.state.title = row.state.textContent;
  row.pill.dataset.status = entry.status;
  setText(row.pill, entry.status);
  const { depth: waiting, oldest_wait_ms: oldest } = entry.mailbox;
  setText(row.waiting, String(waiting));
  setText(row.oldest, waiting > 0 && oldest ? ` · ${millis(oldest)}` : "");
  row.mailbox.classList.toggle("busy", waiting > 0);
  if (fresh) setText(row.handled, rate(entry, document_.captured_at_ms));
  setText(row.wait, micros(entry.messages.wait_p99_us));
  setText(row.handle, micros(entry.messages.handle_p99_us));
  setText(row.restarts, String(entry.restarts_total));
  row.restarts.classList.toggle("some", entry.restarts_total > 0);
  const known = before.restarts.get(entry.path);
  if (fresh && known !== undefined && entry.restarts_total > known) flash(entry.path);
}

function rate(entry, at) {
  const known = before.handled.get(entry.path);
  const made = entry.messages.handled - known;
  if (known === undefined || at <= before.at || made < 0) return "–";
  return count(Math.round((made * 10_000) / (at - before.at)) / 10);
}

function remember(document_) {
  before = {
    at: document_.captured_at_ms,
    handled: new Map(document_.actors.map((entry) => [entry.path, entry.messages.handled])),
    restarts: new Map(document_.actors.map((entry) => [entry.path, entry.restarts_total])),
  };
}
