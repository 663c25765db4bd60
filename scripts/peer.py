#!/usr/bin/env python3
"""Serves a model with llama.cpp's own HTTP server, the peer that `make bench` measures cLLM against.

It needs the package xllamacpp, which carries that server; `scripts/bench.py` installs it into `.tools/peer`. Prints
`ready <URL>` when it listens, and ends when its standard input closes, so that nobody can leave it behind.
"""
from __future__ import annotations

import argparse
import os
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True, help="compute threads")
    parser.add_argument("--sequences", type=int, required=True, help="requests that run at once")
    parser.add_argument("--context", type=int, required=True, help="tokens of KV over all sequences")
    args = parser.parse_args()
    server = serve(args)
    print(f"ready {server.listening_address}", flush=True)
    while sys.stdin.buffer.read(4096):
        pass
    # The server's threads have nothing to save, and joining them may wait for a request.
    os._exit(0)


def serve(args: argparse.Namespace):
    """Starts the server and waits until it listens."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.hostnames, params.port = ["127.0.0.1"], args.port
    params.n_parallel, params.n_ctx = args.sequences, args.context
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = args.threads
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
