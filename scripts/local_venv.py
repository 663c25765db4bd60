"""The virtual environment `.tools/venv`, where wheels go: build tools, lint tools, foreign clients."""
from __future__ import annotations

import subprocess
import sys

import debian
from console import TOOLS, SetupError, run_logged, say

VENV = TOOLS / "venv"
PYTHON = VENV / "bin" / "python"


def ensure() -> None:
    """Makes the environment, with pip in it, unless it is there and works (a moved folder or a new Python breaks it)."""
    if works():
        return
    say("making .tools/venv")
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    try:
        run_logged(command, "venv.log", tries=1)
    except SetupError:
        # Debian's python3 comes without ensurepip.
        if not debian.available():
            raise SetupError("python3 cannot make a virtual environment: install its venv module and pip") from None
        debian.refresh()
        debian.install(["python3-venv"])
        run_logged(command, "venv.log", tries=1)
    if not works():
        raise SetupError("python3 made .tools/venv without a working pip")


def works() -> bool:
    """Whether the environment's Python starts and finds its pip."""
    if not PYTHON.exists():
        return False
    check = "import pip, sys; sys.exit(not pip.__file__.startswith(sys.prefix))"
    return subprocess.run([str(PYTHON), "-c", check], stderr=subprocess.DEVNULL).returncode == 0


def install(*arguments: str) -> None:
    """`pip install` into the environment, with the machine's own pip settings."""
    ensure()
    run_logged([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], "pip.log")
