#!/usr/bin/env bash
# Train one method on every fold and with every number of shots. Edit the variables, or set them in the
# environment; arguments are passed on as overrides:
#   ./train.sh
#   METHOD=pspnet FOLDS="0" ./train.sh batch_size 4 workers 2
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

DATA=${DATA:-pascal}             # a folder of config/: pascal, coco, shapes
METHOD=${METHOD:-bam}            # pspnet is the base learner, which bam needs first
BACKBONE=${BACKBONE:-resnet50}
FOLDS=${FOLDS:-0 1 2 3}
SHOTS=${SHOTS:-1 5}
PROCESSES=${PROCESSES:-1}        # GPUs of this machine to train on; the batch size stays the config's
OVERWRITE=${OVERWRITE:-}         # 1: train all anew; else what is finished is kept, and what was stopped goes on
[ -n "${PYTHON:-}" ] || . tools/environment.sh

if [[ $METHOD == pspnet ]]; then # a base learner sees no episodes
    SHOTS=1
fi
begin=(--opts resume auto)
if [[ $OVERWRITE ]]; then
    begin=(--overwrite --opts)
fi
launch=("$PYTHON")
if ((PROCESSES > 1)); then
    launch=("$PYTHON" tools/launch.py --standalone --nproc-per-node "$PROCESSES")
fi

for fold in $FOLDS; do
    for shot in $SHOTS; do
        echo "== $METHOD $BACKBONE on $DATA: fold $fold, $shot-shot"
        "${launch[@]}" train.py --config "config/$DATA/${METHOD}_$BACKBONE.yaml" \
            "${begin[@]}" split "$fold" shot "$shot" "$@"
    done
done
