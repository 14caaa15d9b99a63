#!/usr/bin/env python3
"""Times prefill and decode of Hugging Face transformers on the CPU beside `seer bench model`.

Both sides run in turn, so that a busy machine slows both. Needs torch, transformers and safetensors.

    model_transformers.py --seer build/apps/seer/seer --dtype float32 --json out.json
"""

import argparse
import gc
import time

import seer_program
import torch
import transformers


def time_model(model, args):
    """{(stage, tokens): tokens per second}, the better of two runs after one to warm up."""
    rates = {}
    generator = torch.Generator().manual_seed(1)
    longest = max(seer_program.integers(args.prefill) + seer_program.integers(args.decode_context))
    ids = torch.randint(model.config.vocab_size, (1, longest + args.decode_tokens), generator=generator)
    with torch.inference_mode():
        for length in seer_program.integers(args.prefill):
            for _ in range(2):
                gc.collect()
                start = time.perf_counter()
                model(ids[:, :length], use_cache=True, logits_to_keep=1)
                rate = length / (time.perf_counter() - start)
                rates["prefill", length] = max(rate, rates.get(("prefill", length), 0.0))
        for context in seer_program.integers(args.decode_context):
            cache = model(ids[:, :context], use_cache=True, logits_to_keep=1).past_key_values
            for _ in range(3):
                start = time.perf_counter()
                for i in range(args.decode_tokens):
                    model(ids[:, context + i:context + i + 1], past_key_values=cache, use_cache=True)
                rate = args.decode_tokens / (time.perf_counter() - start)
                cache.crop(-args.decode_tokens)
                rates["decode", context] = max(rate, rates.get(("decode", context), 0.0))
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    seer_program.add_arguments(parser)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of both sides")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=getattr(torch, args.dtype), attn_implementation="sdpa").eval()
    seer, peer, document = {}, {}, None
    for _ in range(args.rounds):
        rates, document = seer_program.run(args, args.dtype)
        seer_program.keep_best(seer, rates)
        seer_program.keep_best(peer, time_model(model, args))
    name = f"transformers {args.dtype}"
    seer_program.report(seer, {name: peer}, args, document,
                        {"benchmark": "model_transformers", "transformers": transformers.__version__,
                         "torch": torch.__version__, "peer_dtype": args.dtype})


if __name__ == "__main__":
    main()
