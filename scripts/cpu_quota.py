#!/usr/bin/env python3
"""What a CPU quota, as containers have it, does to ten requests at a time, with several numbers of threads and of spins.

Usage: cpu_quota.py SERVER MODEL [--rounds 3] [--quotas none,1.5,1] [--threads default,1,2] [--spins 0,500,100000]
       cpu_quota.py SERVER --engine fake ...     (no model, to try the script)

In each round and for each combination a server is started in a cgroup of its own that may use so many cores, engine and all,
and `cllm bench` measures it from outside of that: `throughput`, ten at a time. The combinations come in another random order
in each round. Printed are medians and ranges over the rounds, in tokens per second. A round of all 27 takes about 6 minutes.

Needs root and the `cpu` controller of cgroup v2 or v1 in /sys/fs/cgroup; ends with 1 where it cannot limit a server.
"""
from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator

from bench import started
from console import SetupError

ROOT_GROUP = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
AT_ONCE = 10


@contextlib.contextmanager
def quota_group() -> Iterator[Path]:
    """A new cgroup with the cpu controller, removed afterwards; SetupError where there can be none."""
    v2 = ROOT_GROUP / "cgroup.controllers"
    parent = ROOT_GROUP if v2.exists() else ROOT_GROUP / "cpu"
    group = parent / f"cllm-quota-{os.getpid()}"
    try:
        if v2.exists():
            (ROOT_GROUP / "cgroup.subtree_control").write_text("+cpu")
        elif not (parent / "cpu.cfs_quota_us").exists():
            raise SetupError(f"no cpu controller of cgroup v1 or v2 in {ROOT_GROUP}")
        group.mkdir()
    except OSError as error:
        raise SetupError(f"cannot make a cgroup with a CPU quota (root, and a writable {ROOT_GROUP}?): {error}") from error
    try:
        yield group
    finally:
        remove(group)


def remove(group: Path) -> None:
    """The processes in it have been ended; the last of them may take a moment."""
    for _ in range(50):
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.1)
    print(f"cpu_quota: {group} is still in use", file=sys.stderr)


def limit(group: Path, quota: str) -> None:
    """So many cores; `none`: as many as there are."""
    quota_us = None if quota == "none" else int(float(quota) * PERIOD_US)
    if (group / "cpu.max").exists():
        (group / "cpu.max").write_text(f"{quota_us or 'max'} {PERIOD_US}")
    elif (group / "cpu.cfs_quota_us").exists():
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us or -1))
    else:
        raise SetupError(f"{group} has no CPU quota")


def measure(args: argparse.Namespace, group: Path, threads: str, spin: str) -> float:
    """Tokens per second of one round on a new server in the group."""
    # The shell enters the group first: what the server reads of its processors at its start has the quota in it.
    command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), str(args.server), "serve"]
    command += ["--engine", args.engine, "--host", "127.0.0.1", "--port", "0", "--set", "logging.level=warn"]
    command += ["--model", args.model] if args.model else []
    command += ["--set", f"backend.llama_cpp.spin={spin}"]
    command += [] if threads == "default" else ["--set", f"backend.llama_cpp.n_threads={threads}"]
    with started("cpu quota", command, "http://") as server, tempfile.NamedTemporaryFile(suffix=".json") as report:
        bench = [str(args.server), "bench", "--url", server.url, "--scenario", "throughput", "--concurrency", str(AT_ONCE),
                 "--rounds", "1", "--json", report.name]
        done = subprocess.run(bench, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise SetupError(f"`{' '.join(bench)}` ended with {done.returncode}")
        case = json.load(open(report.name))["scenarios"][0]["cases"][0]
    return case["sides"][0]["tokens_per_second"]["median"]


def table(args: argparse.Namespace, rates: dict[tuple[str, str, str], list[float]]) -> str:
    """A line for each number of threads and of spins, a column for each quota."""
    lines = [f"{'threads':<8} {'spin':>8}" + "".join(f"  {'quota ' + quota:<24}" for quota in args.quotas)]
    for threads, spin in itertools.product(args.threads, args.spins):
        cells = (rates[quota, threads, spin] for quota in args.quotas)
        cells = (f"{statistics.median(cell):.1f} ({min(cell):.1f}..{max(cell):.1f})" if cell else "-" for cell in cells)
        lines.append(f"{threads:<8} {spin:>8}" + "".join(f"  {cell:<24}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    several = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", type=Path)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--engine", default="process", help="process, thread or fake")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quotas", type=several, default=["none", "1.5", "1"], help="cores")
    parser.add_argument("--threads", type=several, default=["default", "1", "2"])
    parser.add_argument("--spins", type=several, default=["0", "500", "100000"])
    args = parser.parse_args()
    combinations = list(itertools.product(args.quotas, args.threads, args.spins))
    rates = {combination: [] for combination in combinations}
    try:
        with quota_group() as group:
            for number in range(args.rounds):
                for quota, threads, spin in random.sample(combinations, len(combinations)):
                    limit(group, quota)
                    rates[quota, threads, spin].append(measure(args, group, threads, spin))
                print(f"round {number + 1} of {args.rounds} is done", file=sys.stderr)
    finally:
        # Also of what was measured before something failed.
        print(f"tokens/s of {AT_ONCE} at a time, median (range) of {args.rounds} rounds, {os.cpu_count()} processors")
        print(table(args, rates))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as error:
        sys.exit(f"cpu_quota: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
