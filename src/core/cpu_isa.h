// Instruction sets that the CPU bodies are written for, and the choice among them at run time.
#pragma once

#include <string_view>
#include <vector>

namespace seer {

/// In rising order; each contains the ones before it. kAmxBf16 needs amx_tile and amx_bf16, kAvx512Bf16 needs
/// avx512_bf16 and the AVX-512 F/BW/DQ/VL set, kAvx2 needs FMA and F16C too.
enum class CpuIsa { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmxBf16 };

std::string_view name_of(CpuIsa isa);  ///< "portable", "avx2", "avx512", "avx512_bf16", "amx_bf16"

/// All that this CPU and operating system can run, in rising order; tests go through it.
std::vector<CpuIsa> available_cpu_isas();

/// The best available one, or what the environment variable SEER_CPU_ISA names.
/// Throws Error when it names none or one that this CPU lacks.
CpuIsa choose_cpu_isa();

}  // namespace seer
