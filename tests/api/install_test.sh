#!/bin/sh
# Installs a build, builds examples/complete against the installed library, and runs it. Arguments: the build folder, the
# source folder.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cmake --install "$1" --prefix "$folder/seer" >/dev/null
cmake -S "$2/examples/complete" -B "$folder/build" -G Ninja -DCMAKE_PREFIX_PATH="$folder/seer" >/dev/null
cmake --build "$folder/build" >/dev/null
models=$folder/seer/share/seer/models
printf 'def add(a, b):\n    return' |
  "$folder/build/complete" "$models/pico-llama-19m" "$models/pico-llama-19m-gates" 0.5 >"$folder/out" 2>"$folder/log"
grep -q 'density' "$folder/log"
[ -s "$folder/out" ]
"$folder/seer/bin/seer" info | grep -q "$folder/seer/share/seer/models/pico-llama-19m"
