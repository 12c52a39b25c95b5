#!/usr/bin/env bash
# Put your own sound into your own room, and ask about it.
#
#   bash examples/own_files.sh RUN CLIP.wav BRIR.npy "QUESTION"
#
# RUN is what `bat train` made (examples/quickstart.sh leaves one in quickstart/run); CLIP any mono
# or stereo recording (the first channel is used); BRIR a NumPy array (2, T) at 32 kHz, left ear first.
set -euo pipefail
run=$1 clip=$2 brir=$3 question=${4:-"Where does the sound come from, and how far away is it?"}

scene=$(mktemp --suffix .wav)
trap 'rm -f "$scene"' EXIT
bat spatialize --audio "$clip" --reverb "$brir" -o "$scene"
bat decode "$run" --audio "$scene" --question "$question"
