#!/usr/bin/env bash
# What Python makes of the same inputs, for the C++ tests:  make_test_data.sh PYTHON FOLDER
# Every tests/make_*.py writes files of its own below FOLDER; two run at a time, and one that fails fails this.
set -euo pipefail
python=$1 folder=$(realpath -m "$2")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../tests" && pwd)
export OMP_NUM_THREADS=1
printf '%s\0' "$here"/make_*.py | xargs -0 -P 2 -I '{}' "$python" '{}' "$folder"
