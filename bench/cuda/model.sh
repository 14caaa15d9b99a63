#!/usr/bin/env bash
# Measures whole models of random weights on this machine's Hopper GPU beside Hugging Face transformers: time to first
# token, dense and sparse, and decode.
#
#   bench/cuda/model.sh --out FOLDER [--bundle ARCHIVE_OR_FOLDER | --build FOLDER] [--phases LIST] [--shape NAME]
#                       [--lengths LIST] [--densities LIST] [--contexts LIST] [--peer-seconds N]
#
# Programs: those of a bundle (scripts/make_bundle.sh), or else of a build folder (default: build), which is built first.
# --phases: phases separated by commas, run one after the other; NAME=SECONDS stops each program of a phase after that
# time. The default is in `flags` below.
#
#   prefill  seer bench model --lengths, dense and at every one of --densities; a program and a file for each length, so
#            that what was measured stays
#   decode   seer bench model --contexts
#   peers    transformers with attention by cuDNN and by FlashAttention-2, at the same lengths and contexts, of which
#            what would end after --peer-seconds is left out; needs torch with CUDA and transformers
#   table    tables and figure of whatever was measured before
#
# FOLDER gets model.json (what passed, failed, was stopped or could not run, with seconds), log.txt, prefill_LENGTH.json,
# decode.json, peers.jsonl, table.md, first_token.svg and joined.json. Exit code 0: all passed.
set -u
# shellcheck source=bench/cuda/phases.sh
. "$(dirname "$0")/phases.sh"

declare -A programs=([seer]=apps/seer/seer)
declare -A flags=([shape]="llama-3.1-8b" [lengths]="4096,8192,16384,32768,65536,131072" [densities]="0.5,0.3,0.15,0.1"
  [contexts]="8192,32768" [peer-seconds]=150 [phases]="prefill=120,decode=60,peers=240,table=30")

bench() {  # NAME FLAG...
  local name=$1
  shift
  "${limited[@]}" "${programs[seer]}" bench model --device cuda --shape "${flags[shape]}" --json "$out/$name.json" "$@"
}

run_phase() {  # runs $phase under the command prefix $limited; 77: cannot run here
  local code=0
  case $phase in
    prefill)
      for length in ${flags[lengths]//,/ }; do
        bench "prefill_$length" --lengths "$length" --max-context "$length" --densities "${flags[densities]}" || code=$?
      done
      return $code ;;
    decode) bench decode --contexts "${flags[contexts]}" ;;
    peers)
      python3 -c 'import torch, transformers; assert torch.cuda.is_available()' || return 77
      "${limited[@]}" python3 -u "$source_folder/bench/peers/model_cuda_transformers.py" --shape "${flags[shape]}" \
        --lengths "${flags[lengths]}" --contexts "${flags[contexts]}" --budget-seconds "${flags[peer-seconds]}" \
        >"$out/peers.jsonl" ;;
    table)
      local results=()
      for file in "$out"/prefill_*.json "$out"/decode.json "$out"/peers.jsonl; do
        [ ! -s "$file" ] || results+=("$file")
      done
      [ ${#results[@]} -gt 0 ] || return 77
      "${limited[@]}" python3 "$source_folder/bench/peers/model_cuda_table.py" "${results[@]}" \
        --svg "$out/first_token.svg" --json "$out/joined.json" >"$out/table.md" ;;
    *) echo "unknown phase $phase"; return 2 ;;
  esac
}

run_phases "$@"
