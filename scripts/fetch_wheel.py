"""Downloads one wheel and goes on where a broken download stopped. Usage: fetch_wheel.py PACKAGE VERSION FOLDER

`pip download` starts over each time. This asks pip's own finder where the file is and fetches it through pip's own
session, so that index, proxy, certificates and credentials are what pip is set up with. Both are pip's internals
(seen to work with pip 23 and 26): when they do not fit, it exits with 3 and the caller uses `pip download`. It exits
with 4 when the connection keeps breaking: what has come is kept for the next run.
"""
from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

# Tries in a row that bring nothing, before it gives up.
TRIES = 5
CHUNK_BYTES = 1 << 18


def main() -> int:
    """Downloads; returns 0 when the wheel lies in the folder, 3 when this way does not work."""
    package, version, folder = sys.argv[1:]
    try:
        url, sha256, session = locate(package, version)
    except Exception as error:  # whatever another version of pip raises means the same: not this way
        print(f"setup: pip cannot say where the file is ({type(error).__name__}: {error})", flush=True)
        return 3
    target = Path(folder) / os.path.basename(url)
    part = target.with_name(target.name + ".part")
    if not fetch_stubbornly(session, url, part):
        return 4 if size_of(part) else 3
    if sha256 and hash_of(part) != sha256:
        part.unlink()
        print("setup: the download was damaged and is deleted", flush=True)
        return 3
    os.replace(part, target)
    return 0


def locate(package: str, version: str):
    """URL and SHA-256 of the best file that pip knows for this version, and pip's session to get it with."""
    from pip._internal.commands import create_command
    from pip._vendor.packaging.specifiers import SpecifierSet

    command = create_command("download")
    options, _ = command.parse_args(["--quiet", "--no-cache-dir"])
    with command.main_context():
        session = command._build_session(options)
        finder = command._build_package_finder(options=options, session=session)
        best = finder.find_best_candidate(package, SpecifierSet(f"=={version}")).best_candidate
        if best is None:
            raise LookupError(f"no {package} {version} in the index")
        sha256 = best.link.hash if best.link.hash_name == "sha256" else None
        return best.link.url_without_fragment, sha256, session


def fetch_stubbornly(session, url: str, part: Path) -> bool:
    """Fetches as long as tries bring something; returns whether the file is complete."""
    failures = 0
    while failures < TRIES:
        before = size_of(part)
        try:
            fetch(session, url, part)
            return True
        except OSError as error:  # what pip's session raises is an OSError too
            failures = 0 if size_of(part) > before else failures + 1
            print(f"setup: the download broke off ({type(error).__name__})", flush=True)
            time.sleep(2 * failures + 1)
    return False


def size_of(part: Path) -> int:
    """Bytes that have come so far."""
    return part.stat().st_size if part.exists() else 0


def fetch(session, url: str, part: Path) -> None:
    """Gets what is missing of the file. Raises OSError when the connection ends early."""
    have = size_of(part)
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={have}-"} if have else {"Accept-Encoding": "identity"}
    with session.get(url, headers=headers, stream=True) as response:
        if response.status_code == 416:  # nothing is missing; the hash decides
            return
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
        total = have + int(response.headers.get("Content-Length") or 0)
        progress = Progress(have, total)
        with open(part, "ab" if have else "wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                progress.add(len(chunk))
        progress.end()
        if progress.done < total:
            raise ConnectionError(f"got {progress.done} of {total} bytes")


class Progress:
    """A line rewritten in place on a terminal, a line for each quarter elsewhere."""

    def __init__(self, done: int, total: int) -> None:
        self.start, self.began, self.done, self.total = done, time.monotonic(), done, total
        self.live = sys.stdout.isatty()
        self.shown = done * 4 // total if total else 0
        self.shown_at = 0.0
        if done:
            print(f"setup: going on from {done / 1e6:.1f} MB", flush=True)

    def add(self, count: int) -> None:
        """Counts bytes and shows them when it is time."""
        self.done += count
        now = time.monotonic()
        quarter = self.done * 4 // self.total if self.total else 0
        if self.live and now - self.shown_at > 0.1:
            self.shown_at = now
            print(f"\r{self.text(now)}  ", end="", flush=True)
        elif not self.live and quarter > self.shown:
            self.shown = quarter
            print(self.text(now), flush=True)

    def text(self, now: float) -> str:
        """How far it is and how fast it goes."""
        rate = (self.done - self.start) / 1e6 / max(now - self.began, 1e-3)
        share = f" ({100 * self.done // self.total} %)" if self.total else ""
        return f"setup: {self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB{share}, {rate:.1f} MB/s"

    def end(self) -> None:
        """Leaves the last state on a terminal."""
        if self.live:
            print(f"\r{self.text(time.monotonic())}  ", flush=True)


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
