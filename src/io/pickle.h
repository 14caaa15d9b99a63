// The pickles inside torch archives: only what rebuilds tensors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/dtype.h"

namespace seer {

/// A tensor as the pickle describes it: a strided view of a storage, which is an entry of the archive.
struct PickledTensor {
  std::string storage_key;
  DType dtype = DType::kF32;
  std::int64_t storage_size = 0;  // elements
  std::int64_t offset = 0;        // elements
  std::vector<std::int64_t> shape, strides;
};

/// Runs a pickle that makes a (possibly ordered) dict of tensors, or a dict with one such dict among plain
/// values, and returns its tensors in order. Nothing is ever called: the globals OrderedDict,
/// _rebuild_tensor_v2, _rebuild_parameter and torch's storage classes are names that this machine knows; any
/// other global or opcode throws Error naming `label` and it.
std::vector<std::pair<std::string, PickledTensor>> read_pickled_tensors(std::string_view pickle,
                                                                        const std::string& label);

/// A pickle (protocol 2) of an ordered dict of contiguous tensors.
std::string pickle_tensors(const std::vector<std::pair<std::string, PickledTensor>>& tensors);

}  // namespace seer
