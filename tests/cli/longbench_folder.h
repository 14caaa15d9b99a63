// A made-up folder in the layout that LongBench is published in.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "program.h"

namespace seer::test {

/// Its folder `bench` holds kSamples samples for each of kTasks tasks of LongBench-E, answers of 3 tokens.
class LongBenchTest : public ProgramTest {
 protected:
  static constexpr int kSamples = 6;
  static constexpr int kTasks = 4;

  void SetUp() override;
  static nlohmann::json sample(const std::string& task, int index);
};

}  // namespace seer::test
