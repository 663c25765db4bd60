// Drives the page at /ui in headless Chromium against the real server with the fake engine. `make browser` calls it.
//
// Usage: node run.mjs PATH-OF-CLLM [SCREENSHOT.png]. Ends with 1 when a check failed.
import assert from "node:assert/strict";
import { startBrowser, startServer } from "./browser.mjs";

const KEY = "browser-test-key";
const SCHEDULER = "cllm/engine-0/scheduler-0";
const BACKEND = "cllm/engine-0/backend-0";
const TOKENS = 300;
const SETTINGS = [
  `server.admin_keys=[${KEY}]`,
  "backend.fake.host=process",
  "backend.fake.step_time_us=15000",
  "backend.fake.token_time_us=200",
];
const LOAD_STREAMS = 14;
const WAIT_MS = 60_000;
const DESK = { width: 1360, height: 860 };

const [binary = "../../target/debug/cllm", screenshot] = process.argv.slice(2);

const checks = {
  async "a page without a key asks for one, and works with it"({ open }) {
    const page = await open({ key: null });
    await page.getByRole("dialog", { name: "API key" }).waitFor();
    await page.getByLabel("Key", { exact: true }).fill(KEY);
    await page.keyboard.press("Enter");
    await page.locator('#banner[data-state="ready"]').waitFor();
    await page.locator("#feed-state", { hasText: "live" }).waitFor();
  },

  async "the tree shows every actor"({ open, api }) {
    const page = await open({});
    const { actors } = await (await api("/actors")).json();
    assert.ok(actors.length >= 6, JSON.stringify(actors.map(({ path }) => path)));
    for (const { path } of actors.filter(({ path }) => !/\/sessions\/./.test(path))) {
      await page.locator(`#tree-body tr[data-path="${path}"]`, { hasText: path.split("/").at(-1) }).waitFor();
    }
  },

  async "at 1280 pixels what the actors say of themselves is not cut"({ open }) {
    const page = await open({ viewport: { width: 1280, height: 800 } });
    await limit(page, 40);
    await ask(page, "Hello");
    await page.locator("#chat-status", { hasText: /^40 tokens · / }).waitFor();
    for (const name of ["backend-0", "kv-cache-0", "scheduler-0", "response-cache"]) {
      const cell = page.locator(`#tree-body tr[data-path$="/${name}"] td.name`);
      await cell.locator(".own-state", { hasText: /\d/ }).waitFor();
      const text = await cell.textContent();
      assert.ok(await cell.evaluate((node) => node.scrollWidth <= node.clientWidth), `cut: ${text}`);
      assert.doesNotMatch(text, /entries|bytes|null|undefined|NaN/);
    }
  },

  async "a chat streams and shows its timings, and can be stopped"({ open }) {
    const page = await open({});
    await limit(page, 20);
    await ask(page, "Hello");
    await page.locator("#chat-status", { hasText: /^20 tokens · .*tokens\/s · prompt/ }).waitFor();
    await limit(page, 2000);
    await ask(page, "And now for long");
    await page.locator("#chat-status", { hasText: /^\d+ tokens/ }).waitFor();
    await page.getByRole("button", { name: "Stop" }).click();
    await page.locator("#chat-status", { hasText: "stopped" }).waitFor();
    assert.equal(await page.locator(".turn").count(), 4);
  },

  async "a new chat knows nothing of the answer it cut off"({ open }) {
    const page = await open({});
    await limit(page, 2000);
    await ask(page, "The old question");
    await page.locator("#chat-status", { hasText: /^\d+ tokens/ }).waitFor();
    await page.locator("#chat-clear").click();
    await page.locator("#send:enabled").waitFor();
    assert.equal(await page.locator("#chat-status").textContent(), "");
    assert.equal(await page.locator("#prompt").inputValue(), "");
    const asked = page.waitForRequest((request) => request.url().endsWith("/v1/chat/completions"));
    await limit(page, 5);
    await ask(page, "The new question");
    const { messages } = (await asked).postDataJSON();
    assert.deepEqual(messages, [{ role: "user", content: "The new question" }]);
  },

  async "a kill is seen in feed and tree, and the chat under way ends completely"({ open, api }) {
    const page = await open({});
    const cell = page.locator(`#tree-body tr[data-path="${SCHEDULER}"] td:last-child`);
    await cell.waitFor();
    const before = Number(await cell.textContent());
    await limit(page, TOKENS);
    await ask(page, "Tell me a long story");
    await page.locator("#chat-status", { hasText: /^[3-9]\d tokens/ }).waitFor();
    const flash = page.locator(`#tree-body tr.flash[data-path="${SCHEDULER}"]`).waitFor();
    flash.catch(() => {}); // awaited below; a failure before that must not end the run
    const killed = await api("/actors/engine-0/scheduler-0/kill", { method: "POST" });
    assert.equal(killed.status, 200, await killed.text());
    await flash;
    for (const kind of ["killed", "restarted"]) await page.locator(`#feed [data-kind="${kind}"][data-path="${SCHEDULER}"]`).first().waitFor();
    await page.waitForFunction(([path, least]) => {
      const row = document.querySelector(`#tree-body tr[data-path="${path}"] td:last-child`);
      return Number(row?.textContent) > least;
    }, [SCHEDULER, before]);
    await page.locator("#chat-status", { hasText: new RegExp(`^${TOKENS} tokens · .*cut at`) }).waitFor();
    await page.locator("#feed-state", { hasText: "live" }).waitFor();
  },

  async "a kill of the engine's process is seen, and the chat under way ends completely"({ open, api }) {
    const page = await open({});
    await limit(page, TOKENS);
    await ask(page, "Tell me a longer story");
    await page.locator("#chat-status", { hasText: /^[3-9]\d tokens/ }).waitFor();
    const { state } = await (await api("/actors/engine-0/backend-0")).json();
    process.kill(state.pid, "SIGKILL");
    await page.locator(`#feed [data-kind="restarted"][data-path="${BACKEND}"]`).first().waitFor();
    await page.locator("#chat-status", { hasText: new RegExp(`^${TOKENS} tokens · .*cut at`) }).waitFor();
  },

  async "the charts show a load as numbers and as curves"({ open }) {
    const page = await open({});
    await limit(page, 2000);
    await ask(page, "Keep them busy");
    const isNumber = (text) => /^[1-9][\d.,]*( ?[µm]?s)?$|^0$/.test(text.trim());
    for (const chart of ["speed", "load", "ttft", "gap"]) {
      await page.waitForFunction(hasCurve, `chart-${chart}`);
      const values = await page.locator(`.chart:has(#chart-${chart}) .chart-values b`).allTextContents();
      assert.ok(values.length > 0 && values.every(isNumber), `${chart}: ${values}`);
    }
    const speed = Number(await page.locator(".chart:has(#chart-speed) .chart-values b").textContent());
    assert.ok(speed > 0, `${speed} tokens/s`);
    await page.getByRole("button", { name: "Stop" }).click();
  },

  async "an admin kills from the page after a confirmation, and sees a refusal in the server's words"({ open }) {
    const page = await open({});
    await page.locator(`#tree-body tr[data-path="${SCHEDULER}"]`).click();
    await page.getByRole("button", { name: "Kill", exact: true }).click();
    await page.getByRole("button", { name: "Kill scheduler-0" }).click();
    await page.locator("#details-answer", { hasText: "Kill: done." }).waitFor();
    await page.locator("#details .restarts li").first().waitFor();
    await page.keyboard.press("Escape");
    await page.locator('#tree-body tr[data-path="cllm/engine-0/backend-0"]').click();
    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await page.getByRole("button", { name: "Pause backend-0" }).click();
    await page.locator("#details-answer", { hasText: /^Pause: .*paus/ }).waitFor();
  },

  async "320 pixels are wide enough"({ open }) {
    const page = await open({ viewport: { width: 320, height: 640 } });
    await limit(page, 30);
    await ask(page, "W".repeat(200));
    await page.locator("#chat-status", { hasText: /^30 tokens/ }).waitFor();
    const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    assert.ok(content <= screen, `${content} pixels on ${screen}`);
    const name = page.locator(`#tree-body tr[data-path="${SCHEDULER}"] .name-text`);
    assert.ok((await name.boundingBox()).width > 40);
  },

  async "the keyboard alone reaches the chat box and the tree"({ open }) {
    const page = await open({});
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    await page.locator("#prompt:focus").waitFor();
    await page.keyboard.type("Only keys");
    await page.keyboard.press("Enter");
    await page.locator(".turn-user", { hasText: "Only keys" }).waitFor();
    await page.locator(".turn-assistant .turn-text", { hasText: /\S/ }).waitFor();
    await page.keyboard.press("Escape");
    await page.locator("#chat-status", { hasText: "stopped" }).waitFor();
    await page.locator('#tree-body tr[tabindex="0"]').focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.locator("#details:not([open])").waitFor({ state: "attached" });
  },

  async "dark and light follow the system until one is chosen"({ open }) {
    const ground = (page) => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const page = await open({ colorScheme: "dark" });
    const dark = await ground(page);
    await page.emulateMedia({ colorScheme: "light" });
    const light = await ground(page);
    assert.notEqual(dark, light);
    const button = page.locator("#theme");
    for (const name of ["light", "dark"]) {
      await button.click();
      await button.filter({ hasText: `Theme: ${name}` }).waitFor();
    }
    assert.equal(await ground(page), dark);
  },

  async "text from a model or a user never becomes markup"({ open }) {
    const page = await open({});
    await limit(page, 5);
    await ask(page, "<img src=x onerror=alert(1)>");
    await page.locator(".turn-user", { hasText: "<img src=x" }).waitFor();
    assert.equal(await page.locator(".turn img").count(), 0);
  },
};

/// Whether a canvas has a curve: all else in it is grey.
function hasCurve(id) {
  const canvas = document.getElementById(id);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue, alpha] = data.slice(at, at + 4);
    if (alpha > 100 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60) return true;
  }
  return false;
}

async function limit(page, tokens) {
  await page.locator(".options").evaluate((options) => (options.open = true));
  await page.locator("#max-tokens").fill(String(tokens));
}

async function ask(page, text) {
  await page.locator("#prompt").fill(text);
  await page.locator("#prompt").press("Enter");
}

/// A busy system for the README: streams, a kill, a chat that has survived it.
async function takeScreenshot({ open, api }, path) {
  const page = await open({ viewport: DESK, colorScheme: "light" });
  const body = JSON.stringify({ messages: [{ role: "user", content: "busy" }], max_tokens: 700, stream: true });
  const streams = Array.from({ length: LOAD_STREAMS }, async () => (await api("/v1/chat/completions", { method: "POST", body })).text());
  await limit(page, 400);
  await page.locator(".options").evaluate((options) => (options.open = false));
  await ask(page, "What happens to this answer when the scheduler is killed?");
  await page.locator("#chat-status", { hasText: /^1\d\d tokens/ }).waitFor();
  await api("/actors/engine-0/scheduler-0/kill", { method: "POST" });
  await page.locator("#chat-status", { hasText: /^3\d\d tokens/ }).waitFor();
  await api("/actors/engine-0/kv-cache-0/kill", { method: "POST" });
  await page.locator('#tree-body tr.flash[data-path="cllm/engine-0/kv-cache-0"]').waitFor();
  await page.screenshot({ path, animations: "allow" });
  await Promise.all(streams);
}

async function main() {
  const browser = await startBrowser();
  const server = await startServer(binary, SETTINGS);
  const problems = [];
  const api = (path, request = {}) =>
    fetch(server.url + path, { ...request, headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json" }, signal: AbortSignal.timeout(WAIT_MS) });
  const open = async ({ key = KEY, viewport = DESK, colorScheme = "light" }) => {
    const context = await browser.newContext({ viewport, colorScheme });
    context.setDefaultTimeout(WAIT_MS);
    const page = await context.newPage();
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("console", (message) => message.text().includes("Content Security Policy") && problems.push(message.text()));
    if (key) await page.addInitScript((value) => sessionStorage.setItem("cllm-key", value), key);
    await page.goto(`${server.url}/ui`);
    if (key) await page.locator('#banner[data-state="ready"]').waitFor();
    return page;
  };
  let failed = 0;
  try {
    for (const [name, check] of Object.entries(checks)) {
      problems.length = 0;
      try {
        await check({ open, api });
        assert.deepEqual(problems, [], "errors in the page");
        console.log(`browser: ok: ${name}`);
      } catch (error) {
        failed += 1;
        console.error(`browser: FAILED: ${name}\n${error.stack}`);
      }
      for (const context of browser.contexts()) await context.close();
    }
    if (screenshot) await takeScreenshot({ open, api }, screenshot);
    if (failed) console.error(server.log().split("\n").slice(-40).join("\n"));
  } finally {
    await browser.close();
    await server.stop();
  }
  return failed;
}

main().then(
  (failed) => (process.exitCode = failed ? 1 : 0),
  (error) => {
    console.error(`browser: error: ${error.message}`);
    process.exitCode = 1;
  },
);
