# Choose a Python with everything in requirements-dev.txt, which includes requirements.txt; sourced by
# quickstart.sh, run_tests.sh, train.sh and meta_test.sh.
#
# An active virtual or conda environment is used as it is; otherwise .venv beside this project is made once.
# FEWSEG_PYTHON names the interpreter that makes it. Nothing is downloaded once the requirements are met.
# Sets PYTHON. The caller has changed to the project's root.

environment_python() {
    local candidate
    for candidate in ${FEWSEG_PYTHON:-python3 python3.12 python3.11 python3.10}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.10 to 3.12 found; install one, or set FEWSEG_PYTHON to its path" >&2
    return 1
}

if [ -n "${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" ]; then
    PYTHON=python
    stamp="${VIRTUAL_ENV:-$CONDA_PREFIX}/.fewseg-requirements"
else
    if [ ! -x .venv/bin/python ]; then
        interpreter=$(environment_python)
        echo "Making .venv with $("$interpreter" --version)"
        "$interpreter" -m venv .venv
    fi
    PYTHON=$PWD/.venv/bin/python
    stamp=.venv/.fewseg-requirements
fi
if ! cat requirements.txt requirements-dev.txt | cmp -s - "$stamp"; then
    echo "Installing the requirements (some minutes and gigabytes the first time)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
    cat requirements.txt requirements-dev.txt >"$stamp"
fi
