#include "io/tensor_file.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/check.h"
#include "io/message.h"

namespace seer {
namespace {

template <class T>
constexpr DType kDTypeOf = DType::kU8;
template <>
constexpr DType kDTypeOf<float> = DType::kF32;
template <>
constexpr DType kDTypeOf<double> = DType::kF64;
template <>
constexpr DType kDTypeOf<BFloat16> = DType::kBF16;
template <>
constexpr DType kDTypeOf<Float16> = DType::kF16;
template <>
constexpr DType kDTypeOf<std::int32_t> = DType::kI32;
template <>
constexpr DType kDTypeOf<std::int64_t> = DType::kI64;

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace

std::int64_t TensorView::num_elements() const {
  return static_cast<std::int64_t>(bytes.size() / size_of(dtype));
}

template <class T>
std::span<const T> TensorView::as() const {
  SEER_CHECK(dtype == kDTypeOf<T>, "{}: tensor {}: expected dtype {}, found {}", file, in_quotes(name),
             name_of(kDTypeOf<T>), name_of(dtype));
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

template std::span<const float> TensorView::as() const;
template std::span<const double> TensorView::as() const;
template std::span<const BFloat16> TensorView::as() const;
template std::span<const Float16> TensorView::as() const;
template std::span<const std::int32_t> TensorView::as() const;
template std::span<const std::int64_t> TensorView::as() const;
template std::span<const std::uint8_t> TensorView::as() const;

std::vector<float> TensorView::to_floats() const {
  std::vector<float> values(static_cast<std::size_t>(num_elements()));
  if (dtype == DType::kF64) {
    const std::span<const double> source = as<double>();
    std::transform(source.begin(), source.end(), values.begin(),
                   [](double x) { return static_cast<float>(x); });
    return values;
  }
  SEER_CHECK(dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16,
             "{}: tensor {}: expected dtype F32, F16, BF16 or F64, found {}", file, in_quotes(name),
             name_of(dtype));
  if (!values.empty()) widen_to_float(dtype, bytes.data(), values.data(), num_elements());
  return values;
}

bool TensorStore::contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }

const TensorView& TensorStore::get(std::string_view name) const {
  const auto found = tensors_.find(name);
  SEER_CHECK(found != tensors_.end(), "{}: tensor {} is missing ({} tensors are there)", label_,
             in_quotes(name), tensors_.size());
  return found->second;
}

const TensorView& TensorStore::get(std::string_view name, std::span<const std::int64_t> shape) const {
  const TensorView& tensor = get(name);
  SEER_CHECK(std::ranges::equal(tensor.shape, shape), "{}: tensor {}: expected shape {}, found {}",
             tensor.file, in_quotes(name), shape_text(shape), shape_text(tensor.shape));
  return tensor;
}

}  // namespace seer
