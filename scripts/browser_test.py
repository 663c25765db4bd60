"""What `tests/browser/` needs: playwright-core in its `node_modules`, and Chromium, as root from Debian."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

import debian
from console import ROOT, SetupError, run_logged, say
from foreign_clients import mark, up_to_date

BROWSER = ROOT / "tests" / "browser"
DEFAULT_CHROMIUM = "/usr/bin/chromium"


def ensure() -> None:
    """Installs what is missing. Raises SetupError where it cannot: the test is never left out in silence."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise SetupError("the browser test needs node (20 or newer) and npm: install them (Debian: nodejs npm)")
    ensure_chromium()
    pins = BROWSER / "package-lock.json"
    if not (BROWSER / "node_modules").exists() or not up_to_date("browser", pins):
        say("installing playwright-core into tests/browser/node_modules")
        run_logged(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], "npm-browser.log", cwd=BROWSER)
        mark("browser", pins)


def ensure_chromium() -> None:
    """Chromium where `CHROMIUM` says, or Debian's."""
    wanted = Path(os.environ.get("CHROMIUM", DEFAULT_CHROMIUM))
    if wanted.exists():
        return
    if "CHROMIUM" in os.environ or not debian.available():
        raise SetupError(f"the browser test needs Chromium, and there is none at {wanted}: "
                         "install it (Debian: apt-get install chromium), or set CHROMIUM to its path")
    debian.refresh()
    debian.install(["chromium"])
