// The event feed: follows /actors/events and goes on after the last id when the connection comes back.

import { clock, element, isSession, millis, setText, shortPath } from "./format.js";
import { key, stream } from "./server.js";

const MOST_ROWS = 200;
const IDLE_MS = 25_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const NAMES = {
  started: "started",
  start_failed: "start failed",
  failed: "failed",
  stopped: "stopped",
  restart_scheduled: "restarts",
  restarted: "restarted",
  held: "held",
  resumed: "resumed",
  gave_up: "gave up",
  disturbed: "fault injected",
  killed: "killed",
  paused: "paused",
};

/// Runs for the page's life. `onEvent` gets every event, `onSnapshot` a whole `/actors` document after a gap.
export async function follow({ onEvent, onSnapshot }) {
  const state = document.getElementById("feed-state");
  let lastId = null;
  let pause = FIRST_PAUSE_MS;
  let usedKey = key();
  for (;;) {
    try {
      if (usedKey !== key()) pause = FIRST_PAUSE_MS;
      usedKey = key();
      const more = lastId === null ? {} : { "Last-Event-ID": lastId };
      for await (const event of stream("/actors/events", { more, idleMs: IDLE_MS })) {
        pause = FIRST_PAUSE_MS;
        setText(state, "live");
        if (event.id !== null) lastId = event.id;
        if (event.data === null) continue;
        const data = JSON.parse(event.data);
        if (event.kind === "snapshot") {
          lastId = String(data.seq);
          add({ at: data.captured_at_ms, kind: "snapshot", path: "cllm", cause: "some events were missed" });
          onSnapshot(data);
        } else {
          add(data);
          onEvent(data);
        }
      }
      setText(state, "reconnecting");
    } catch (error) {
      setText(state, error.status === 401 ? "key needed" : "reconnecting");
    }
    await wait(pause * (0.75 + Math.random() / 2));
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

/// Cut short by a new key or by the browser coming back online.
function wait(ms) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      window.removeEventListener("keychange", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    window.addEventListener("online", done);
    window.addEventListener("keychange", done);
  });
}

function add({ at, kind, path, cause, backoff_ms: backoff }) {
  const feed = document.getElementById("feed");
  // A session's coming and going is traffic, not news; what goes wrong with one is.
  if (isSession(path) && (kind === "started" || kind === "stopped")) return;
  const row = element("li", `event event-${kind}`);
  row.dataset.kind = kind;
  row.dataset.path = path;
  const time = element("time", "", clock(at));
  time.dateTime = new Date(at).toISOString();
  const text = element("span", "event-text");
  text.append(element("b", "", shortPath(path)), " ", element("span", "event-kind", NAMES[kind] ?? kind));
  if (backoff) text.append(` in ${millis(backoff)}`);
  if (cause) text.append(element("span", "event-cause", cause));
  row.append(time, text);
  const atTop = feed.scrollTop < 4;
  feed.prepend(row);
  if (atTop) feed.scrollTop = 0;
  while (feed.children.length > MOST_ROWS) feed.lastElementChild.remove();
}
