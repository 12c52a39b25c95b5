#!/usr/bin/env bash
# The published system from the released files: import, train the encoder and measure it, add source tokens to it,
# train stages 1 to 3, answer the test set and score it, with the published figures beside.
# Run again after an interruption: it goes on.
#
#   bash examples/published.sh SpatialSoundQA Llama-2-7b-hf [FOLDER]        default: published
#
# SpatialSoundQA: the released tree, with AudioSet/, mp3d_reverb/ and closed-end/. In the environment:
#   BAT             the command [bat]; for several GPUs: accelerate launch -m batcli
#   ENCODER_OPTIONS of the encoder's training, such as --encoder-init pretrained.pth (AudioMAE)
#   OPTIONS         of the training after it, such as --precision bf16
#   STAGES          of that training [sources,1,2,3]; 1,2,3 is the published model without source tokens
set -euo pipefail
tree=$1 llm=$2 work=${3:-published}
read -ra bat <<< "${BAT:-bat}"
read -ra encoder_options <<< "${ENCODER_OPTIONS:-}"
read -ra options <<< "${OPTIONS:-}"
stages=${STAGES:-sources,1,2,3}
closed=$tree/closed-end reverb=$tree/mp3d_reverb metadata=$tree/AudioSet/metadata
roots=(--audio-root "$tree/AudioSet" --reverb-root "$reverb" --labels "$metadata/class_labels_indices_subset.csv")

# The file of stage 3 holds the questions of all stages.
"${bat[@]}" prepare import "$work/data" "$closed/stage3-mixup/train.json" --split train "${roots[@]}" \
    --clips "$metadata/balanced.json" --reverbs "$reverb/train_reverberation.json"
"${bat[@]}" prepare import "$work/data" "$closed"/*/eval-*.json --split eval "${roots[@]}" \
    --clips "$metadata/eval.json" --reverbs "$reverb/eval_reverberation.json"

[ -e "$work/encoder/DONE" ] || "${bat[@]}" train "$work/data" -o "$work/encoder" --preset llama2-7b --recipe as-20k \
    --stages encoder --resume "${encoder_options[@]}"
"${bat[@]}" decode "$work/encoder" "$work/data" --encoder -o "$work/heard.jsonl"
"${bat[@]}" score "$work/heard.jsonl" --published

[ -e "$work/run/DONE" ] || "${bat[@]}" train "$work/data" -o "$work/run" --init "$work/encoder" --llm "$llm" \
    --stages "$stages" --resume "${options[@]}"
"${bat[@]}" decode "$work/run" "$work/data" --num-beams 4 -o "$work/predictions.jsonl"
"${bat[@]}" score "$work/predictions.jsonl" --published
