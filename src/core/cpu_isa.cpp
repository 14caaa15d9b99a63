#include "core/cpu_isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>

#include "core/check.h"

namespace seer {
namespace {

constexpr std::array kAll = {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16,
                             CpuIsa::kAmxBf16};

/// AMX needs the CPU, and Linux's leave to use the tile registers (arch_prctl(2)), which is for the whole
/// process.
bool amx_runs() {
  constexpr unsigned kAmxBf16Bit = 1u << 22, kAmxTileBit = 1u << 24;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16Bit) == 0 || (d & kAmxTileBit) == 0)
    return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

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
    case CpuIsa::kAmxBf16: {
      static const bool amx = amx_runs();
      return amx && avx512 && __builtin_cpu_supports("avx512bf16");
    }
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
    case CpuIsa::kAmxBf16:
      return "amx_bf16";
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
  fail("SEER_CPU_ISA={}: expected portable, avx2, avx512, avx512_bf16 or amx_bf16", wanted);
}

}  // namespace seer
