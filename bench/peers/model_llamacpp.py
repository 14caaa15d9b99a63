#!/usr/bin/env python3
"""Times prefill and decode of llama.cpp on the CPU beside `seer bench model`.

Both sides run in turn, so that a busy machine slows both. llama.cpp runs with and without flash attention for every
GGUF file given, with a cache of the file's type; the smallest ratio is the one to its best setting. Needs its
llama-bench and GGUF files made with its convert_hf_to_gguf.py (--outtype f16 or bf16; it does not know the embedded
model's pre-tokenizer, so get_vocab_base_pre() must return any it knows: only token ids are timed).

    model_llamacpp.py --seer build/apps/seer/seer --llama-bench llama-bench --gguf f16=pico-f16.gguf,bf16=pico-bf16.gguf
"""

import argparse
import json
import subprocess

import seer_program


def time_llama(args, gguf, cache, flash):
    """{(stage, tokens): tokens per second}, the better of two runs."""
    base = [args.llama_bench, "-m", gguf, "-t", str(args.threads), "-fa", str(flash), "-r", "2", "-o", "json", "-ctk",
            cache, "-ctv", cache]
    rates = {}
    for extra in (["-p", args.prefill, "-n", "0"],
                  ["-p", "0", "-n", str(args.decode_tokens), "-d", args.decode_context]):
        output = subprocess.run(base + extra, check=True, capture_output=True, text=True).stdout
        for record in json.loads(output):
            case = ("decode", record["n_depth"]) if record["n_gen"] > 0 else ("prefill", record["n_prompt"])
            rates[case] = max(record["samples_ts"])
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    seer_program.add_arguments(parser)
    parser.add_argument("--llama-bench", required=True, help="llama.cpp's benchmark program")
    parser.add_argument("--gguf", required=True, help="type=file,...: the model with f16 or bf16 weights")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"], help="of seer's KV cache")
    parser.add_argument("--llama-version", default="unknown", help="noted in the results")
    args = parser.parse_args()
    files = dict(pair.split("=", 1) for pair in args.gguf.split(","))
    seer, peers, document = {}, {}, None
    for _ in range(args.rounds):
        rates, document = seer_program.run(args, args.dtype)
        seer_program.keep_best(seer, rates)
        for dtype, gguf in files.items():
            for flash in (0, 1):
                name = f"llama.cpp {dtype}{' -fa' if flash else ''}"
                seer_program.keep_best(peers.setdefault(name, {}), time_llama(args, gguf, dtype, flash))
    seer_program.report(seer, peers, args, document,
                        {"benchmark": "model_llamacpp", "llama_cpp": args.llama_version})


if __name__ == "__main__":
    main()
