#!/usr/bin/env python3
"""What watching the actors costs: throughput and CPU time with and without somebody who looks at `/actors`.

Usage: inspection_cost.py [--server target/release/cllm] [--rounds 11] [--seconds 4] [--at-once 16] [--hertz 10]

Starts the server with the fake engine at full speed and loads it in rounds. In every pair of rounds one is watched: `/actors`
is fetched HERTZ times a second and one reader follows `/actors/events`. Which of the pair comes first alternates. Reported are
the medians over the pairs: tokens per second, and the server's CPU time per token, which a busy neighbour disturbs less.
Clients run in processes of their own. Standard library and Linux only.
"""
import argparse
import http.client
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 2000
TICKS = os.sysconf("SC_CLK_TCK")


def load(port, until, number, total):
    """Requests over one connection until the time is over; adds the tokens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    count = 0
    while time.time() < until:
        body = {"prompt": f"client {number} request {count}", "max_tokens": TOKENS, "temperature": 0}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json", "Cache-Control": "no-store"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"{answer.status} {answer.read()}")
        answer.read()
        count += 1
        with total.get_lock():
            total.value += TOKENS


def watch(port, until, hertz, looks):
    """Fetches the tree and follows the events until the time is over."""
    events = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    events.request("GET", "/actors/events")
    stream = events.getresponse()
    threading.Thread(target=lambda: [None for _ in iter(lambda: stream.read1(65536), b"")], daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    due = time.time()
    while time.time() < until:
        connection.request("GET", "/actors")
        connection.getresponse().read()
        looks.value += 1
        due += 1 / hertz
        time.sleep(max(0.0, due - time.time()))


def cpu_seconds(pid):
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def one_round(server, port, args, watched):
    """Tokens per second, and µs of the server's CPU time per token."""
    total, looks = multiprocessing.Value("q", 0), multiprocessing.Value("q", 0)
    began, cpu = time.time(), cpu_seconds(server.pid)
    until = began + args.seconds
    clients = [multiprocessing.Process(target=load, args=(port, until, number, total)) for number in range(args.at_once)]
    if watched:
        clients.append(multiprocessing.Process(target=watch, args=(port, until, args.hertz, looks), daemon=True))
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    took, cpu = time.time() - began, cpu_seconds(server.pid) - cpu
    return total.value / took, cpu / total.value * 1e6, looks.value / took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=ROOT / "target" / "release" / "cllm")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--hertz", type=float, default=10.0)
    args = parser.parse_args()
    command = [str(args.server), "serve", "--engine", "fake", "--port", "0", "--set", "logging.level=warn"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(re.search(r"http://[^:]+:(\d+)", server.stdout.readline())[1])
            one_round(server, port, args, watched=True)
            pairs = []
            for number in range(args.rounds):
                order = [False, True] if number % 2 == 0 else [True, False]
                of = {watched: one_round(server, port, args, watched) for watched in order}
                pairs.append((of[False], of[True]))
        finally:
            server.terminate()
    looks = statistics.median(watched[2] for _, watched in pairs)
    print(f"{args.rounds} pairs of {args.seconds:g} s, {args.at_once} requests at once, /actors {looks:.1f} times a second")
    for index, name, unit in ((0, "throughput", "tokens/s"), (1, "CPU time", "µs/token")):
        alone, watched = (statistics.median(pair[side][index] for pair in pairs) for side in (0, 1))
        ratios = sorted(pair[1][index] / pair[0][index] for pair in pairs)
        print(
            f"{name}: alone {alone:.2f}, watched {watched:.2f} {unit}, median ratio {statistics.median(ratios):.4f} "
            f"({ratios[0]:.4f} to {ratios[-1]:.4f})"
        )


if __name__ == "__main__":
    main()
