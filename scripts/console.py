"""Paths, messages and subprocesses of the set-up. Knows nothing of what is being set up."""
from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"


class SetupError(Exception):
    """What went wrong and what to do about it, in one line."""


def say(message: str) -> None:
    """One line of progress."""
    print(f"setup: {message}", flush=True)


def output(*command: str) -> str:
    """The standard output of a command, stripped; empty when it is missing or fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def run_logged(command: list[str], log: str, tries: int = 3, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
    """Runs a command that uses the network, its output in `.tools/<log>`, with a pause between tries.

    Raises SetupError with the last line of the output when every try failed.
    """
    path = TOOLS / log
    for attempt in range(1, tries + 1):
        with open(path, "w") as file:
            try:
                done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                      env={**os.environ, **(env or {})}, cwd=cwd)
            except OSError as error:
                raise SetupError(f"cannot run {command[0]}: {error}") from error
        if done.returncode == 0:
            return
        if attempt < tries:
            time.sleep(3 * attempt)
    lines = path.read_text(errors="replace").strip().splitlines() or ["no output"]
    raise SetupError(f"`{' '.join(command[:4])} …` failed: {lines[-1].strip()} (log: {path.relative_to(ROOT)})")
