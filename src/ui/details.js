// One actor in full, and what an operator may do to it.

import { clock, count, duration, element, micros, millis, setText, shortPath } from "./format.js";
import { act, key } from "./server.js";
import { actor } from "./tree.js";

const ACTIONS = [
  { name: "restart", label: "Restart", effect: "It stops in order and starts again; its callers wait." },
  { name: "kill", label: "Kill", effect: "It ends at once, as in a crash; its supervisor starts it again." },
  { name: "pause", label: "Pause", effect: "It takes no new work until it is resumed." },
  { name: "resume", label: "Resume", effect: "It takes work again." },
];

const node = (id) => document.getElementById(id);
let open = null;

/// `changed` is called when an action was done.
export function build(changed) {
  node("details-close").addEventListener("click", () => node("details").close());
  node("details").addEventListener("close", () => (open = null));
  node("details").addEventListener("click", (event) => {
    if (event.target === node("details")) node("details").close();
  });
  window.addEventListener("keychange", () => open && offer(changed));
  return (path) => {
    open = path;
    setText(node("details-answer"), "");
    offer(changed);
    update();
    node("details").showModal();
  };
}

/// Brings the open actor up to date.
export function update() {
  if (open === null) return;
  setText(node("details-title"), shortPath(open));
  const found = actor(open);
  const body = node("details-body");
  const scrolled = body.scrollTop;
  body.replaceChildren(...(found ? parts(found) : [element("p", "hint", "This actor is gone.")]));
  body.scrollTop = scrolled;
}

function parts(found) {
  const { messages, mailbox } = found;
  const facts = [
    ["Status", `${found.status}, epoch ${found.epoch}, up ${duration(found.uptime_ms)}`],
    ["Mailbox", `${mailbox.depth} now, ${mailbox.max} at most, oldest ${millis(mailbox.oldest_wait_ms ?? 0)}`],
    ["Handled", `${count(messages.handled)} messages`],
    ["Wait", `p50 ${micros(messages.wait_p50_us)}, p99 ${micros(messages.wait_p99_us)}`],
    ["Handle", `p50 ${micros(messages.handle_p50_us)}, p99 ${micros(messages.handle_p99_us)}`],
    ["Last error", found.last_error ?? "none"],
  ];
  const made = [definitions(facts), element("h3", "", `Restarts: ${found.restarts_total}`), restarts(found.restarts)];
  if (found.state !== null) {
    made.push(element("h3", "", found.state_age_ms ? `State, ${duration(found.state_age_ms)} ago` : "State"));
    made.push(element("pre", "", JSON.stringify(found.state, null, 2)));
  }
  return made;
}

function definitions(facts) {
  const list = element("dl");
  for (const [name, value] of facts) list.append(element("dt", "", name), element("dd", "", value));
  return list;
}

function restarts(all) {
  if (all.length === 0) return element("p", "hint", "None since the server started.");
  const list = element("ol", "restarts");
  for (const { at, cause, backoff_ms: backoff } of [...all].reverse()) {
    const row = element("li");
    row.append(element("time", "", clock(at)), element("span", "", `${cause} (after ${millis(backoff)})`));
    list.append(row);
  }
  return list;
}

function offer(changed) {
  if (!key()) {
    const hint = element("p", "hint", "With an admin key (button “Key”) you can restart, kill, pause and resume it.");
    node("details-actions").replaceChildren(hint);
    return;
  }
  const buttons = ACTIONS.map((action) => {
    const button = element("button", "", action.label);
    button.type = "button";
    button.dataset.action = action.name;
    button.addEventListener("click", () => confirm(action, changed));
    return button;
  });
  node("details-actions").replaceChildren(...buttons);
}

function confirm(action, changed) {
  const yes = element("button", "danger", `${action.label} ${shortPath(open).split("/").at(-1)}`);
  const no = element("button", "", "Cancel");
  yes.type = no.type = "button";
  yes.dataset.confirm = action.name;
  no.addEventListener("click", () => {
    setText(node("details-answer"), "");
    again(changed, action);
  });
  yes.addEventListener("click", async () => {
    yes.disabled = no.disabled = true;
    setText(node("details-answer"), await outcome(open, action));
    again(changed, action);
    changed();
  });
  setText(node("details-answer"), action.effect);
  node("details-actions").replaceChildren(yes, no);
  no.focus();
}

function again(changed, action) {
  if (open === null) return;
  offer(changed);
  node("details-actions").querySelector(`[data-action="${action.name}"]`)?.focus();
}

async function outcome(path, action) {
  try {
    await act(path, action.name);
    return `${action.label}: done.`;
  } catch (error) {
    return `${action.label}: ${error.message}`;
  }
}
