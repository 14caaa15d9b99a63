// The tables of RULER results on standard output.
#pragma once

#include <span>
#include <vector>

#include "eval/ruler_eval.h"

/// All rows of one length, [task][setting]: scores with their averages, measured density, time to first token
/// and its speed-up over dense. `totals` are the summaries over all tasks, by setting.
void print_ruler_table(std::span<const std::vector<seer::RulerRow>> rows,
                       std::span<const seer::GenerationSummary> totals);

/// Scores of predictions that were made elsewhere.
void print_ruler_scores(std::span<const seer::RulerTaskScore> scores);
