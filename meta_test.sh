#!/usr/bin/env bash
# Test one method on every fold and with every number of shots, and print the table. Edit the variables, or set
# them in the environment; arguments are passed on as overrides:
#   ./meta_test.sh
#   SHOTS="1" ./meta_test.sh cache_gib 16
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

DATA=${DATA:-pascal}             # a folder of config/: pascal, coco, shapes
METHOD=${METHOD:-bam}
BACKBONE=${BACKBONE:-resnet50}
FOLDS=${FOLDS:-0 1 2 3}
SHOTS=${SHOTS:-1 5}
[ -n "${PYTHON:-}" ] || . tools/environment.sh

read -ra folds <<<"$FOLDS"
read -ra shots <<<"$SHOTS"
overrides=()
if (($# > 0)); then
    overrides=(--opts "$@")
fi

"$PYTHON" test.py --config "config/$DATA/${METHOD}_$BACKBONE.yaml" \
    --folds "${folds[@]}" --shots "${shots[@]}" ${overrides[@]+"${overrides[@]}"}
