#include "core/dtype.h"
#include "cpu/linear/kernels_body.h"
#include "cpu/simd_portable.h"

namespace seer::cpu {
namespace {

struct Lanes : Portable {
  static Float widen_bf16(const std::uint16_t* p) {
    const Int bits = {p[0], p[1], p[2], p[3]};
    return as_float(bits << 16);
  }
  static Float widen_bf16_even(const std::uint16_t* p) { return as_float(Int{p[0], p[2], p[4], p[6]} << 16); }
  static Float widen_bf16_odd(const std::uint16_t* p) { return as_float(Int{p[1], p[3], p[5], p[7]} << 16); }
  static void split(Float a, Float b, Float& even, Float& odd) {
    even = Float{a[0], a[2], b[0], b[2]};
    odd = Float{a[1], a[3], b[1], b[3]};
  }
  static Float widen_f16(const std::uint16_t* p) {
    return Float{to_float(Float16{p[0]}), to_float(Float16{p[1]}), to_float(Float16{p[2]}),
                 to_float(Float16{p[3]})};
  }
};

}  // namespace

const LinearKernels kLinearKernelsPortable = {2 * Lanes::kLanes, linear_body::arrange<Lanes>,
                                              linear_body::gemv<Lanes>, linear_body::widen<Lanes>};

}  // namespace seer::cpu
