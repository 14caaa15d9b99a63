// The GPU model's place in a build without CUDA.
#include "core/check.h"
#include "cuda_model/cuda_transformer.h"

namespace seer {

std::unique_ptr<Transformer> make_cuda_transformer(const ModelWeights&, const ModelConfig&, const Context&,
                                                   const TransformerOptions&) {
  fail("--device cuda: this program was built without CUDA");
}

std::unique_ptr<Transformer> make_random_cuda_transformer(std::uint64_t, const ModelConfig&, const Context&,
                                                          const TransformerOptions&) {
  fail("--device cuda: this program was built without CUDA");
}

}  // namespace seer
