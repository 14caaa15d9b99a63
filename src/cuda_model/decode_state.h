// Device memory and graphs of decoding.
#pragma once

#include <map>
#include <vector>

#include "cuda_model/cuda_transformer_impl.h"
#include "cuda_model/device_decode_gate.h"

namespace seer {

/// Host memory that the device copies from and to without waiting.
template <class T>
class PinnedArray {
 public:
  PinnedArray() = default;
  ~PinnedArray() { cudaFreeHost(data_); }
  PinnedArray(const PinnedArray&) = delete;
  PinnedArray& operator=(const PinnedArray&) = delete;
  void reserve_discard(std::int64_t size) {
    if (size <= size_) return;
    cudaFreeHost(data_);
    data_ = nullptr;
    cuda::check(cudaMallocHost(reinterpret_cast<void**>(&data_), static_cast<std::size_t>(size) * sizeof(T)),
                "pinned memory");
    size_ = size;
  }
  T* data() { return data_; }

 private:
  T* data_ = nullptr;
  std::int64_t size_ = 0;
};

struct CudaTransformer::DecodeState {
  ~DecodeState() { drop_graphs(); }
  void drop_graphs() {
    for (auto& [batch, graph] : graphs)
      if (graph != nullptr) cudaGraphExecDestroy(graph);
    graphs.clear();
  }

  int capacity = 0;  // sequences
  // What changes from step to step: [3][capacity] tokens, positions, lengths; [capacity, pages] page table.
  cuda::DeviceArray<std::int32_t> inputs, page_table;
  cuda::DeviceArray<TokenDraw> draws;  // [capacity]
  PinnedArray<std::int32_t> host_inputs, host_next;
  PinnedArray<TokenDraw> host_draws;
  std::vector<std::vector<std::int32_t>> uploaded_pages;  // rows of page_table as they are on the device

  DeviceFloats x;
  DeviceHalves normed, qkv, attention, gate_up, activated;
  DeviceFloats logits;
  cuda::DeviceArray<std::int32_t> next;
  cuda::DeviceArray<std::byte> workspace;

  // Of the decode gate.
  DecodeSparsity sparsity;
  std::shared_ptr<const DeviceDecodeGate> gate;  // nullptr: dense
  cuda::DeviceArray<cuda::DecodeGateSequence> gate_sequences;
  PinnedArray<cuda::DecodeGateSequence> host_gate_sequences;
  cuda::DeviceArray<std::uint64_t> mask;
  std::map<int, DeviceRope> gate_ropes;  // by the gate's size, of every position of the context

  /// By number of sequences; nullptr: has run once without a graph, so that every kernel is loaded.
  std::map<int, cudaGraphExec_t> graphs;
};

}  // namespace seer
