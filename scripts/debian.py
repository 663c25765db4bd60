"""Debian packages, where we are root and apt-get is there."""
from __future__ import annotations

import os
import shutil

from console import run_logged, say

QUIET = {"DEBIAN_FRONTEND": "noninteractive"}
OPTIONS = ["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]


def available() -> bool:
    """Whether packages can be installed without asking anybody."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def refresh() -> None:
    """Gets the package lists, which a new machine does not have. Raises SetupError with apt's last line on failure."""
    run_logged(["apt-get", *OPTIONS, "update"], "apt-update.log", env=QUIET)


def install(packages: list[str]) -> None:
    """Installs packages from the lists that are there. Raises SetupError with apt's last line when that fails."""
    say(f"installing Debian packages: {' '.join(packages)}")
    run_logged(["apt-get", *OPTIONS, "install", "-y", "--no-install-recommends", *packages], "apt-install.log", env=QUIET)
