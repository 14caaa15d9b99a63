#include "eval/run_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/check.h"
#include "support/errors.h"

namespace seer {
namespace {

bool knows(const std::string& task, const std::string& flag) {
  return flag == "data" || flag == "values" || flag == "threads" ||
         (flag == "lengths" && task != "longbench") || (flag == "max-documents" && task == "ppl") ||
         (flag == "max-samples" && task == "longbench") || flag == "results" || flag == "gate";
}

EvalPlan plan_of(const std::string& json) { return parse_eval_plan(json, "run.json", knows); }

bool has(const EvalJob& job, const std::string& argument) {
  return std::find(job.arguments.begin(), job.arguments.end(), argument) != job.arguments.end();
}

TEST(EvalPlan, ModelsTimesGatesTimesTasksShortFirst) {
  const EvalPlan plan = plan_of(R"({
    "results": "r", "threads": 2, "lengths": [4096],
    "models": [{"name": "pico", "gates": [{"name": "a", "gate": "/gates/a"}, {"name": "b", "gate": "/gates/b"}]},
               {"name": "big", "model": "/models/big"}],
    "tasks": [{"task": "ppl", "data": "d", "lengths": [8192, 1024], "max_documents": 25},
              {"task": "longbench", "data": "d", "max_samples": 50},
              {"task": "ppl", "data": "d", "values": [0.5, 0.1], "max_documents": 3}]})");
  EXPECT_EQ(plan.results, "r");
  ASSERT_EQ(plan.jobs.size(), 9u);
  const EvalJob& first = plan.jobs[0];
  EXPECT_EQ(first.arguments,
            (std::vector<std::string>{"--gate=/gates/a", "--threads=2", "--lengths=4096", "--data=d",
                                      "--values=0.5,0.1", "--max-documents=3", "--results=r/pico-a-ppl-2"}));
  EXPECT_TRUE(has(plan.jobs[3], "--lengths=1024,8192"));
  EXPECT_EQ(plan.jobs[2].arguments.front(), "/models/big");
  EXPECT_EQ(plan.jobs[2].folder, "r/big-ppl-2");
  EXPECT_EQ(plan.jobs[8].task, "longbench");
  EXPECT_FALSE(has(plan.jobs[8], "--lengths=4096"));
  EXPECT_EQ(first.sibling, "");
  EXPECT_EQ(plan.jobs[1].sibling, first.folder);
  EXPECT_EQ(plan.jobs[2].sibling, "");
}

TEST(EvalPlan, WithoutModelsTheEmbeddedOneRuns) {
  const EvalPlan plan = plan_of(R"({"results": "r", "tasks": [{"task": "ppl", "data": "d"}]})");
  ASSERT_EQ(plan.jobs.size(), 1u);
  EXPECT_EQ(plan.jobs[0].arguments, (std::vector<std::string>{"--data=d", "--results=r/embedded"}));
}

TEST(EvalPlan, WrongKeysAreNamed) {
  const std::string tasks = R"("tasks": [{"task": "ppl"}])";
  for (const auto& [json, part] : std::vector<std::pair<std::string, std::string>>{
           {"{", "run.json: no valid JSON"},
           {"[]", "expected a JSON object"},
           {"{" + tasks + "}", "results: expected a text, found nothing"},
           {R"({"results": "r"})", "tasks: expected a list"},
           {R"({"results": "r", "tasks": [{"task": "pg19"}]})", "expected one of ppl, ruler, longbench"},
           {R"({"results": "r", "tasks": [{"task": "ppl", "lenghts": [1]}]})",
            "task ppl: unknown key lenghts"},
           {R"({"results": "r", "tasks": [{"task": "ppl", "results": "s"}]})",
            "task ppl: unknown key results"},
           {R"({"results": "r", "tasks": [{"task": "ppl", "data": {}}]})", "task ppl: data: expected a text"},
           {R"({"results": "r", "colour": 1, )" + tasks + "}", "unknown key colour"},
           {R"({"results": "r", "models": [{"name": "a", "size": 1}], )" + tasks + "}",
            "models: unknown key size; known are name, model, gates"},
           {R"({"results": "r", "models": [{"model": "x"}], )" + tasks + "}",
            "models: name: expected a text"},
           {R"({"results": "r", "models": [{"name": "../x"}], )" + tasks + "}", "name of a folder"},
           {R"({"results": "r", "models": [{"name": "a"}, {"name": "a"}], )" + tasks + "}",
            "found \"a\" again"},
       })
    EXPECT_TRUE(test::error_names([&] { plan_of(json); }, {part})) << json;
}

}  // namespace
}  // namespace seer
