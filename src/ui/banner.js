// The line at the top: can this server be used, and if not, why and for how long.

import { duration, setText } from "./format.js";

const NAMES = {
  ready: "Ready",
  stalled: "Stalled",
  loading: "Loading",
  restarting: "Restarting",
  held: "Held",
  failed: "Failed",
  draining: "Stopping",
  lost: "Connection lost",
  locked: "Key needed",
};

let shown = { status: { state: "connecting" }, at: 0 };

export function showStatus(status) {
  shown = { status, at: performance.now() };
  render();
}

export function showLost(cause) {
  showStatus({ state: "lost", cause });
}

export function showLocked() {
  showStatus({ state: "locked", cause: "this server wants an API key" });
}

function render() {
  const { state } = shown.status;
  document.getElementById("banner").dataset.state = state;
  setText(document.getElementById("banner-state"), NAMES[state] ?? state);
  setText(document.getElementById("banner-detail"), detail());
}

function detail() {
  const { state, cause, progress, retry_after_ms: retry } = shown.status;
  if (state === "loading" && typeof progress === "number") return `${Math.round(progress * 100)} %`;
  if (state === "held" && typeof retry === "number") {
    const left = Math.max(0, retry - (performance.now() - shown.at));
    return `next try in ${duration(Math.ceil(left / 1000) * 1000)}${cause ? `: ${cause}` : ""}`;
  }
  return cause ?? "";
}

// Counts down between two answers of the server.
setInterval(render, 1000);
