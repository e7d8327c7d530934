#!/usr/bin/env bash
# What Python makes of the same inputs, for the C++ tests:  make_test_data.sh PYTHON FOLDER
# Every tests/make_*.py writes a folder of its own below FOLDER.
set -euo pipefail
python=$1 folder=$(realpath -m "$2")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../tests" && pwd)
for script in "$here"/make_*.py; do
  OMP_NUM_THREADS=1 "$python" "$script" "$folder"
done
