#!/usr/bin/env python3
"""Compares perplexities with those that the reference implementation's gate gives on the embedded model, in float32.

Runs `seer eval ppl` on the documents in GOLDEN/reference_on_pico (some minutes on two cores; an interrupted run goes
on) and prints the largest deviations. Exit code 1 if one exceeds its bound.

    scripts/reference_perplexity.py --seer build/apps/seer/seer --golden ../shared/golden
"""

import argparse
import json
import os
import subprocess
import sys

# Relative deviation of the perplexity, by selector.
BOUNDS = {"dense": 0.0005, "gate": 0.003, "local": 0.001}
DENSITY_DIGITS = 5e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seer", default="build/apps/seer/seer")
    parser.add_argument("--golden", default="../shared/golden")
    parser.add_argument("--lengths", default="4096,8192,16384")
    parser.add_argument("--results", default="results/reference")
    args = parser.parse_args()
    folder = os.path.join(args.golden, "reference_on_pico")
    subprocess.run([args.seer, "eval", "ppl", "--gate", folder, "--data", os.path.join(folder, "docs.jsonl"),
                    "--lengths", args.lengths, "--selectors", "dense,gate,local", "--rule", "nz_ratio", "--values",
                    "0.5,0.4,0.3,0.2,0.1", "--dtype", "float32", "--results", args.results], check=True)
    with open(os.path.join(folder, "perplexity.json")) as file:
        expected = json.load(file)
    with open(os.path.join(args.results, "ppl.json")) as file:
        rows = json.load(file)
    worst = {}
    failed = False
    for row in rows:
        want = expected[str(row["length"])][f"{row['selector']}_{row['value']}"]
        deviation = abs(row["ppl"] / want["ppl_float32"] - 1)
        density = abs(row["density"] - want["density"])
        # Written so that NaN fails.
        fine = deviation <= BOUNDS[row["selector"]] and density <= DENSITY_DIGITS
        failed |= not fine
        if not fine:
            print(f"{row['length']} {row['selector']} {row['value']}: perplexity {row['ppl']:.5f}, expected "
                  f"{want['ppl_float32']:.5f}; density {row['density']:.5f}, expected {want['density']:.5f}")
        key = row["length"], row["selector"]
        worst[key] = tuple(map(max, worst.get(key, (0, 0)), (deviation, density)))
    for (length, selector), (deviation, density) in worst.items():
        print(f"{length:>6} {selector:<6} perplexity within {100 * deviation:.4f} %, density within {density:.1e}")
    sys.exit(1 if failed or not rows else 0)


if __name__ == "__main__":
    main()
