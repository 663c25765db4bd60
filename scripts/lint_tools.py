"""Lint tools that cargo does not bring: cargo-deny, built from source, and typos, from a wheel."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

import local_venv
from console import TOOLS, run_logged, say

CARGO_DENY = "0.20.2"
TYPOS = "typos==1.52.0"


def ensure() -> None:
    """Installs what is neither on PATH nor in `.tools/`."""
    if shutil.which("typos") is None and not (local_venv.VENV / "bin" / "typos").exists():
        say(f"installing {TYPOS} into .tools/venv")
        local_venv.install(TYPOS)
    if shutil.which("cargo-deny") is None and not (TOOLS / "bin" / "cargo-deny").exists():
        say(f"building cargo-deny {CARGO_DENY} into .tools/bin (a few minutes)")
        # A debug build takes a third of the time, and the check runs for a second.
        command = ["cargo", "install", "--quiet", "--locked", "--debug", "--root", str(TOOLS), f"cargo-deny@{CARGO_DENY}"]
        # Outside the workspace, whose flags and target folder are not for it; without debug information.
        scratch = TOOLS / "build"
        env = {"CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_TARGET_DIR": str(scratch)}
        run_logged(command, "cargo-install.log", tries=2, env=env, cwd=Path(os.sep))
        shutil.rmtree(scratch, ignore_errors=True)
