#!/usr/bin/env bash
# The five commands end to end, from nothing: made clips, simulated rooms, a small BAT, its scores.
# Takes about fourteen minutes on two processor cores. Run again after an interruption: it goes on.
#
#   bash examples/quickstart.sh [FOLDER]        default: quickstart
set -euo pipefail
work=${1:-quickstart}

bat prepare demo "$work/data"
bat spatialize "$work/data" --split eval -o "$work/scenes"
[ -e "$work/run/DONE" ] || bat train "$work/data" -o "$work/run" --resume
bat decode "$work/run" "$work/data" --split eval -o "$work/predictions.jsonl"
bat decode "$work/run" "$work/data" --split eval -o "$work/deaf.jsonl" --zero-audio   # a control

echo
echo "Questions about rooms and sounds that the model has never heard; beside it the controls:"
echo "the same model with its audio tokens zeroed, and random answers."
echo
bat score "$work/predictions.jsonl" "$work/deaf.jsonl" --baseline random
