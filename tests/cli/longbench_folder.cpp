#include "longbench_folder.h"

#include <fmt/core.h>

namespace seer::test {

using nlohmann::json;

void LongBenchTest::SetUp() {
  ProgramTest::SetUp();
  json prompts, lengths;
  for (const char* task : {"qasper", "trec", "samsum", "passage_retrieval_en"}) {
    prompts[task] = "Read this.\n{context}\n{input}";
    lengths[task] = 3;
    std::string lines;
    for (int i = 0; i < kSamples; ++i) lines += sample(task, i).dump() + "\n";
    write(fmt::format("bench/data/{}_e.jsonl", task), lines);
  }
  write("bench/config/dataset2prompt.json", prompts.dump());
  write("bench/config/dataset2maxlen.json", lengths.dump());
}

json LongBenchTest::sample(const std::string& task, int index) {
  std::string context;
  for (int i = 0; i < 4 + 3 * index; ++i) context += fmt::format("Item {} of {} is {}. ", i, task, i * index);
  const bool retrieval = task == "passage_retrieval_en";
  json line{{"input", fmt::format("Which item is {}?", index)},
            {"context", context},
            {"answers", {retrieval ? fmt::format("Paragraph {}", index) : fmt::format("Item {}", index)}},
            {"length", 2500 * (index % 4)},
            {"dataset", task + "_e"},
            {"language", "en"},
            {"all_classes", nullptr},
            {"_id", std::to_string(index)}};
  if (task == "trec") line["all_classes"] = {"Item 1", "Item 2", "Item"};
  return line;
}

}  // namespace seer::test
