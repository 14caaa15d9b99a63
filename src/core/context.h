// What every computation is handed: how many threads, which instruction set. No globals, so two models can
// run in one process.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <utility>

#include "core/cpu_isa.h"

namespace seer {

/// Execution settings of the CPU backend. Cheap to copy.
class Context {
 public:
  /// `num_threads` 0 means one per core that this process may use.
  explicit Context(int num_threads = 0, CpuIsa isa = choose_cpu_isa())
      : num_threads_(num_threads > 0 ? num_threads : omp_get_num_procs()), isa_(isa) {}

  int num_threads() const { return num_threads_; }
  CpuIsa isa() const { return isa_; }

  /// Calls body(item, thread) for item in [0, num_items), handed out one at a time in rising order; thread is
  /// in [0, num_threads). Items must not depend on each other. The first exception is rethrown when all
  /// threads have stopped.
  template <class Body>
  void parallel_for(std::int64_t num_items, Body&& body) const {
    if (num_items <= 0) return;
    if (num_threads_ == 1 || num_items == 1) {
      for (std::int64_t item = 0; item < num_items; ++item) body(item, 0);
      return;
    }
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;
#pragma omp parallel num_threads(num_threads_)
    {
      const int thread = omp_get_thread_num();
      try {
        for (std::int64_t item = next++; item < num_items && !failed; item = next++) body(item, thread);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
  }

  /// Calls body(begin, end, thread) on one contiguous share of [0, size) per thread, cut at multiples of
  /// `grain`: a static partition, for work whose cost is even.
  template <class Body>
  void parallel_ranges(std::int64_t size, std::int64_t grain, Body&& body) const {
    const std::int64_t grains = (size + grain - 1) / grain;
    const std::int64_t parts = std::min<std::int64_t>(num_threads_, grains);
    parallel_for(parts, [&](std::int64_t part, int thread) {
      const std::int64_t begin = grains * part / parts * grain;
      const std::int64_t end = std::min(size, grains * (part + 1) / parts * grain);
      if (begin < end) body(begin, end, thread);
    });
  }

 private:
  int num_threads_;
  CpuIsa isa_;
};

}  // namespace seer
