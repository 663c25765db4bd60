#!/usr/bin/env bash
# The checks whose tools cargo does not bring: each runs where its tool is installed, and is named where it is not.
# `scripts/setup.py lint` installs cargo-deny and typos; with CI=true a missing cargo-deny is a failure.
set -uo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.tools/bin:$PWD/.tools/venv/bin:$PATH
status=0

check() { # check TOOL COMMAND ...
    local tool=$1
    shift
    if ! command -v "$tool" >/dev/null; then
        echo "lint: $tool is not installed, its check is left out"
        return
    fi
    echo "$*"
    "$@" || status=1
}

if [[ ${CI:-} ]] && ! command -v cargo-deny >/dev/null; then
    echo "lint: error: CI needs cargo-deny"
    exit 1
fi
check cargo-deny cargo-deny --locked --log-level error check --hide-inclusion-graph bans licenses sources
check cargo-machete cargo-machete
check typos typos
exit $status
