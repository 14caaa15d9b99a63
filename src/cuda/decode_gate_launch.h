// Launchers of the decode gate's kernels; the public functions have checked the parameters. Internal to
// src/cuda.
#pragma once

#include "cuda/decode_gate.h"

struct CUstream_st;

namespace seer::cuda {

void launch_decode_gate_keys(const DecodeGateKeysParams& params, CUstream_st* stream);
/// Without a mask: takes the tokens' keys in.
void launch_decode_gate_take_keys(const DecodeGateTokenParams& params, CUstream_st* stream);
/// With a mask: takes the keys in and chooses blocks.
void launch_decode_gate_token(const DecodeGateTokenParams& params, CUstream_st* stream);

}  // namespace seer::cuda
