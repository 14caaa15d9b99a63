// The subcommands: each function adds one to `parent`, with its flags and a callback that does the work.
#pragma once

namespace CLI {
class App;
}

void add_info(CLI::App& parent);
void add_tokenize(CLI::App& parent);
void add_detokenize(CLI::App& parent);
void add_score(CLI::App& parent);
void add_generate(CLI::App& parent);
void add_distill(CLI::App& parent);
void add_calibrate(CLI::App& parent);
void add_eval_ppl(CLI::App& parent);
void add_eval_longbench(CLI::App& parent);
void add_eval_ruler(CLI::App& parent);
void add_eval_run(CLI::App& parent);
void add_inspect(CLI::App& parent);
void add_report(CLI::App& parent);
void add_bench_attention(CLI::App& bench);
void add_bench_distill(CLI::App& bench);
void add_bench_gate(CLI::App& bench);
void add_bench_model(CLI::App& bench);
