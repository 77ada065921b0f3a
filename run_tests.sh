#!/usr/bin/env bash
# Set up on a fresh machine where needed, then run the tests. Arguments go to pytest: ./run_tests.sh --slow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. tools/environment.sh
exec "$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
