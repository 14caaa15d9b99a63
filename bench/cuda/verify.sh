#!/usr/bin/env bash
# Verifies and measures the CUDA kernels on this machine's Hopper GPU: tests, compute-sanitizer, benchmarks beside their
# peers, repeated bits.
#
#   bench/cuda/verify.sh --out FOLDER [--bundle ARCHIVE_OR_FOLDER | --build FOLDER] [--phases LIST]
#                        [--masks FOLDER --mask-shape HEADS,KV_HEADS,TOKENS]
#
# Programs: those of a bundle (scripts/make_bundle.sh), or else of a build folder (default: build), which is built first.
# LIST: phases separated by commas, run one after the other; those joined by + run side by side (not the timed ones);
# NAME=SECONDS stops each program of a phase after that time. The default is in `phases` below.
#
#   tests                            every test of the kernels against float64
#   memcheck, initcheck, synccheck   compute-sanitizer over tests of every kind (`prefill_cases`, ... below)
#   prefill, masks, shapes, decode   seer bench attention, every case checked against float64; decode also with its gate
#   gate                             seer bench gate, and sparse attention with the gate's time in it
#   target                           pooled attention, and bench distill, whose losses are compared with the CPU's
#   gates                            the same with masks saved from real gates, --masks FOLDER/*.mask
#   peers                            cuDNN, FlashAttention-2, FlexAttention, Triton; needs torch with CUDA
#   same-bits                        1000 runs of 131072 tokens at density 0.1 beside copies in memory
#
# FOLDER gets verify.json (what passed, failed, was stopped or could not run, with seconds), log.txt, tests.json and the
# records of the benchmarks; bench/peers/attention_cuda_table.py turns these into tables. Exit code 0: all passed.
set -u
# shellcheck source=bench/cuda/phases.sh
. "$(dirname "$0")/phases.sh"

declare -A programs=([seer]=apps/seer/seer [cuda_test]=tests/cuda/cuda_test)
phases=tests=300,memcheck=600+initcheck=600+synccheck=600,prefill=300,masks=120,shapes=120,decode=120,gate=120,target=120,peers=600
phases+=,same-bits=120
declare -A flags=([masks]="" [mask-shape]="" [phases]=$phases)
# Tests for compute-sanitizer: small, of every kind of case.
prefill_cases="dense_1 random_63 random_64 random_65 dense_129 dense_F16_d64 random_BF16_d64 large_values_F16_d128
  gqa_1_random gqa_5_random gqa_7_dense gqa_16_random full_mask empty_mask diagonal_only first_block_only empty_rows
  sink_local disjoint_heads one_head_of_a_pair_empty one_dense_head batch batch_with_empty batch_with_empty_dense
  no_query_of_some offset_63_random offset_64_dense one_query_of_many_keys paged_random paged_f16_d64_gqa5_dense
  group_mask_2 group_mask_3 batch_odd_3 offset_63_odd_1"
target_cases="gqa_4 gqa_5 tokens_1 tokens_63 tokens_64 tokens_65 offset_640 plain_F16_d64"
decode_gate_cases="tokens_1 tokens_64 tokens_4097 group_7_d64 dim_96 dim_256 fp16"
decode_cases="dense_1 random_65 dense_200 group_5 group_16 F16_d64 splits_1 splits_7 ragged ragged_dense nothing_selected"

join_cases() {  # PREFIX CASE... -> a filter of exactly these
  local prefix=$1 filter=""
  shift
  for name in "$@"; do filter+=:$prefix$name; done
  echo "${filter#:}"
}
# shellcheck disable=SC2086
{
  sanitized=$(join_cases Cases/Prefill.MatchesFloat64/ $prefill_cases)
  sanitized+=:$(join_cases Cases/Decode.MatchesFloat64/ $decode_cases)
  sanitized+=:$(join_cases 'Cases/DecodeGateCase.*/' $decode_gate_cases)
  sanitized+=:$(join_cases 'Cases/PooledTarget.*/' $target_cases)
  sanitized+=':Cases/GateTrain.OneStepHasTheCpusGradient/two_matrices*'
  sanitized+=':RopeStore.*:RopeTable.*:Cases/RopePool.MatchesFloat64/heads_5_1:Gate.*:Select.*:Cases/GateSelectCase.*/chunk*:Cases/GateSelectCase.*/some_heads*'
  sanitized+=':CudaModel.ChunksGiveTheLossesOfOneShot:CudaModel.DecodingContinuesAPrefill:CudaModel.ObserversSee*'
  sanitized+=':DecodeGate.*:CudaDecodeGate.ARaggedBatch*:CudaDecodeGate.RefusesMixesAndGaps:CudaSample.*'
}

bench() {  # NAME FLAG...
  local name=$1
  shift
  "${limited[@]}" "${programs[seer]}" bench attention --device cuda --check --json "$out/$name.json" "$@"
}

run_phase() {  # runs $phase under the command prefix $limited; 77: cannot run here
  local llama=(--heads 32 --kv-heads 8)
  case $phase in
    tests)
      "${limited[@]}" "${programs[cuda_test]}" --gtest_output=json:"$out/tests.json" || return
      ! grep -q '"result": "SKIPPED"' "$out/tests.json" || return 77 ;;
    memcheck | initcheck | synccheck)
      command -v compute-sanitizer >/dev/null || return 77
      local filter=$sanitized
      # initcheck takes whatever a cuBLASLt product has written for uninitialised.
      [ "$phase" != initcheck ] || filter+=-CudaModel.*:CudaDecodeGate.*
      "${limited[@]}" compute-sanitizer --tool "$phase" --error-exitcode 1 "${programs[cuda_test]}" \
        --gtest_filter="$filter" ;;
    prefill)
      bench prefill "${llama[@]}" --lengths 8192,32768,131072 --densities 0.5,0.4,0.3,0.2,0.1 ;;
    masks)
      bench masks "${llama[@]}" --lengths 8192,32768 --densities 0.5,0.2,0.1 \
        --masks group_random,local,uneven,dense_head ;;
    shapes)
      bench shape_d64 "${llama[@]}" --head-dim 64 --lengths 8192,32768 --densities 0.5,0.1 &&
        bench shape_mha --heads 32 --kv-heads 32 --lengths 8192,32768 --densities 0.5,0.1 &&
        bench shape_gqa7 --heads 28 --kv-heads 4 --lengths 8192,32768 --densities 0.5,0.1 &&
        bench shape_fp16 "${llama[@]}" --dtype float16 --lengths 8192,32768 --densities 0.5,0.1 ;;
    decode) bench decode "${llama[@]}" --op decode --lengths 8192,32768,131072 --densities 0.1 --masks gate ;;
    gate)
      "${limited[@]}" "${programs[seer]}" bench gate --device cuda --json "$out/gate.json" &&
        bench attention_gate "${llama[@]}" --lengths 8192,32768,131072 --densities 0.5,0.1 --masks gate ;;
    target)
      bench target "${llama[@]}" --op target --lengths 8192,32768,131072 &&
        bench target_gqa7 --heads 28 --kv-heads 4 --op target --lengths 8192,32768 &&
        "${limited[@]}" "${programs[seer]}" bench distill --device cuda --check --lengths 4096,8192 \
          --json "$out/distill.json" ;;
    gates)
      [ -n "${flags[masks]}" ] || return 77
      local heads kv_heads tokens
      IFS=, read -r heads kv_heads tokens <<<"${flags[mask-shape]}"
      bench gates --heads "$heads" --kv-heads "$kv_heads" --lengths "$tokens" \
        --masks "$(printf 'saved:%s\n' "${flags[masks]}"/*.mask | paste -sd,)" ;;
    peers)
      python3 -c 'import torch; assert torch.cuda.is_available()' || return 77
      "${limited[@]}" python3 "$source_folder/bench/peers/attention_cuda_torch.py" --op error,decode,prefill \
        --lengths 8192,32768,131072 --sparse-lengths 8192,32768 >"$out/peers.jsonl" ;;
    same-bits)
      bench same_bits "${llama[@]}" --lengths 131072 --densities 0.1 --repeats 1 --same-bits 1000 ;;
    *) echo "unknown phase $phase"; return 2 ;;
  esac
}

run_phases "$@"
