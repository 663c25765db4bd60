"""Runs the foreign clients against a real server with a real model. `make test` calls it; `make clients` calls it alone.

Starts `cllm serve` on a free port, waits for its ready line, runs each client script with the base URL, and stops the
server with SIGTERM, which must end it with exit code 0. With --url it uses a server that is already there.
"""
from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOG = ROOT / ".tools" / "clients-server.log"
READY_SECONDS = 120
STOP_SECONDS = 60


def main() -> int:
    """Runs every client; returns 0 when all passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=ROOT / "target" / "debug" / "cllm", help="the cllm binary")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--url", help="a running server, in place of one started here")
    args = parser.parse_args()
    clients = [[sys.executable, str(HERE / "openai_python.py")]]
    node = shutil.which("node")
    if node and (HERE / "node_modules").exists():
        clients.append([node, str(HERE / "openai_node.mjs")])
    elif os.environ.get("CI"):
        print("clients: error: no node or no node_modules here, and CI must run the Node client", file=sys.stderr)
        return 1
    else:
        print("clients: no node or no node_modules here, the Node client is left out", flush=True)
    if sys.platform == "linux":
        clients.append([sys.executable, str(HERE / "survive_kill.py")])
    if args.url:
        return run_all(clients, args.url)
    try:
        with server(args.server, args.model) as url:
            failed = run_all(clients, url)
    except RuntimeError as error:
        print(f"clients: error: {error}\n--- end of {LOG}:\n{tail()}", file=sys.stderr)
        return 1
    if failed:
        print(f"--- end of {LOG}:\n{tail()}", file=sys.stderr)
    return failed


def run_all(clients: list[list[str]], url: str) -> int:
    """Runs the scripts one after the other; returns how many failed."""
    return sum(subprocess.run([*command, url], timeout=900).returncode != 0 for command in clients)


@contextmanager
def server(binary: Path, model: Path) -> Iterator[str]:
    """A server on a free port; gives its URL. Raises RuntimeError when it does not get ready or does not end well."""
    # The developer's own settings must not decide the outcome.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CLLM_")}
    LOG.parent.mkdir(exist_ok=True)
    with open(LOG, "w") as log:
        try:
            process = subprocess.Popen([str(binary), "serve", "--model", str(model), "--port", "0"], env=environment,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        except OSError as error:
            raise RuntimeError(f"cannot start {binary}: {error.strerror}") from error
    try:
        yield wait_until_ready(process)
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_SECONDS)
        if code != 0:
            raise RuntimeError(f"the server ended with {code} after SIGTERM")
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the server did not end within {STOP_SECONDS} s after SIGTERM") from None
    finally:
        process.kill()
        process.wait()


def wait_until_ready(process: subprocess.Popen[str]) -> str:
    """The URL of the ready line on standard output, which is read to its end so that the server never blocks on it."""
    found: list[str] = []
    ready = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            url = re.search(r"http://[^\s/\"]+:\d+", line)
            if url and not found:
                found.append(url.group())
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    ready.wait(READY_SECONDS)
    if not found:
        raise RuntimeError("the server printed no ready line")
    return found[0]


def tail() -> str:
    """The end of the server's log."""
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-40:])


if __name__ == "__main__":
    sys.exit(main())
