#!/usr/bin/env bash
# Build the fuzz targets and run each over its corpus:  run_fuzzers.sh SECONDS [CMAKE ARGUMENT...]
# FUZZ_ONLY="index bundle" runs these alone. What makes one fail is kept in out/cpp/fuzz/failures, and the others are
# run none the less; new inputs are gathered in out/cpp/fuzz/corpus and taken up again by the next run.
set -euo pipefail
seconds=$1
shift
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$(cd "$source/../.." && pwd)/out/cpp/fuzz

cd "$source"
cmake --preset fuzz "$@" > /dev/null
cmake --build --preset fuzz -j "${CPP_JOBS:-2}"

failed=()
mkdir -p "$out/failures"
for target in "$source"/fuzz/*_fuzzer.cc; do
  name=$(basename "$target" _fuzzer.cc)
  [[ " ${FUZZ_ONLY:-$name} " == *" $name "* ]] || continue
  gathered=$out/corpus/$name
  mkdir -p "$gathered"
  log=$out/failures/$name.log
  # An input that takes longer than 20 s or more than 2 GB is a failure too.
  if "$out/fuzz/${name}_fuzzer" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$out/failures/$name-" "$gathered" "$source/fuzz/corpus/$name" > "$log" 2>&1; then
    echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, no failure"
    rm "$log"
  else
    failed+=("$name")
    tail -n 30 "$log"
    echo "$name: FAILED; see $log"
  fi
done
[ ${#failed[@]} = 0 ]
