#include "model/generate.h"

#include <algorithm>
#include <chrono>

#include "core/check.h"

namespace seer {

StopScanner::StopScanner(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_)
    SEER_CHECK(!stop.empty(), "--stop: expected a text, found an empty one");
}

std::string StopScanner::push(std::string_view piece) {
  if (found_) return {};
  pending_ += piece;
  std::size_t cut = std::string::npos;
  for (const std::string& stop : stops_) cut = std::min(cut, pending_.find(stop));
  if (cut != std::string::npos) {
    found_ = true;
    return pending_.substr(0, cut);
  }
  // Hold back the longest end of the text that begins some stop string.
  std::size_t held = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t size = std::min(stop.size() - 1, pending_.size()); size > held; --size) {
      if (pending_.compare(pending_.size() - size, size, stop, 0, size) == 0) held = size;
    }
  }
  std::string certain = pending_.substr(0, pending_.size() - held);
  pending_.erase(0, certain.size());
  return certain;
}

std::string StopScanner::finish() { return found_ ? std::string() : std::exchange(pending_, {}); }

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEos:
      return "eos";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
  }
  return "";
}

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// One prompt on its way.
struct Stream {
  Stream(Sequence sequence_, const GenerateOptions& options, std::size_t index_, const Tokenizer& tokenizer,
         const std::vector<std::int32_t>& prompt)
      : sequence(std::move(sequence_)),
        sampler(options.sampling, index_),
        scanner(options.stop),
        decoder(tokenizer),
        index(index_),
        seen(prompt) {}

  Sequence sequence;
  Sampler sampler;
  StopScanner scanner;
  StreamDecoder decoder;
  std::size_t index;
  std::vector<std::int32_t> seen;  // prompt and generated ids
};

}  // namespace

GenerateResult generate(Transformer& model, const Tokenizer& tokenizer,
                        std::span<const std::vector<std::int32_t>> prompts, const GenerateOptions& options,
                        Selector* selector, const std::function<void(std::size_t, std::string_view)>& on_text,
                        const std::function<void(std::size_t, std::int64_t)>& on_prefill) {
  SEER_CHECK(options.max_new_tokens > 0, "--max-new-tokens: expected 1 or more, found {}",
             options.max_new_tokens);
  const ModelConfig& config = model.config();
  GenerateResult result;
  result.generations.resize(prompts.size());

  const auto emit = [&](Stream& stream, const std::string& text) {
    if (text.empty()) return;
    result.generations[stream.index].text += text;
    if (on_text) on_text(stream.index, text);
  };
  // Draws the next token of a stream; false when the stream has ended.
  const auto advance = [&](Stream& stream, std::span<float> logits) {
    Generation& generation = result.generations[stream.index];
    const std::int32_t token = stream.sampler.sample(logits, stream.seen);
    const bool eos =
        !options.ignore_eos && std::find(config.eos_token_ids.begin(), config.eos_token_ids.end(), token) !=
                                   config.eos_token_ids.end();
    if (!eos) {
      generation.tokens.push_back(token);
      stream.seen.push_back(token);
      emit(stream, stream.scanner.push(stream.decoder.push(token)));
    }
    const bool full = static_cast<std::int64_t>(generation.tokens.size()) >= options.max_new_tokens ||
                      stream.sequence.length() >= model.max_context();
    if (!eos && !stream.scanner.found() && !full) return true;
    emit(stream, stream.scanner.push(stream.decoder.finish()));
    emit(stream, stream.scanner.finish());
    generation.reason = eos                      ? FinishReason::kEos
                        : stream.scanner.found() ? FinishReason::kStop
                                                 : FinishReason::kLength;
    return false;
  };

  std::vector<std::unique_ptr<Stream>> active;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    auto stream = std::make_unique<Stream>(model.new_sequence(), options, i, tokenizer, prompts[i]);
    PrefillRequest request{.tokens = prompts[i], .selector = selector};
    if (on_prefill) request.on_progress = [&](std::int64_t done) { on_prefill(i, done); };
    PrefillResult prefill = model.prefill(stream->sequence, request);
    result.generations[i].prefill = prefill.stats;
    result.prefill_seconds += prefill.stats.seconds;
    if (advance(*stream, prefill.last_logits)) active.push_back(std::move(stream));
  }

  const auto start = Clock::now();
  std::vector<Sequence*> sequences;
  std::vector<std::int32_t> tokens;
  std::vector<float> logits(active.size() * static_cast<std::size_t>(config.vocab_size));
  while (!active.empty()) {
    sequences.clear();
    tokens.clear();
    for (const auto& stream : active) {
      sequences.push_back(&stream->sequence);
      tokens.push_back(stream->seen.back());
    }
    model.decode(sequences, tokens, logits.data());
    ++result.decode_steps;
    result.decode_tokens += static_cast<std::int64_t>(active.size());
    const auto vocab = static_cast<std::size_t>(config.vocab_size);
    std::vector<std::unique_ptr<Stream>> remaining;
    for (std::size_t i = 0; i < active.size(); ++i) {
      if (advance(*active[i], std::span(logits).subspan(i * vocab, vocab)))
        remaining.push_back(std::move(active[i]));
    }
    active = std::move(remaining);
  }
  result.decode_seconds = seconds_since(start);
  return result;
}

}  // namespace seer
