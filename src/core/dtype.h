// Element types of tensors in files and memory, and the scalar conversions between them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace seer {

enum class DType : std::uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

/// Bytes of one element.
std::size_t size_of(DType dtype);

/// Name as safetensors writes it: "F32", "BF16", "I64", ...
std::string_view name_of(DType dtype);

/// bfloat16 as stored: the upper half of a float32.
struct BFloat16 {
  std::uint16_t bits = 0;
};

/// IEEE half precision as stored.
struct Float16 {
  std::uint16_t bits = 0;
};

inline float to_float(BFloat16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

/// Rounds to nearest even; a NaN stays a NaN.
inline BFloat16 to_bfloat16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

float to_float(Float16 x);

/// Rounds to nearest even; overflow becomes infinity.
Float16 to_float16(float x);

/// Widens `count` elements of type BF16, F16 or F32 to float32; throws Error for another type.
void widen_to_float(DType dtype, const void* source, float* destination, std::int64_t count);

}  // namespace seer
