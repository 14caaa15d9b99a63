#include "core/cpu_isa.h"

#include <array>
#include <cstdlib>
#include <string>

#include "core/check.h"

namespace seer {
namespace {

constexpr std::array kAll = {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16};

bool runs(CpuIsa isa) {
  // __builtin_cpu_supports also asks the operating system for the wide registers (XGETBV).
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case CpuIsa::kPortable:
      return true;
    case CpuIsa::kAvx2:
      return avx2;
    case CpuIsa::kAvx512:
      return avx512;
    case CpuIsa::kAvx512Bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
}

}  // namespace

std::string_view name_of(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "?";
}

std::vector<CpuIsa> available_cpu_isas() {
  std::vector<CpuIsa> isas;
  for (CpuIsa isa : kAll)
    if (runs(isa)) isas.push_back(isa);
  return isas;
}

CpuIsa choose_cpu_isa() {
  const char* wanted = std::getenv("SEER_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0') return available_cpu_isas().back();
  for (CpuIsa isa : kAll) {
    if (name_of(isa) != wanted) continue;
    SEER_CHECK(runs(isa), "SEER_CPU_ISA={}: this CPU does not have it; the best it has is {}", wanted,
               name_of(available_cpu_isas().back()));
    return isa;
  }
  fail("SEER_CPU_ISA={}: expected portable, avx2, avx512 or avx512_bf16", wanted);
}

}  // namespace seer
