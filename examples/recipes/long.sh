#!/usr/bin/env bash
# The quickstart with more of everything (long.toml): about an hour on two processor cores.
# Run again after an interruption: it goes on. RUN/curves.png (with the `plot` extra) is its course.
#
#   bash examples/recipes/long.sh [FOLDER]        default: long
set -euo pipefail
work=${1:-long}
recipe="$(dirname "$0")/long.toml"

bat prepare demo "$work/data" --config "$recipe"
[ -e "$work/run/DONE" ] || bat train "$work/data" -o "$work/run" --config "$recipe" --resume
bat decode "$work/run" "$work/data" --split eval -o "$work/predictions.jsonl"
bat score "$work/predictions.jsonl" --baseline random
