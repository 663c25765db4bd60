#!/usr/bin/env python3
"""How the adaptive step size does against fixed ones, over loads of several kinds: tokens per second and gaps.

Usage: step_sizes.py SERVER MODEL [--sizes 16,32,64,256] [--rounds 3] [--scenario throughput,shared-prefix,mixed,long-prompt] [--json FILE]

Starts one server with `scheduler.tuner: adaptive` and one for each fixed `scheduler.step_tokens`, and has `cllm bench` ask them in
turns, 16 at a time in `throughput`. Printed for each load are, by size, the median of the rounds' tokens per second with its
range, the ratio to the adaptive one's round by round, and the median, the 99th percentile and the longest of all gaps between two
pieces of text. A step that reads prompts is a gap of everybody who decodes: the two have to be judged together. The machine must
be otherwise idle; two rounds of three sizes took 23 minutes on two slow cores.
"""
import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import started
from console import SetupError


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--sizes", default="16,32,64,256")
    parser.add_argument("--rounds", default="3")
    parser.add_argument("--scenario", default="throughput,shared-prefix,mixed,long-prompt")
    parser.add_argument("--json", type=Path, help="where the report of `cllm bench` goes")
    args = parser.parse_args()
    settings = {"adaptive": ["scheduler.tuner=adaptive"]}
    for size in args.sizes.split(","):
        settings[size] = ["scheduler.tuner=static", f"scheduler.step_tokens={size}"]
    with contextlib.ExitStack() as stack:
        report = args.json or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "report.json"
        command = [str(args.server), "bench", "--scenario", args.scenario, "--concurrency", "16", "--rounds", args.rounds,
                   "--patience", "300", "--json", str(report)]
        for name, values in settings.items():
            serve = [str(args.server), "serve", "--model", str(args.model), "--host", "127.0.0.1", "--port", "0"]
            for value in ["backend.llama_cpp.n_threads=2", "backend.llama_cpp.n_ctx=32768", "logging.level=warn", *values]:
                serve += ["--set", value]
            command += ["--url", stack.enter_context(started(f"cllm-{name}", serve, "http://")).url, "--note", name]
        code = subprocess.run(command).returncode
        if report.exists():
            show(json.loads(report.read_text()), list(settings))
    return code


def show(report, names):
    print("\nload | step tokens | tokens/s (min to max) | to adaptive (min to max) | gap p50 | p99 | longest, ms")
    for scenario in report["scenarios"]:
        for case in scenario["cases"]:
            ratios = {ratio["server"]: ratio["tokens_per_second"] for ratio in case["ratios"]}
            for side in case["sides"]:
                # The report has the first server's speed over the other's.
                over = ratios.get(side["server"])
                ratio = f"{1 / over['median']:.3f} ({1 / over['max']:.3f} to {1 / over['min']:.3f})" if over else ""
                speed, gap = side["tokens_per_second"], side["gap_ms"]
                # A side without an answer, or with one token each, has none.
                speeds = f"{speed['median']:.1f} ({speed['min']:.1f} to {speed['max']:.1f})" if speed else "-"
                gaps = f"{gap['p50']:.0f} | {gap['p99']:.0f} | {gap['max']:.0f}" if gap else "- | - | -"
                print(f"{scenario['name']}, {case['label']} | {names[side['server']]} | {speeds} | {ratio} | {gaps}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as error:
        sys.exit(f"step_sizes: error: {error}")
