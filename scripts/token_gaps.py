#!/usr/bin/env python3
"""How long running streams stand still while a long prompt is read, for several settings of this server, alternating.

Usage: token_gaps.py BINARY MODEL SETTINGS [SETTINGS ...] [--rounds 3] [--streams 8] [--prompt 1900] [--tokens 200]

SETTINGS are `key=value` with commas between them; each is a server of its own, and each round asks one after the other.
A round starts the streams, sends one long prompt when all of them run, and waits for everything. Then it asks ten short
prompts at once for the throughput. Printed are, in ms, all gaps between two tokens of the streams (median, 99th percentile,
longest; before the long prompt, beside it and after it),
the time to the long prompt's first token, and tokens per second. Stdlib only.
"""
import argparse
import concurrent.futures
import http.client
import json
import statistics
import subprocess
import threading
import time

from prompts import words


def stream(port, prompt, tokens, began=lambda: None):
    """Arrival times of the chunks of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    times = []
    for line in response:
        if line.startswith(b"data: {"):
            times.append(time.perf_counter())
            began()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{response.status}")
    return times


def round_of(port, args):
    running = threading.Barrier(args.streams + 1)

    def one(_):
        first = [True]

        def began():
            if first[0]:
                first[0] = False
                running.wait()

        return stream(port, words(12), args.tokens, began)

    with concurrent.futures.ThreadPoolExecutor(args.streams) as pool:
        streams = [pool.submit(one, number) for number in range(args.streams)]
        running.wait()
        time.sleep(1)
        sent = time.perf_counter()
        first = stream(port, words(args.prompt), 8)[0]
        gaps, quiet = [], []
        for times in (it.result() for it in streams):
            for earlier, later in zip(times[1:], times[2:]):
                gaps.append(1000 * (later - earlier))
                if later < sent or earlier > first:
                    quiet.append(gaps[-1])
    gaps.sort()
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        started = time.perf_counter()
        count = sum(len(times) for times in pool.map(lambda _: stream(port, words(12), 50), range(10)))
        rate = count / (time.perf_counter() - started)
    median = statistics.median(gaps)
    p99 = gaps[int(0.99 * len(gaps))]
    return {
        "quiet": statistics.median(quiet),
        "median": median,
        "p99": p99,
        "longest": gaps[-1],
        "p99/median": p99 / median,
        "longest/median": gaps[-1] / median,
        "first token": 1000 * (first - sent),
        "10 at once": rate,
    }


def serve(args, settings):
    command = [args.binary, "serve", "--model", args.model, "--port", "0", "--set", "logging.level=warn"]
    for setting in settings.split(","):
        command += ["--set", setting]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    port = int(line.split("http://")[1].split(" ")[0].rsplit(":", 1)[1])
    return server, port


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("settings", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=1900)
    parser.add_argument("--tokens", type=int, default=200)
    args = parser.parse_args()
    results = {settings: [] for settings in args.settings}
    for number in range(args.rounds):
        for settings in args.settings if number % 2 == 0 else reversed(args.settings):
            server, port = serve(args, settings)
            try:
                round_of(port, argparse.Namespace(streams=args.streams, prompt=args.prompt // 4, tokens=40))
                results[settings].append(round_of(port, args))
            finally:
                server.terminate()
                server.wait()
    for settings, rounds in results.items():
        print(settings)
        for name in rounds[0]:
            values = sorted(it[name] for it in rounds)
            print(f"  {name:15} {statistics.median(values):9.1f}   ({values[0]:.1f} to {values[-1]:.1f})", flush=True)


if __name__ == "__main__":
    main()
