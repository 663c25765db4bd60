#!/usr/bin/env python3
"""Gets what a build, a run, the tests or the lint of cLLM need and the machine does not have.

Usage: scripts/setup.py [--tools auto|apt|wheels] [GOAL ...]

Goals (default: tools model):
  tools     cmake and libclang, for llama.cpp: found, or installed as Debian packages (as root), or as wheels in .tools/
  model     the default model, in models/
  clients   the foreign clients that tests/clients/ runs against the server, in .tools/ and tests/clients/node_modules/
  browser   Chromium (as root, from Debian) and playwright-core, for tests/browser/
  lint      cargo-deny and typos, in .tools/

Everything local lands in .tools/ and models/, which git ignores: to start over, delete them. Nothing to do costs well
under a second. It needs Python 3.9 and its standard library only.
"""
from __future__ import annotations

import argparse
import fcntl
import sys

import browser_test
import build_tools
import default_model
import foreign_clients
import lint_tools
from console import TOOLS, SetupError


def main() -> int:
    """Reaches the goals in their order; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", choices=["auto", "apt", "wheels"], default="auto", help="where cmake and libclang come from")
    parser.add_argument("goals", nargs="*", metavar="GOAL", help="tools, model, clients, browser, lint")
    args = parser.parse_args()
    reach = {
        "tools": lambda: build_tools.ensure(args.tools),
        "model": default_model.ensure,
        "clients": foreign_clients.ensure,
        "browser": browser_test.ensure,
        "lint": lint_tools.ensure,
    }
    goals = args.goals or ["tools", "model"]
    for goal in goals:
        if goal not in reach:
            parser.error(f"no such goal: {goal}")
    TOOLS.mkdir(exist_ok=True)
    with open(TOOLS / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once must not write the same files
        for goal in goals:
            reach[goal]()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as error:
        sys.exit(f"setup: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
