// Puts the page together: asks for /actors once a second, hands the answer round, keeps theme and key.

import * as banner from "./banner.js";
import * as charts from "./charts.js";
import * as chat from "./chat.js";
import * as details from "./details.js";
import * as feed from "./feed.js";
import { duration, setText } from "./format.js";
import { getJson, key, setKey } from "./server.js";
import * as tree from "./tree.js";

const POLL_MS = 1000;
const HIDDEN_POLL_MS = 5000;
const THEME = "cllm-theme";
const THEMES = ["auto", "light", "dark"];
const FLASHING = new Set(["restarted", "killed", "failed", "gave_up"]);

const node = (id) => document.getElementById(id);
let timer = 0;
let asking = null;

async function poll() {
  clearTimeout(timer);
  asking ??= ask().finally(() => (asking = null));
  await asking;
  clearTimeout(timer);
  timer = setTimeout(poll, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
}

async function ask() {
  try {
    show(await getJson("/actors"));
  } catch (error) {
    if (error.status === 401) banner.showLocked();
    else banner.showLost(error.status ? error.message : "trying again");
  }
}

function show(all) {
  banner.showStatus(all.status);
  setText(node("build"), `${all.build} · up ${duration(all.uptime_ms)}`);
  charts.add(all);
  tree.show(all);
  details.update();
}

function setUpTheme() {
  const apply = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    setText(node("theme"), `Theme: ${theme}`);
    charts.redraw();
  };
  const stored = localStorage.getItem(THEME);
  let theme = THEMES.includes(stored) ? stored : "auto";
  node("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem(THEME, theme);
    apply(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.redraw());
  apply(theme);
}

function setUpKey() {
  const dialog = node("key-dialog");
  let refused = false;
  const open = () => {
    if (dialog.open) return;
    node("key").value = "";
    dialog.showModal();
  };
  const use = (value) => {
    refused = false;
    setKey(value);
    dialog.close();
  };
  node("key-button").addEventListener("click", open);
  node("key-cancel").addEventListener("click", () => dialog.close());
  node("key-forget").addEventListener("click", () => use(""));
  node("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    use(node("key").value.trim());
  });
  // Asks once by itself; whoever says no then can still press the button.
  window.addEventListener("keywanted", (event) => {
    if (refused) return;
    refused = true;
    setText(node("key-why"), event.detail);
    open();
  });
  window.addEventListener("keychange", () => {
    setText(node("key-button"), key() ? "Key set" : "Key");
    poll();
  });
  setText(node("key-button"), key() ? "Key set" : "Key");
}

charts.build(node("charts"));
tree.build(details.build(poll));
chat.build();
setUpTheme();
setUpKey();
document.addEventListener("visibilitychange", () => document.hidden || poll());
poll();
feed.follow({
  onEvent: ({ kind, path }) => {
    if (FLASHING.has(kind)) tree.flash(path);
    if (!asking) poll();
  },
  onSnapshot: show,
});
