// An inspection as a table and as JSON.
#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "eval/inspect.h"
#include "eval/setting_label.h"

namespace seer {

using Json = nlohmann::ordered_json;

std::string inspect_table(const Inspection& inspection) {
  std::string text = fmt::format("{:<24}  {:>5}  {:>8}  {:>8}  {:>8}  {:>12}\n", "selector", "layer",
                                 "density", "recall", "oracle", "lowest head");
  const auto line = [&](const std::string& label, const std::string& layer, double density, double recall,
                        double oracle, const std::string& lowest) {
    fmt::format_to(std::back_inserter(text), "{:<24}  {:>5}  {:>8.4f}  {:>8.4f}  {:>8.4f}  {:>12}\n", label,
                   layer, density, recall, oracle, lowest);
  };
  for (const SettingInspection& setting : inspection.settings) {
    const std::string label = setting_label(name_of(setting.setting.selector), setting.setting.rule_name(),
                                            setting.setting.sparsity.value);
    for (int layer = 0; layer < setting.num_layers(); ++layer) {
      int lowest = 0;
      for (int head = 1; head < setting.num_heads; ++head)
        if (setting.head(layer, head).recall < setting.head(layer, lowest).recall) lowest = head;
      line(label, std::to_string(layer), setting.density(layer), setting.recall(layer),
           setting.oracle_recall(layer),
           fmt::format("{:.4f} ({})", setting.head(layer, lowest).recall, lowest));
    }
    line(label, "all", setting.density(), setting.recall(), setting.oracle_recall(), "");
  }
  return text;
}

std::string inspect_json(const Inspection& inspection, const std::string& provenance) {
  const Json origin = Json::parse("{" + provenance + "}");
  Json rows = Json::array();
  for (const SettingInspection& setting : inspection.settings) {
    Json density = Json::array(), recall = Json::array(), oracle = Json::array();
    for (int layer = 0; layer < setting.num_layers(); ++layer) {
      Json densities = Json::array(), recalls = Json::array(), oracles = Json::array();
      for (int head = 0; head < setting.num_heads; ++head) {
        densities.push_back(setting.head(layer, head).density());
        recalls.push_back(setting.head(layer, head).recall);
        oracles.push_back(setting.head(layer, head).oracle_recall);
      }
      density.push_back(std::move(densities));
      recall.push_back(std::move(recalls));
      oracle.push_back(std::move(oracles));
    }
    Json row{{"length", inspection.tokens},
             {"selector", name_of(setting.setting.selector)},
             {"rule", setting.setting.rule_name()},
             {"value", setting.setting.sparsity.value},
             {"density", setting.density()},
             {"recall", setting.recall()},
             {"oracle_recall", setting.oracle_recall()},
             {"head_density", std::move(density)},
             {"head_recall", std::move(recall)},
             {"head_oracle_recall", std::move(oracle)}};
    row.update(origin);
    rows.push_back(std::move(row));
  }
  return rows.dump(1) + "\n";
}

}  // namespace seer
