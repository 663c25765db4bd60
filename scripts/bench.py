#!/usr/bin/env python3
"""Measures cLLM against llama.cpp's own server and against the project's targets: what `make bench` runs.

Usage: scripts/bench.py BINARY MODEL [--quick] [--no-peer | --peer-python FILE] [--threads N] [--context N] [--sequences N] [--out DIR] [-- ARGUMENT ...]

Starts both servers with the same model, threads, sequences and context, and runs `cllm bench` on them in turns. Writes
`report.html` and `report.json`, and prints a table of the targets: met, missed or not measured. A whole run takes about
20 minutes on two cores, `--quick` about 5. The machine must be otherwise idle. Without network there is no peer, and
cLLM is measured alone.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Iterator

import peer_venv
from console import ROOT, SetupError, output

SCENARIOS = ("seed-sequential,seed-concurrent,throughput,shared-prefix,repeat,long-prompt,mixed,contention@1,"
             "capacity,survival")
QUICK_SCENARIOS = "throughput,shared-prefix,repeat,long-prompt,contention@1,capacity"
START_SECONDS = 300


def main() -> int:
    """Runs everything; returns the exit code of `cllm bench`."""
    args = arguments()
    out = args.out or (ROOT / "target" / "bench" if args.quick else ROOT / "docs" / "bench")
    out.mkdir(parents=True, exist_ok=True)
    command = [str(args.binary), "bench", "--targets", "--patience", "300",
               "--json", str(out / "report.json"), "--html", str(out / "report.html")]
    if "--scenario" not in args.bench:
        # Those that are named are run beside others that are.
        command += ["--scenario", QUICK_SCENARIOS if args.quick else SCENARIOS]
    command += args.bench or (["--rounds", "2", "--concurrency", "1,10,16"] if args.quick else [])
    with contextlib.ExitStack() as servers:
        ours = servers.enter_context(cllm(args))
        command += ["--server-pid", str(ours.pid), "--url", ours.url, "--note", our_note()]
        python = args.peer_python or (None if args.no_peer else peer_python())
        if python:
            command += ["--url", servers.enter_context(peer(args, python)).url, "--note", peer_note(python)]
        code = subprocess.run(command).returncode
    print(f"\nreport: {out / 'report.html'}")
    return code


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and scenarios, report in target/bench/")
    parser.add_argument("--no-peer", action="store_true", help="measure cLLM alone")
    parser.add_argument("--peer-python", type=Path, help="a Python that has xllamacpp, in place of .tools/peer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--context", type=int, default=32_768, help="tokens of KV over all sequences")
    parser.add_argument("--out", type=Path, help="folder of the report")
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:end])
    args.bench = given[end + 1:]
    return args


def our_note() -> str:
    """Which cLLM this is and how `make bench` builds it."""
    git = ("git", "-C", str(ROOT))
    commit = output(*git, "rev-parse", "--short", "HEAD")
    changed = output(*git, "status", "--porcelain", "--untracked-files=no")
    # The variable takes the place of .cargo/config.toml's target-cpu=native.
    flags = os.environ.get("RUSTFLAGS")
    built = "built for this machine (target-cpu=native)" if flags is None else f"built with RUSTFLAGS={flags!r}"
    return f"commit {commit}{'+' if changed else ''}, {built}" if commit else built


def peer_note(python: Path) -> str:
    """Which llama.cpp that is: its server does not say. The version is that of the wheel in use."""
    name, pinned = peer_venv.REQUIREMENT.split("==")
    version = output(str(python), "-c", f"import importlib.metadata as m; print(m.version({name!r}))")
    return f"{name} {version or pinned}, generic prebuilt wheel"


def peer_python() -> Path | None:
    """The Python that has the peer, if there is a way to get it."""
    try:
        return peer_venv.ensure()
    except SetupError as error:
        print(f"bench: no peer, cLLM is measured alone: {error}", file=sys.stderr)
        return None


class Running:
    """A server under way."""

    def __init__(self, process: subprocess.Popen, url: str) -> None:
        self.pid, self.url = process.pid, url


def cllm(args: argparse.Namespace) -> contextlib.AbstractContextManager[Running]:
    """Our server, as users run it."""
    settings = {
        "backend.llama_cpp.n_threads": args.threads,
        "backend.llama_cpp.n_ctx": args.context,
        "scheduler.max_batch_size": args.sequences,
        "logging.level": "warn",
    }
    command = [str(args.binary), "serve", "--model", str(args.model), "--host", "127.0.0.1", "--port", "0"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return started("cllm", command, "http://")


def peer(args: argparse.Namespace, python: Path) -> contextlib.AbstractContextManager[Running]:
    """llama.cpp's server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), str(ROOT / "scripts" / "peer.py"), "--model", str(args.model), "--port", str(port),
               "--threads", str(args.threads), "--sequences", str(args.sequences), "--context", str(args.context)]
    return started("the peer", command, "ready ")


@contextlib.contextmanager
def started(name: str, command: list[str], ready: str) -> Iterator[Running]:
    """Starts a server, waits for its line with a URL, and ends it afterwards."""
    log = ROOT / "target" / f"bench-{name.split()[-1]}.log"
    log.parent.mkdir(exist_ok=True)
    env = {key: value for key, value in os.environ.items() if not key.startswith("CLLM_")}
    with open(log, "w") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
    try:
        url = next((line.split(ready, 1)[1].split()[0] for line in process.stdout if ready in line), None)
        if url is None:
            raise SetupError(f"{name} did not start; its log: {log.relative_to(ROOT)}")
        # Whatever else it prints must not fill the pipe.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield Running(process, url if url.startswith("http://") else f"http://{url}")
    finally:
        process.stdin.close()
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
