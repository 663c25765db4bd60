#!/usr/bin/env python3
"""Of what the pause after `kill -9` of the engine is made: loading, computing again what was lost, and the rest.

Usage: kill_pause.py SERVER MODEL [--port 9178] [--rounds 5] [--streams 16] [--set KEY=VALUE ...]

In each round STREAMS greedy streams run, the engine's process is killed when all have 24 pieces of text, and the longest gap
of a stream is its pause. Loading is the time from the kill to the server's log line `model loaded`. What was lost is measured
by itself: as many prompts of as many new tokens as each stream had (prompt and answer) are sent at once to the idle server, and
the time until the last of them has its first token counts. The rest is what supervision, processes and queues add, and, for the
last stream, the tokens that the first ones have got meanwhile. Standard library and Linux only; the machine must be otherwise
idle.
"""
import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import threading
import time

from prompts import words

KILL_AFTER = 24
HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


class Stream(threading.Thread):
    """One request; `times` are those of its pieces of text, `prompt_tokens` what the server counted."""

    def __init__(self, port, prompt, max_tokens):
        super().__init__()
        self.port, self.prompt, self.max_tokens = port, prompt, max_tokens
        self.times, self.prompt_tokens, self.refused = [], 0, None
        self.start()

    def run(self):
        body = {"prompt": self.prompt, "max_tokens": self.max_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
                "stream_options": {"include_usage": True}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("POST", "/v1/completions", json.dumps(body), HEADERS)
        answer = connection.getresponse()
        for line in answer:
            if answer.status != 200 or b'"error"' in line:
                self.refused = line
            elif line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if any(choice["text"] for choice in chunk["choices"]):
                    self.times.append(time.time())
                if chunk.get("usage"):
                    self.prompt_tokens = chunk["usage"]["prompt_tokens"]


def engine_pid(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/actors/engine-0/backend-0")
    return json.loads(connection.getresponse().read())["state"]["pid"]


def loads(log):
    """Times at which a model was loaded, by the server's log."""
    with open(log) as lines:
        found = [json.loads(line) for line in lines if '"model loaded"' in line]
    stamp = lambda text: time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) + float(re.search(r"\.(\d+)", text).group(0))
    return [stamp(entry["timestamp"]) for entry in found]


def one_round(args, log):
    streams = [Stream(args.port, words(30), 64) for _ in range(args.streams)]
    deadline = time.time() + 120
    while min(len(stream.times) for stream in streams) < KILL_AFTER:
        if time.time() > deadline or any(stream.refused for stream in streams):
            raise SystemExit(f"the streams do not run: {[stream.refused for stream in streams]}")
        time.sleep(0.005)
    had = [len(stream.times) for stream in streams]
    engine = engine_pid(args.port)
    killed = time.time()
    os.kill(engine, signal.SIGKILL)
    for stream in streams:
        stream.join()
    if any(stream.refused for stream in streams):
        raise SystemExit(f"a stream did not go on: {[stream.refused for stream in streams]}")
    pauses = [max(b - a for a, b in zip(stream.times, stream.times[1:])) for stream in streams]
    load = loads(log)[-1] - killed
    # A word is a token at least; what is more is taken out below.
    again = [Stream(args.port, words(stream.prompt_tokens + count), 1) for stream, count in zip(streams, had)]
    began = time.time()
    for stream in again:
        stream.join()
    prefill = max(stream.times[0] for stream in again) - began
    tokens = sum(stream.prompt_tokens for stream in streams) + sum(had)
    same = sum(stream.prompt_tokens for stream in again) / tokens
    return min(pauses), max(pauses), load, prefill / same, tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=9178)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    log = f"/tmp/kill_pause.{os.getpid()}.log"
    # Each round is to be a first restart: by default more of them wait longer, and too many are held down.
    sets = ["logging.format=json", "supervision.engine.max_restarts=100", "supervision.engine.backoff_min_ms=0", *args.set]
    command = [args.server, "serve", "--model", args.model, "--port", str(args.port)]
    os.environ["TZ"] = "UTC"
    time.tzset()
    with open(log, "w") as out:
        server = subprocess.Popen([*command, *(word for pair in sets for word in ("--set", pair))], stdout=out, stderr=out)
    try:
        while not loads(log):
            if server.poll() is not None:
                raise SystemExit(open(log).read())
            time.sleep(0.1)
        time.sleep(1)
        rounds = [one_round(args, log) for _ in range(args.rounds)]
        for first, last, load, prefill, tokens in rounds:
            # The first to go on do so after a step of up to 512 tokens.
            step = prefill * min(512, tokens) / tokens
            print(f"first stream {first:.2f} s = load {load:.2f} + a step {step:.2f} + rest {first - load - step:+.2f}; "
                  f"last {last:.2f} s = load + {tokens} tokens again {prefill:.2f} + rest {last - load - prefill:+.2f}")
        print(f"median of the last stream's rest: {statistics.median(last - load - prefill for _, last, load, prefill, _ in rounds):+.2f} s")
    finally:
        server.terminate()
        server.wait(40)
        os.unlink(log)


if __name__ == "__main__":
    main()
