# Runs a script's phases one after the other, with a log and a summary; sourced by the scripts beside it.
#
# The script defines
#   programs   names and places below a build folder:  declare -A programs=([seer]=apps/seer/seer)
#   flags      its own flags beside --out, --bundle and --build, and --phases, with their defaults:
#              declare -A flags=([masks]="" [phases]=tests=300,masks=60)
#   run_phase  runs "$phase", its programs behind the command prefix "${limited[@]}"; exit code 77: cannot run here
# and calls run_phases "$@". Then ${programs[NAME]} is a path, ${flags[NAME]} a value and $out the folder for results.
# shellcheck shell=bash
PATH+=:/usr/local/cuda/bin  # nvcc and compute-sanitizer, where the toolkit is not on the path
script=$(basename "$0" .sh)
source_folder=$(cd "$(dirname "$0")/../.." && pwd) || exit

read_flags() {
  flags+=([out]="" [bundle]="" [build]=$source_folder/build)
  while [ $# -gt 0 ]; do
    [[ $1 == --* && -v flags[${1#--}] ]] || { echo "$script: unknown flag $1" >&2; exit 2; }
    [ $# -gt 1 ] || { echo "$script: $1: a value must follow" >&2; exit 2; }
    flags[${1#--}]=$2
    shift 2
  done
  out=${flags[out]}
  [ -n "$out" ] || { echo "$script: --out FOLDER: where the results go" >&2; exit 2; }
  mkdir -p "$out" || exit 2
}

find_programs() {  # those of the bundle, or else of the build folder, which is built first
  local bundle=${flags[bundle]} build=${flags[build]}
  if [ -z "$bundle" ]; then
    cmake -S "$source_folder" -B "$build" -G Ninja >/dev/null && ninja -C "$build" "${!programs[@]}" || exit 2
    for name in "${!programs[@]}"; do programs[$name]="$build/${programs[$name]}"; done
    return
  fi
  if [ -f "$bundle" ]; then
    mkdir "$scratch/bundle"
    # Python where tar has no xz.
    tar -C "$scratch/bundle" -xJf "$bundle" 2>/dev/null ||
      python3 -m tarfile -e "$bundle" "$scratch/bundle" || exit 2
    bundle=$scratch/bundle
  fi
  for name in "${!programs[@]}"; do programs[$name]="$bundle/$name"; done
}

write_summary() {
  local gpu
  gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1)
  { printf '{\n "gpu": "%s",\n "phases": [' "${gpu:-none}"
    paste -sd, "$scratch/phases" | sed 's/},{/},\n  {/g; s/^/\n  /'
    printf ' ]\n}\n'; } >"$out/$script.json"
}

start_phase() {  # NAME[=SECONDS], in the background
  (
    phase=${1%%=*}
    limit=0
    [ "$phase" = "$1" ] || limit=${1#*=}
    # shellcheck disable=SC2034  # run_phase reads it
    limited=(timeout -k 5 "$limit")
    begin=$(date +%s.%N)
    run_phase 2>&1 | sed -u "s/^/[$phase] /" >>"$out/log.txt"
    code=${PIPESTATUS[0]}
    case $code in
      0) status=passed ;;
      77) status="cannot run here" ;;
      124 | 137) status=stopped ;;
      *) status=failed ;;
    esac
    printf '{"phase": "%s", "status": "%s", "exit_code": %d, "seconds": %.1f}\n' "$phase" "$status" "$code" \
      "$(awk "BEGIN { print $(date +%s.%N) - $begin }")" >>"$scratch/phases"
    echo "$phase: $status"
  ) &
}

run_phases() {  # exit code 0: all passed
  read_flags "$@"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  find_programs
  : >"$scratch/phases"
  : >"$out/log.txt"
  for group in ${flags[phases]//,/ }; do
    for name in ${group//+/ }; do start_phase "$name"; done
    wait
    write_summary
  done
  ! grep -qv '"status": "passed"' "$scratch/phases"
}
