"""Kills the engine process of a running server in the middle of 16 streams: every stream must come to its right end.

Usage: survive_kill.py URL. The server must run on this machine, with its engine in a process of its own. Standard library only.

Checked: 16 answers of the asked length, each with its last chunk, `[DONE]` and `"resumed": 1`, and at least half of them equal,
to the last character, to what the same request gave undisturbed and alone. Not all, because in a batch floating-point sums come
out in another order, so a greedy choice between two nearly equal tokens may fall the other way, with or without a kill; the
prompts count, where the model is sure of itself. That no token is lost or repeated is proved with the fake engine (tests/it).
"""
import json
import os
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

STREAMS = 16
TOKENS = 64
KILL_AFTER = 24
# Every answer is to be computed.
HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


def stream(url, prompt, on_chunk):
    """Runs one request; returns its chunks' texts, its last JSON chunk, and the times of arrival."""
    body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), HEADERS)
    texts, times, last, done = [], [], {}, False
    with urllib.request.urlopen(request, timeout=300) as response:
        for line in response:
            if line.startswith(b"data: [DONE]"):
                done = True
            elif line.startswith(b"data: "):
                last = json.loads(line[6:])
                if "error" in last:
                    raise RuntimeError(last["error"])
                texts.extend(choice["text"] for choice in last["choices"])
                times.append(time.monotonic())
                on_chunk()
    if not done:
        raise RuntimeError("no [DONE]")
    return "".join(texts), last, times


def engine_of(url):
    """The engine process of the server that listens at this URL: the one with our arguments and that server's session."""
    engines = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (directory / "cmdline").read_bytes().split(b"\0")
            parent = int((directory / "stat").read_text().rsplit(") ", 1)[1].split()[1])
        except OSError:
            continue
        if arguments[1:3] == [b"engine", b"--over-pipes"] and listens(parent, int(url.rsplit(":", 1)[1])):
            engines.append(int(directory.name))
    if len(engines) != 1:
        raise RuntimeError(f"{len(engines)} engine processes belong to {url}")
    return engines[0]


def listens(pid, port):
    """Whether the process holds a socket that listens on the port."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
    links = (os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    return any(link in inodes for link in links)


def main():
    url = sys.argv[1].rstrip("/")
    prompts = [", ".join(str(number) for number in range(start, start + 12)) + "," for start in range(1, 1 + 3 * STREAMS, 3)]
    undisturbed = [stream(url, prompt, lambda: None)[0] for prompt in prompts]
    chunks, kill = [0], threading.Event()

    def count():
        chunks[0] += 1
        if chunks[0] >= KILL_AFTER * STREAMS:
            kill.set()

    answers = [None] * STREAMS

    def run(number):
        try:
            answers[number] = stream(url, prompts[number], count)
        except Exception as error:  # told below, with all others
            answers[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(STREAMS)]
    for thread in threads:
        thread.start()
    if not kill.wait(240):
        raise RuntimeError("the streams do not run")
    os.kill(engine_of(url), signal.SIGKILL)
    for thread in threads:
        thread.join(300)
    failures = [f"stream {number}: {answer!r}" for number, answer in enumerate(answers) if not isinstance(answer, tuple)]
    for number, answer in enumerate(answers):
        if isinstance(answer, tuple):
            _, last, _ = answer
            if last["usage"]["completion_tokens"] != TOKENS:
                failures.append(f"stream {number}: {last['usage']}")
            if last.get("resumed") != 1:
                failures.append(f"stream {number}: resumed is {last.get('resumed')}")
    equal = sum(isinstance(answer, tuple) and answer[0] == expected for answer, expected in zip(answers, undisturbed))
    if equal < STREAMS / 2:
        failures.append(f"only {equal} of {STREAMS} are equal to the undisturbed answers")
    for failure in failures:
        print(f"survive_kill: FAILED: {failure}")
    if not failures:
        pause = max(later - earlier for _, _, times in answers for earlier, later in zip(times, times[1:]))
        print(f"survive_kill: {STREAMS} of {STREAMS} streams complete after kill -9 of the engine, {equal} of them equal to the "
              f"undisturbed answer to the last character, longest pause {pause:.2f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
