"""The foreign clients of `tests/clients/`: Python packages in `.tools/venv`, npm packages in `tests/clients/node_modules`."""
from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import local_venv
from console import ROOT, TOOLS, run_logged, say

CLIENTS = ROOT / "tests" / "clients"


def ensure() -> None:
    """Installs the pinned versions unless they are there; the Node client only where node and npm are."""
    if not local_venv.works() or not up_to_date("python", CLIENTS / "requirements.txt"):
        say("installing the Python clients into .tools/venv")
        local_venv.install("--requirement", str(CLIENTS / "requirements.txt"))
        mark("python", CLIENTS / "requirements.txt")
    if shutil.which("node") is None or shutil.which("npm") is None:
        return
    modules = CLIENTS / "node_modules"
    if not modules.exists() or not up_to_date("node", CLIENTS / "package-lock.json"):
        say("installing the Node clients into tests/clients/node_modules")
        run_logged(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], "npm.log", cwd=CLIENTS)
        mark("node", CLIENTS / "package-lock.json")


def up_to_date(name: str, pins: Path) -> bool:
    """Whether the last installation was from these pins."""
    stamp = TOOLS / f"clients-{name}.stamp"
    return stamp.exists() and stamp.read_text() == digest(pins)


def mark(name: str, pins: Path) -> None:
    """Remembers the pins that are installed."""
    (TOOLS / f"clients-{name}.stamp").write_text(digest(pins))


def digest(pins: Path) -> str:
    """What the pins are compared by."""
    return hashlib.sha256(pins.read_bytes()).hexdigest()
