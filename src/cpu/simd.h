// Shared by the SIMD wrappers simd_{portable,avx2,avx512,avx512bf16}.h. Each wrapper is a struct of static
// functions on one register type, so that a kernel is written once as a template and instantiated in one
// translation unit per instruction set. Those units call nothing else that is inline and shared (no standard
// library templates, no members of common structs): the linker keeps one copy of such a function, and it may
// be the one compiled for a CPU that is not there.
#pragma once

namespace seer {

/// Minimax polynomial of 2^x on [-1/2, 1/2], lowest degree first: relative error 7.5e-8 before rounding.
inline constexpr float kExp2Polynomial[6] = {1.000000072e+00f, 6.931469671e-01f, 2.402211972e-01f,
                                             5.550713274e-02f, 9.675541334e-03f, 1.327647198e-03f};

/// Added to a float32 of magnitude below 2^22 it rounds to the nearest integer, which is then in the low
/// bits.
inline constexpr float kRoundingMagic = 12582912.0f;  // 1.5 * 2^23

}  // namespace seer
