"""Runs `seer bench model` and joins the results of alternating rounds; shared by the scripts beside it."""

import json
import os
import subprocess
import tempfile


def add_arguments(parser):
    parser.add_argument("--seer", default="build/apps/seer/seer", help="the program to compare with")
    parser.add_argument("--model", default="models/pico-llama-19m", help="Hugging Face model folder")
    parser.add_argument("--prefill", default="2048,8192", help="prompt lengths in tokens")
    parser.add_argument("--decode-context", default="2048,8192", help="tokens held before decoding")
    parser.add_argument("--decode-tokens", type=int, default=64, help="tokens decoded in a run")
    parser.add_argument("--densities", default="1,0.2", help="seer's shares of attention in prefill")
    parser.add_argument("--selector", default="gate", help="what chooses seer's blocks: gate, local or random")
    parser.add_argument("--gate", default="", help="gate folder")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="alternations; the best of each side counts")
    parser.add_argument("--json", default="", help="also write the results to this file")


def integers(text):
    return [int(word) for word in text.split(",")]


def run(args, dtype):
    """One round: {case: tokens per second} and the whole JSON document. A case is (stage, tokens, density)."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "seer.json")
        command = [args.seer, "bench", "model", args.model, "--lengths", args.prefill, "--contexts",
                   args.decode_context, "--decode-tokens", str(args.decode_tokens), "--densities", args.densities,
                   "--selector", args.selector, "--dtype", dtype, "--threads", str(args.threads), "--repeats", "2",
                   "--json", path]
        if args.gate:
            command += ["--gate", args.gate]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with open(path) as file:
            document = json.load(file)
    rates = {}
    for record in document["records"]:
        if record["stage"] == "prefill":
            case = ("prefill", record["tokens"], record["density_wanted"])
        else:
            case = ("decode", record["context"], 1.0)
        rates[case] = record["tokens_per_second"]
    return rates, document


def keep_best(best, rates):
    for case, rate in rates.items():
        best[case] = max(rate, best.get(case, 0.0))


def report(seer, peers, args, document, about):
    """Prints and writes tokens per second of seer and of each peer ({name: {(stage, tokens): rate}})."""
    rows = []
    print(f"{document['cpu']}, {document['isa']}, {args.threads} threads; best of {args.rounds} rounds, tokens/s")
    for (stage, tokens, density), rate in sorted(seer.items(), key=lambda item: (item[0][0], item[0][1], -item[0][2])):
        row = {"stage": stage, "tokens": tokens, "density": density, "seer": rate, "peers": {}, "ratios": {}}
        for name, rates in peers.items():
            if (stage, tokens) in rates:
                row["peers"][name] = rates[stage, tokens]
                row["ratios"][name] = rate / rates[stage, tokens]
        row["least_ratio"] = min(row["ratios"].values(), default=None)
        rows.append(row)
        text = "  ".join(f"{name} {row['peers'][name]:.1f} ({row['ratios'][name]:.2f}x)" for name in row["peers"])
        print(f"{stage:8} {tokens:6} density {density:4}  seer {rate:9.1f}  {text}")
    if args.json:
        result = {**about, "cpu": document["cpu"], "isa": document["isa"], "threads": args.threads,
                  "rounds": args.rounds, "seer_dtype": document["dtype"], "selector": args.selector, "rows": rows}
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
