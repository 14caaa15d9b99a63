// seer generate: continues prompts.
#include "model/generate.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "core/progress.h"
#include "decode_flags.h"
#include "io/chat_template.h"
#include "io/documents.h"
#include "io/tensor_file.h"

using namespace seer;
using Json = nlohmann::ordered_json;

namespace {

struct Flags {
  ModelFlags model;
  SparsityFlags sparsity;
  DecodeFlags decode;
  GenerateOptions generate;
  std::vector<std::string> prompts, prompt_files;
  std::string system;
  bool chat = false;
  bool json = false;
};

struct Prompt {
  std::string name;  // for messages
  std::string text;
  std::vector<std::int32_t> ids;
};

std::vector<Prompt> read_prompts(const Flags& flags) {
  std::vector<Prompt> prompts;
  for (const std::string& text : flags.prompts) prompts.push_back({.name = "--prompt", .text = text});
  for (const std::string& file : flags.prompt_files) {
    if (file.ends_with(".jsonl")) {
      for (Document& document : read_documents(file))
        prompts.push_back(
            {std::move(document.name), std::move(document.text), std::move(document.input_ids)});
    } else {
      prompts.push_back({.name = file, .text = read_file(file)});
    }
  }
  SEER_CHECK(!prompts.empty(), "generate: expected --prompt or --prompt-file, found neither");
  return prompts;
}

void encode_prompts(const Flags& flags, const Tokenizer& tokenizer, const std::string& folder,
                    std::vector<Prompt>& prompts) {
  const auto text_of = [&](const std::optional<std::int32_t>& id) {
    return id ? tokenizer.token_bytes(*id) : std::string();
  };
  SEER_CHECK(!flags.chat || !tokenizer.chat_template().empty(),
             "--chat: {}/tokenizer_config.json has no chat_template; leave out --chat", folder);
  SEER_CHECK(flags.chat || flags.system.empty(), "--system: needs --chat");
  for (Prompt& prompt : prompts) {
    if (!prompt.ids.empty()) {
      SEER_CHECK(!flags.chat, "{}: --chat needs prompts as text, found input_ids", prompt.name);
      continue;
    }
    SEER_CHECK(!prompt.text.empty(), "{}: expected a text, found an empty one", prompt.name);
    check_utf8(prompt.text, prompt.name);
    if (!flags.chat) {
      prompt.ids = tokenizer.encode(prompt.text);
      continue;
    }
    std::vector<ChatMessage> messages;
    if (!flags.system.empty()) messages.push_back({"system", flags.system});
    messages.push_back({"user", prompt.text});
    // The template writes the start token itself.
    prompt.ids = tokenizer.encode(
        render_chat_template(tokenizer.chat_template(), messages, /*add_generation_prompt=*/true,
                             text_of(tokenizer.bos_id()), text_of(tokenizer.eos_id())),
        /*add_special_tokens=*/false);
  }
}

void print_json(const std::vector<Prompt>& prompts, const GenerateResult& result,
                const ChosenSelector& chosen) {
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const Generation& generation = result.generations[i];
    fmt::print("{}\n", Json{{"prompt", prompts[i].name},
                            {"prompt_tokens", prompts[i].ids.size()},
                            {"text", generation.text},
                            {"tokens", generation.tokens},
                            {"finish_reason", name_of(generation.reason)},
                            {"selector", name_of(chosen.kind)},
                            {"density", generation.prefill.density()},
                            {"prefill_seconds", generation.prefill.seconds},
                            {"decode_density", generation.decode.density()}}
                           .dump());
  }
}

std::string describe(const DecodeSparsity& decode) {
  if (decode.gate == nullptr) return "dense";
  return decode.rule == DecodeSparsity::Rule::kTokenBudget
             ? fmt::format("token budget {}", decode.token_budget)
             : fmt::format("threshold {:g}", decode.threshold);
}

void print_summary(const std::vector<Prompt>& prompts, const GenerateResult& result,
                   const ChosenSelector& chosen, const DecodeSparsity& decode) {
  std::size_t prompt_tokens = 0;
  PrefillStats total;
  DecodeDensity read;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    prompt_tokens += prompts[i].ids.size();
    total.selected_blocks += result.generations[i].prefill.selected_blocks;
    total.causal_blocks += result.generations[i].prefill.causal_blocks;
    read.selected_blocks += result.generations[i].decode.selected_blocks;
    read.total_blocks += result.generations[i].decode.total_blocks;
  }
  fmt::print(stderr,
             "prefill: {} tokens in {:.2f} s, selector {}, density {:.4f}; decode: {} tokens in {:.2f} s",
             prompt_tokens, result.prefill_seconds, name_of(chosen.kind), total.density(),
             result.decode_tokens, result.decode_seconds);
  if (result.decode_tokens > 0 && result.decode_seconds > 0)
    fmt::print(stderr, " ({:.1f} tokens/s)",
               static_cast<double>(result.decode_tokens) / result.decode_seconds);
  fmt::print(stderr, ", {}, density {:.4f}\n", describe(decode), read.density());
}

void run(const Flags& flags) {
  validate(flags.generate.sampling);
  ModelFlags model_flags = flags.model;
  SparsityFlags sparsity = flags.sparsity;
  std::vector<Prompt> prompts = read_prompts(flags);
  const LoadedModel model = load_model(flags.model);
  const Tokenizer tokenizer = Tokenizer::load(model.folder);
  encode_prompts(flags, tokenizer, model.folder, prompts);
  const std::int64_t limit = model.transformer->max_context();
  std::vector<std::vector<std::int32_t>> ids;
  std::size_t total_tokens = 0;
  for (const Prompt& prompt : prompts) {
    SEER_CHECK(static_cast<std::int64_t>(prompt.ids.size()) <= limit,
               "{}: the prompt has {} tokens, the context holds {}; raise it with --max-context", prompt.name,
               prompt.ids.size(), limit);
    for (const std::int32_t id : prompt.ids)
      SEER_CHECK(id >= 0 && id < model.config.vocab_size, "{}: token id {} is outside the vocabulary of {}",
                 prompt.name, id, model.config.vocab_size);
    ids.push_back(prompt.ids);
    total_tokens += prompt.ids.size();
  }
  const ChosenDecode decode = choose_decode(flags.decode, model_flags, sparsity, model.config);
  const ChosenSelector chosen =
      choose_selector(sparsity, model_flags, model.config, flags.generate.sampling.seed);
  GenerateOptions options = flags.generate;
  options.decode = decode.sparsity;

  const bool stream = prompts.size() == 1 && !flags.json;
  std::unique_ptr<Progress> progress =
      std::make_unique<Progress>("prefill", static_cast<double>(total_tokens));
  std::size_t finished_tokens = 0, current = 0;
  const GenerateResult result = generate(
      *model.transformer, tokenizer, ids, options, chosen.selector.get(),
      [&](std::size_t, std::string_view piece) {
        if (!stream) return;
        progress.reset();
        fmt::print("{}", piece);
        std::fflush(stdout);
      },
      [&](std::size_t prompt, std::int64_t done) {
        for (; current < prompt; ++current) finished_tokens += ids[current].size();
        if (progress) progress->update(static_cast<double>(finished_tokens) + static_cast<double>(done));
      });
  progress.reset();

  if (flags.json) {
    print_json(prompts, result, chosen);
  } else if (stream) {
    fmt::print("\n");
  } else {
    for (std::size_t i = 0; i < prompts.size(); ++i)
      fmt::print("--- {} ({})\n{}\n", i + 1, prompts[i].name, result.generations[i].text);
  }
  std::fflush(stdout);
  print_summary(prompts, result, chosen, decode.sparsity);
}

}  // namespace

void add_generate(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command =
      *parent.add_subcommand("generate", "Continue prompts: sampling, streaming, chat, batches");
  add_model_argument(command, flags->model);
  command.add_option("--prompt", flags->prompts, "a prompt; may be given several times")
      ->allow_extra_args(false);
  command
      .add_option(
          "--prompt-file", flags->prompt_files,
          "a file holding one prompt, or .jsonl with `text` or `input_ids`; may be given several times")
      ->allow_extra_args(false);
  command.add_flag("--chat", flags->chat, "lay the model's chat template round each prompt");
  command.add_option("--system", flags->system, "system message of the chat");

  GenerateOptions& generate = flags->generate;
  SamplingOptions& sampling = generate.sampling;
  command.add_option("--max-new-tokens", generate.max_new_tokens, "longest continuation")
      ->capture_default_str();
  command.add_option("--stop", generate.stop, "end before this text; may be given several times")
      ->allow_extra_args(false);
  command.add_flag("--ignore-eos", generate.ignore_eos, "go on after the end-of-sequence token");
  command.add_option("--temperature", sampling.temperature, "0: always the most likely token")
      ->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "sample from the k most likely tokens (0: all)")
      ->capture_default_str();
  command.add_option("--top-p", sampling.top_p, "sample from the fewest tokens that reach this probability")
      ->capture_default_str();
  command
      .add_option("--min-p", sampling.min_p,
                  "drop tokens below this share of the most likely one's probability")
      ->capture_default_str();
  command
      .add_option("--repetition-penalty", sampling.repetition_penalty, "above 1 discourages repeating tokens")
      ->capture_default_str();
  add_seed_flag(command, sampling.seed);

  add_gate_flag(command, flags->model);
  add_sparsity_flags(command, flags->sparsity, "--select-top-p");
  add_decode_flags(command, flags->decode);
  add_execution_flags(command, flags->model);
  add_context_flag(command, flags->model);
  command.add_flag("--json", flags->json, "print one JSON object per prompt");
  command.callback([flags] { run(*flags); });
}
