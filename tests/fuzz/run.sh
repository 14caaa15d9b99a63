#!/bin/sh
# Builds the fuzz targets with clang and runs each for so many seconds; fails on the first crash, leak, hang or
# message that is not one line. Usage: tests/fuzz/run.sh [SECONDS [TARGET...]]
# What is found lies in build-fuzz/findings, inputs of earlier runs in build-fuzz/corpus.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
[ $# -eq 0 ] && set -- safetensors torch pickle tokenizer chat_template documents config
cmake -S tests/fuzz -B build-fuzz -G Ninja -DCMAKE_CXX_COMPILER="${CXX:-clang++-14}" >/dev/null
ninja -C build-fuzz
build-fuzz/make_seeds build-fuzz/seeds
for target in "$@"; do
  mkdir -p "build-fuzz/corpus/$target" build-fuzz/findings "build-fuzz/seeds/$target"
  if [ -d "tests/fuzz/seeds/$target" ]; then cp "tests/fuzz/seeds/$target/"* "build-fuzz/seeds/$target"; fi
  echo "fuzz_$target: $seconds s"
  "build-fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=4096 -max_len=20000 -verbosity=0 \
    -print_final_stats=1 -artifact_prefix="build-fuzz/findings/$target-" "build-fuzz/corpus/$target" \
    "build-fuzz/seeds/$target" 2>"build-fuzz/$target.log" || {
    tail -n 60 "build-fuzz/$target.log" >&2
    exit 1
  }
  grep -E "number_of_executed_units|peak_rss_mb" "build-fuzz/$target.log"
done
