#!/usr/bin/env bash
# From a fresh clone to a trained, tested and reported few-shot model, on the embedded Shapes data set.
#
#   ./quickstart.sh                      # fold 0: 15 minutes or less on two CPU cores, after the installation
#   ./quickstart.sh --folds 0 1 2 3      # all folds
#   ./quickstart.sh --from-scratch       # forget earlier trainings
#
# What is already there is reused; an interrupted training goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

FOLDS=(0)
SCRATCH=false
while [ $# -gt 0 ]; do
    case $1 in
        --folds)
            shift
            FOLDS=()
            while [ $# -gt 0 ] && [[ $1 =~ ^[0-3]$ ]]; do FOLDS+=("$1"); shift; done
            [ ${#FOLDS[@]} -gt 0 ] || { echo "error: --folds wants some of 0 1 2 3" >&2; exit 2; }
            ;;
        --from-scratch) SCRATCH=true; shift ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
        *) echo "error: unknown argument $1; try --help" >&2; exit 2 ;;
    esac
done

. tools/environment.sh

BASE=exp/shapes/pspnet_resnet18
META=exp/shapes/bam_resnet18
if $SCRATCH; then
    for fold in "${FOLDS[@]}"; do rm -rf "$BASE/split$fold" "$META/split${fold}_shot1"; done
fi

echo "1/4 Drawing the Shapes data set into data/shapes"
"$PYTHON" tools/prepare_data.py shapes --root data/shapes
for fold in "${FOLDS[@]}"; do
    echo "2/4 Training the base learner of fold $fold (stage 1)"
    "$PYTHON" train.py --config config/shapes/pspnet_resnet18.yaml --opts split "$fold" resume auto
    echo "3/4 Training BAM on fold $fold (stage 2)"
    "$PYTHON" train.py --config config/shapes/bam_resnet18.yaml --opts split "$fold" shot 1 resume auto
done
echo "4/4 Testing"
"$PYTHON" test.py --config config/shapes/bam_resnet18.yaml --folds "${FOLDS[@]}" --shots 1 --untrained --out exp/shapes/quickstart

cat <<END

Done. The table above is in exp/shapes/quickstart/tables, the report with pictures in exp/shapes/quickstart/report.html.
Next:
  tensorboard --logdir exp/shapes                                     (pip install tensorboard) watch the curves
  ./meta_test.sh                                                      the loop over folds and shots, to edit
  .venv/bin/python predict.py --help                                  segment your own images
  .venv/bin/python tools/prepare_data.py --help                       PASCAL-5i, COCO-20i, FSS-1000, your own folder
END
