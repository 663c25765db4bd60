"""The virtual environment `.tools/peer`, with the package that carries llama.cpp's own server (about 100 MB)."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import local_venv
from console import TOOLS, run_logged, say

REQUIREMENT = "xllamacpp==2026.10.11549"

VENV = TOOLS / "peer"
PYTHON = VENV / "bin" / "python"


def ensure() -> Path:
    """Installs the pinned version unless it is there; returns the Python that has it."""
    if installed():
        return PYTHON
    TOOLS.mkdir(exist_ok=True)
    say(f"installing the benchmark's peer, {REQUIREMENT}, into .tools/peer")
    # pip of the environment that make setup uses: a second copy of pip is not needed.
    local_venv.ensure()
    run_logged([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)], "peer.log", tries=1)
    run_logged([str(local_venv.PYTHON), "-m", "pip", "--python", str(PYTHON), "install", "--quiet",
                "--disable-pip-version-check", REQUIREMENT], "peer.log")
    return PYTHON


def installed() -> bool:
    """Whether the environment works and has this version."""
    if not PYTHON.exists():
        return False
    name, version = REQUIREMENT.split("==")
    check = f"import importlib.metadata as m; raise SystemExit(m.version({name!r}) != {version!r})"
    return subprocess.run([str(PYTHON), "-c", check], stderr=subprocess.DEVNULL).returncode == 0
