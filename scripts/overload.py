#!/usr/bin/env python3
"""What a storm of requests does: goodput, refusals, deadlines, memory, and urgent requests among them; judged.

Usage: overload.py SERVER MODEL [--seconds 300] [--calm 60] [--factor 10] [--timeout-s 20] [--tokens 50] [--set KEY=VALUE ...] [--log FILE]

Measures the first token of an urgent request on an idle server and the goodput of 16 clients, one request after the other each.
Then requests arrive at FACTOR times the rate at which those were answered, for SECONDS, whether or not others have been
answered, each with `timeout_ms`; every 5 seconds an urgent one (`priority` -100) comes, too. Goodput is tokens of answers that
arrived whole within their deadline. Times are those of a client thread here, on the same processors. Standard library only.

At the end each line is printed with its limit, what was measured, and whether it was met; one that was missed ends it with exit
code 1. What could not be measured (no half minute, no sample) is missed, too, but for refusals of which there were none.

`--factor 1 --seconds 1800` is a long run at capacity: a steady load that arrives as fast as it was answered before, for the
flatness of memory. Few or no requests are refused then. Goodput depends there on whether the machine is as fast as in the calm
minute, of which `--calm 120` makes a better figure.
"""
import argparse
import http.client
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import zip_longest
from pathlib import Path

from prompts import words

AT_ONCE = 16
MEMORY_EVERY = 5
# Seconds of the storm in which memory still grows to its working size.
MEMORY_SETTLES = 30
SOME_TEXT = re.compile(rb'"content":"[^"]')
# By hand, because `http.client` takes as long for an answer as the server does.
HEAD = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\nCache-Control: no-store\r\n"
        b"Content-Type: application/json\r\nContent-Length: ")


class Storm:
    """What the clients saw; one for each phase."""

    def __init__(self, port, args):
        self.port, self.args, self.lock = port, args, threading.Lock()
        self.ends, self.refused_ms, self.answered = Counter(), [], []
        self.first_ms = {"urgent": [], "others": []}
        self.head = HEAD % port

    def ask(self, priority=0):
        body = {
            "messages": [{"role": "user", "content": f"{words(12)} {random.random()}"}],
            "max_tokens": self.args.tokens, "temperature": 0, "ignore_eos": True, "stream": True, "priority": priority,
            "timeout_ms": self.args.timeout_s * 1000,
        }
        request = self.head + b"%d\r\n\r\n%b" % (len(text := json.dumps(body).encode()), text)
        sent, first, answer = time.monotonic(), None, b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=self.args.timeout_s + 10) as connection:
                connection.sendall(request)
                while piece := connection.recv(65536):
                    answer += piece
                    if first is None and SOME_TEXT.search(answer):
                        first = time.monotonic()
            end = end_of(answer)
        except OSError as error:
            end = type(error).__name__
        now = time.monotonic()
        with self.lock:
            self.ends[("urgent " if priority < 0 else "") + end] += 1
            if end == "answered":
                self.answered.append(now)
            if end.startswith("429"):
                self.refused_ms.append((now - sent) * 1000)
            if first:
                self.first_ms["urgent" if priority < 0 else "others"].append((first - sent) * 1000)
        return end


def end_of(answer):
    """What a whole answer comes to."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head[9:12].decode() or "nothing"
    if status != "200":
        return status + ("" if b"\r\nretry-after:" in head.lower() else " without Retry-After")
    if error := re.search(rb'"error".*?"code":"(\w+)"', body):
        return f"error {error[1].decode()}"
    return "answered" if b"data: [DONE]" in body else "cut"


def percentile(samples, percent):
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * percent / 100))] if samples else float("nan")


def resident_mb(pid):
    """Of the process and its children."""
    children = " ".join(map(text_of, Path(f"/proc/{pid}/task").glob("*/children")))
    pids = [pid, *sorted(set(map(int, children.split())))]
    return [size for each in pids if (size := resident_of(each))]


def text_of(path):
    """Empty where a process or thread has just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def resident_of(pid):
    """None for a process that has just ended."""
    size = re.search(r"VmRSS:\s+(\d+)", text_of(Path(f"/proc/{pid}/status")))
    return round(int(size.group(1)) / 1024, 1) if size else None


def cpu_of(pid):
    """Seconds that the process has computed, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def until(end, storm):
    while time.monotonic() < end:
        storm.ask()


def calm(port, args):
    """Urgent first token on an idle server in ms, and requests answered per second at full load."""
    idle = Storm(port, args)
    for _ in range(7):
        idle.ask(priority=-100)
    storm = Storm(port, args)
    began = time.monotonic()
    clients = [threading.Thread(target=until, args=(began + args.calm, storm)) for _ in range(AT_ONCE)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    print("calm:", dict(storm.ends), flush=True)
    return statistics.median(idle.first_ms["urgent"]), len(storm.answered) / (max(storm.answered) - began)


def storm_of(port, pid, args, rate):
    storm, began, number = Storm(port, args), time.monotonic(), 0
    clients, next_urgent, resident = [], 5.0, [resident_mb(pid)]
    while (passed := time.monotonic() - began) < args.seconds:
        if passed >= MEMORY_EVERY * len(resident):
            resident.append(resident_mb(pid))
            clients = [client for client in clients if client.is_alive()]
        if passed >= next_urgent:
            clients.append(threading.Thread(target=storm.ask, args=(-100,)))
            clients[-1].start()
            next_urgent += 5.0
        if passed * rate >= number:
            clients.append(threading.Thread(target=storm.ask))
            clients[-1].start()
            number += 1
        else:
            time.sleep(max(0.0, min(number / rate, next_urgent, MEMORY_EVERY * len(resident)) - passed))
    for client in clients:
        client.join()
    halves = Counter(int((at - began) // 30) for at in storm.answered)
    return storm, resident, [halves[half] * args.tokens / 30 for half in range(int(args.seconds // 30))]


def judge(args, storm, resident, goodput, calm_goodput, idle_ms):
    """Prints each line; whether all are met."""
    urgent, refused = storm.first_ms["urgent"], percentile(storm.refused_ms, 99) if storm.refused_ms else 0.0
    late = sum(count for end, count in storm.ends.items() if any(word in end for word in ("deadline", "408", "Timeout")))
    soon = idle_ms + 2 * max_step_ms(args.set)
    share = statistics.median(goodput) / calm_goodput if goodput else float("nan")
    fine = ("answered", "429", "408", "error deadline_exceeded")
    lost = sum(count for end, count in storm.ends.items() if end.removeprefix("urgent ") not in fine)
    lines = [
        ("ends other than answers, refusals and deadlines", "<=", 0, lost),
        ("goodput, median of half minutes over calm", ">=", 0.95, share),
        ("admitted requests that missed their deadline", "<=", 0, late),
        ("refusals with 429, p99, ms", "<=", 50, refused),
        ("first token of urgent requests, p50, ms", "<=", soon, percentile(urgent, 50)),
        ("first token of urgent requests, p90, ms", "<=", soon, percentile(urgent, 90)),
        *((f"resident memory of the {who}, last third over first", "<=", 1.05, growth)
          for who, growth in zip_longest(("server", "engine"), growths(resident), fillvalue=float("nan"))),
    ]
    verdicts = [measured >= limit if sign == ">=" else measured <= limit for _, sign, limit, measured in lines]
    for (name, sign, limit, measured), met in zip(lines, verdicts):
        print(f"{name:<52} {sign} {limit:<8.4g} {measured:<10.4g} {'met' if met else 'MISSED'}")
    return all(verdicts)


def growths(resident):
    """Of each process: median memory in the last third of the storm over that in the first, when it has settled."""
    # While an engine is being replaced its size is not there to be compared.
    settled = [sizes for sizes in resident[MEMORY_SETTLES // MEMORY_EVERY:] if len(sizes) == len(resident[0])]
    third = len(settled) // 3
    if not third:
        return [float("nan")] * len(resident[0])
    first, last = zip(*settled[:third]), zip(*settled[-third:])
    return [statistics.median(after) / statistics.median(before) for before, after in zip(first, last)]


def max_step_ms(sets):
    """As the server has it: the default, or what --set says last."""
    given = [pair.split("=", 1)[1] for pair in sets if pair.startswith("scheduler.max_step_ms=")]
    return int(given[-1]) if given else 60


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=9177)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--calm", type=float, default=60)
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument("--timeout-s", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--log", default="/dev/null", help="where the server's log goes")
    args = parser.parse_args()
    args.timeout_s = int(args.timeout_s)
    if args.factor <= 0 or args.seconds < 60:
        parser.error("--factor must be over 0 and --seconds at least 60: memory is compared after half a minute")
    sets = [word for pair in args.set for word in ("--set", pair)]
    command = [args.server, "serve", "--model", args.model, "--port", str(args.port), *sets]
    with open(args.log, "wb") as log:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    try:
        wait_until_ready(args.port)
        idle_ms, rate = calm(args.port, args)
        print(f"capacity {rate:.2f} requests/s, {rate * args.tokens:.1f} tokens/s; urgent first token when idle {idle_ms:.0f} ms", flush=True)
        spent, began = (cpu_of(server.pid), time.process_time()), time.monotonic()
        storm, resident, goodput = storm_of(args.port, server.pid, args, rate * args.factor)
        passed = time.monotonic() - began
        shares = ((cpu_of(server.pid) - spent[0]) / passed, (time.process_time() - spent[1]) / passed)
        print("storm:", dict(storm.ends))
        print("goodput by half minutes, tokens/s:", " ".join(f"{each:.1f}" for each in goodput))
        print(f"goodput against calm: median {statistics.median(goodput) / rate / args.tokens:.3f}, whole {statistics.mean(goodput) / rate / args.tokens:.3f}")
        print("refusals, ms:", " ".join(f"p{p} {percentile(storm.refused_ms, p):.1f}" for p in (50, 90, 99)), f"max {max(storm.refused_ms, default=0):.1f}")
        for who, times in storm.first_ms.items():
            print(f"first token, {who}, ms:", " ".join(f"p{p} {percentile(times, p):.0f}" for p in (50, 90, 99)), f"idle {idle_ms:.0f}")
        print("cores taken from the engine: by the server's actors {:.2f}, by these clients {:.2f}".format(*shares))
        for who, sizes in zip(("server", "engine"), zip(*resident[::60 // MEMORY_EVERY], resident_mb(server.pid))):
            print(f"resident by minutes, MB, {who}:", *sizes)
        met = judge(args, storm, resident, goodput, rate * args.tokens, idle_ms)
    finally:
        server.terminate()
        server.wait(40)
    return 0 if met else 1


def wait_until_ready(port):
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server does not become ready")


if __name__ == "__main__":
    sys.exit(main())
