#!/usr/bin/env python3
"""Tokens per second of two OpenAI-compatible servers in alternating rounds, and their ratio.

Usage: compare_servers.py OURS_URL THEIRS_URL [--rounds 7] [--at-once 1,10] [--requests 10] [--max-tokens 50]

Each round sends the same fresh prompts to one server and then to the other, which goes first alternates. Prompts are
new in every round, so no cache helps. What counts is what the client saw: completion tokens over wall time.
Stdlib only.
"""
import argparse
import concurrent.futures
import http.client
import json
import random
import statistics
import time
import urllib.parse

WORDS = "river stone engine morning letter garden window number music winter silver bridge paper doctor market story".split()


def prompts(seed, count):
    chooser = random.Random(seed)
    return [
        f"Write about {chooser.choice(WORDS)} {chooser.randrange(10**6)}, {chooser.choice(WORDS)} and {chooser.choice(WORDS)}."
        for _ in range(count)
    ]


def complete(url, prompt, max_tokens):
    target = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(target.hostname, target.port, timeout=600)
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{url}: {response.status} {answer}")
    return answer["usage"]["completion_tokens"]


def round_of(url, batch, at_once, max_tokens):
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        tokens = sum(pool.map(lambda prompt: complete(url, prompt, max_tokens), batch))
    return tokens / (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours")
    parser.add_argument("theirs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--at-once", default="1,10")
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=50)
    args = parser.parse_args()
    for at_once in map(int, args.at_once.split(",")):
        rates = {args.ours: [], args.theirs: []}
        ratios = []
        for number in range(args.rounds):
            batch = prompts(f"{time.time()}", max(args.requests, at_once))
            order = [args.ours, args.theirs] if number % 2 == 0 else [args.theirs, args.ours]
            for url in order:
                rates[url].append(round_of(url, batch, at_once, args.max_tokens))
            ratios.append(rates[args.ours][-1] / rates[args.theirs][-1])
        ours, theirs = (statistics.median(rates[url]) for url in (args.ours, args.theirs))
        print(
            f"{at_once:3} at once: ours {ours:6.1f} theirs {theirs:6.1f} tokens/s, ratio of medians {ours / theirs:.3f}, "
            f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
