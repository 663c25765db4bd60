// Starts and stops what the test needs: the real server with the fake engine, and Debian's Chromium.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const READY_MS = 60_000;
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
// Without the background flags Chromium looks up hosts of its maker at every start, which a closed network refuses.
const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export async function startBrowser() {
  if (!existsSync(CHROMIUM)) {
    throw new Error(`no Chromium at ${CHROMIUM}: install it (Debian: apt-get install chromium; as root scripts/setup.py browser does it), or set CHROMIUM to its path`);
  }
  const root = process.getuid?.() === 0; // Chromium refuses its sandbox to root
  return chromium.launch({ executablePath: CHROMIUM, args: root ? ["--no-sandbox", ...FLAGS] : FLAGS });
}

/// `cllm serve --engine fake` with these settings; gives its URL and a function that stops it.
export async function startServer(binary, settings) {
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CLLM_")));
  const args = ["serve", "--engine", "fake", "--port", "0", ...settings.flatMap((setting) => ["--set", setting])];
  const child = spawn(binary, args, { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", (data) => (log += data));
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const url = await new Promise((resolve, reject) => {
    let text = "";
    const timer = setTimeout(() => reject(new Error(`the server printed no ready line:\n${log}`)), READY_MS);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`the server ended with ${code}:\n${log}`)));
    child.stdout.on("data", (data) => {
      text += data;
      const found = text.match(/http:\/\/[^\s/"]+:\d+/);
      if (found) {
        clearTimeout(timer);
        resolve(found[0]);
      }
    });
  }).catch((error) => {
    child.kill("SIGKILL");
    throw error;
  });
  const stop = async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 30_000);
    await ended;
    clearTimeout(timer);
  };
  return { url, stop, log: () => log };
}
