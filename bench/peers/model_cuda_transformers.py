#!/usr/bin/env python3
"""Times Hugging Face transformers on one GPU: time to first token and decode of a model of random bf16 weights, batch 1.

Attention is torch's scaled_dot_product_attention held to cuDNN or to FlashAttention-2. One JSON record a line, flushed
as it comes: seconds (of decode: for a token) are the median of the runs, spread is the longest less the shortest. What
did not fit in memory, could not run or was left out for --budget-seconds has `error` instead. Needs torch and
transformers 5; no network, no files.

    model_cuda_transformers.py --shape llama-3.1-8b --lengths 4096,8192,131072 --contexts 8192,32768
"""

import argparse
import contextlib
import json
import statistics
import sys
import time

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

# As the publishers' config.json have them; `tiny` checks this script.
SHAPES = {
    "llama-3.1-8b": {
        "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}},
    "qwen2.5-7b": {
        "model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 3584, "intermediate_size": 18944,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}},
    "qwen3-8b": {
        "model_type": "qwen3", "num_hidden_layers": 36, "hidden_size": 4096, "intermediate_size": 12288,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}},
    "tiny": {
        "model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 256,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
}
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
LONG = 65536  # from here on one layer warms up, and two runs are timed
DECODE_ROUNDS = 3


def make_model(args):
    """The weights are drawn where they stay."""
    shape = dict(SHAPES[args.shape])
    config = transformers.AutoConfig.for_model(shape.pop("model_type"), **shape)
    torch.manual_seed(1)
    with torch.device(args.device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    return model.eval()


def seconds_of(function, device):
    if device == "cpu":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def summary(seconds):
    return {"seconds": statistics.median(seconds), "spread": max(seconds) - min(seconds), "runs": len(seconds)}


@contextlib.contextmanager
def first_layer_only(model):
    layers = model.model.layers
    model.model.layers = layers[:1]
    try:
        yield
    finally:
        model.model.layers = layers


class OutOfTime(Exception):
    """--budget-seconds are used up."""


class Bench:
    def __init__(self, args):
        self.args = args
        self.deadline = time.monotonic() + args.budget_seconds
        self.run_seconds = {}  # backend: (tokens, seconds) of its longest prefill so far
        self.model = make_model(args)
        self.about = {"peer": "transformers", "shape": args.shape, "dtype": "bf16", "batch": 1,
                      "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
                      "torch": torch.__version__, "transformers": transformers.__version__}

    def ids(self, count):
        return torch.randint(self.model.config.vocab_size, (1, count), device=self.args.device)

    def forward(self, ids, cache):
        return self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits

    def check_time(self, backend, tokens):
        """Raises OutOfTime unless a prefill, as slow for its length squared as the last, would end in time."""
        known_tokens, known_seconds = self.run_seconds.get(backend, (tokens, 0.0))
        if time.monotonic() + known_seconds * max(1.0, tokens / known_tokens)**2 > self.deadline:
            raise OutOfTime

    def prefill(self, backend, ids):
        """Seconds to the last token's logits, and the cache."""
        self.check_time(backend, ids.shape[1])
        cache = transformers.DynamicCache(config=self.model.config)
        seconds = seconds_of(lambda: self.forward(ids, cache), self.args.device)
        if ids.shape[1] >= self.run_seconds.get(backend, (0, 0.0))[0]:
            self.run_seconds[backend] = ids.shape[1], seconds
        return seconds, cache

    def time_prefill(self, backend, tokens):
        ids = self.ids(tokens)
        long = tokens >= LONG
        if long:
            self.check_time(backend, tokens)
            with first_layer_only(self.model):
                self.forward(ids, transformers.DynamicCache(config=self.model.config))
        else:
            self.prefill(backend, ids)
        seconds = []
        for _ in range(2 if long else 3):
            try:
                seconds.append(self.prefill(backend, ids)[0])
            except OutOfTime:
                if not seconds:
                    raise
        return summary(seconds)

    def time_decode(self, backend, context):
        """Greedy decoding goes on through all rounds: every token is new to the cache, as it is for a user."""
        cache = self.prefill(backend, self.ids(context))[1]
        token = self.ids(1)

        def decode(steps):
            nonlocal token
            for _ in range(steps):
                token = self.forward(token, cache)[:, -1:].argmax(-1)

        decode(4)
        steps = self.args.decode_steps
        result = summary([seconds_of(lambda: decode(steps), self.args.device) / steps for _ in range(DECODE_ROUNDS)])
        return result | {"tokens_per_second": 1 / result["seconds"], "steps": steps}

    def record(self, operation, length_name, length, backend, measure):
        cuda = self.args.device == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            with torch.inference_mode(), sdpa_kernel(BACKENDS[backend]):
                result = measure(backend, length)
            if cuda:
                result["peak_bytes"] = torch.cuda.max_memory_allocated()
        except torch.OutOfMemoryError:
            result = {"error": "out of memory"}
        except OutOfTime:
            result = {"error": f"left out: more than {self.args.budget_seconds:g} s in all"}
        except RuntimeError as error:  # no kernel of this backend
            result = {"error": str(error).splitlines()[0]}
        case = {"op": operation, length_name: length, "attention": backend}
        print(json.dumps(case | result | self.about), flush=True)
        if "error" in result:
            print(f"{operation} {length} {backend}: {result['error']}", file=sys.stderr)


def integers(text):
    return [int(word) for word in text.split(",") if word]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="llama-3.1-8b", choices=list(SHAPES))
    parser.add_argument("--lengths", default="4096,8192,16384,32768,65536,131072", type=integers, help="of prompts")
    parser.add_argument("--contexts", default="8192,32768", type=integers, help="tokens held before decoding")
    parser.add_argument("--decode-steps", default=16, type=int, help="tokens decoded in a round")
    parser.add_argument("--attention", default="cudnn,flash", type=lambda text: text.split(","),
                        help="of " + ", ".join(BACKENDS))
    parser.add_argument("--budget-seconds", default=3600.0, type=float,
                        help="of all measurements; what would end later is left out")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    args = parser.parse_args()
    if not set(args.attention) <= set(BACKENDS):
        parser.error(f"--attention: known are {', '.join(BACKENDS)}, got {','.join(args.attention)}")
    bench = Bench(args)
    for context in args.contexts:
        for backend in args.attention:
            bench.record("decode", "context", context, backend, bench.time_decode)
    for tokens in sorted(args.lengths):
        for backend in args.attention:
            bench.record("prefill", "tokens", tokens, backend, bench.time_prefill)


if __name__ == "__main__":
    main()
