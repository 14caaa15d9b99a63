#!/usr/bin/env python3
"""Draws results of `seer eval ppl --json` as an SVG: change of perplexity over dense against the measured density, a panel
for each length; and prints the Markdown table. Rows of several files count together; dense rows of a length must agree.

    perplexity_figure.py gate.json baselines.json --svg figure.svg
"""

import argparse
import json
import math

from attention_cuda_table import COLOURS
from svg_panel import Panel, document, legend_entry

NAMES = {"gate": "gate", "oracle": "oracle (true attention, top-k)", "local": "sink + local"}
LINEAR = 1.0  # percent: the scale is linear up to here and logarithmic beyond


def load(paths):
    dense, sparse = {}, {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for row in json.load(file):
                if row["selector"] != "dense":
                    sparse[row["selector"], row["length"], row["value"]] = row
                elif abs(dense.setdefault(row["length"], row)["ppl"] / row["ppl"] - 1) > 1e-4:
                    raise SystemExit(f"{path}: dense perplexity at {row['length']} tokens differs from another file's")
    return dense, sparse


def change(row, dense):
    return 100 * (row["ppl"] / dense[row["length"]]["ppl"] - 1)


def print_table(dense, sparse):
    lengths = sorted(dense)
    print("| | " + " | ".join(str(n) for n in lengths) + " |")
    print("|---|" + "---|" * len(lengths))
    print("| dense | " + " | ".join(f"{dense[n]['ppl']:.3f}" for n in lengths) + " |")
    for selector in NAMES:
        for value in sorted({v for s, _, v in sparse if s == selector}, reverse=True):
            rows = [sparse.get((selector, n, value)) for n in lengths]
            cells = [f"{change(r, dense):+.2f} % @ {r['density']:.3f}" if r else "" for r in rows]
            print(f"| {selector} {value:g} | " + " | ".join(cells) + " |")


def scale(percent):
    """Linear to LINEAR percent, then a step for each factor of ten."""
    size = abs(percent)
    place = size if size <= LINEAR else LINEAR * (1 + math.log10(size / LINEAR))
    return math.copysign(place, percent)


def write_svg(path, dense, sparse):
    lengths = sorted(dense)
    width, height, left, top, gap = 200, 240, 60, 50, 40
    changes = [change(r, dense) for r in sparse.values()]
    low, high = scale(min(changes)) - 0.1, scale(max(changes)) + 0.1
    parts = []
    for i, length in enumerate(lengths):
        panel = Panel(left + i * (width + gap), top, width, height, lambda v: v / 0.55,
                      lambda v: (scale(v) - low) / (high - low))
        panel.frame(f"{length // 1024}k tokens")
        for tick in (-1, 0, 1, 3, 10, 30):
            if low <= scale(tick) <= high:
                panel.y_tick(tick, f"{tick:+d} %" if i == 0 else "")
        for tick in (0.1, 0.3, 0.5):
            panel.x_tick(tick, f"{tick:g}")
        panel.x_label("measured density")
        for selector, colour in zip(NAMES, COLOURS):
            points = sorted((r["density"], change(r, dense)) for (s, n, _), r in sparse.items()
                            if s == selector and n == length)
            panel.line(points, f'stroke="{colour}" stroke-width="2"')
            panel.dots(points, colour)
        parts += panel.parts
    for i, (name, colour) in enumerate(zip(NAMES.values(), COLOURS)):
        parts.append(legend_entry(left + i * 260, top + height + 66, f'stroke="{colour}" stroke-width="2"', name))
    parts.append(f'<text x="{left}" y="{top + height + 88}">Change of perplexity over dense attention; linear up to 1 %, '
                 f'logarithmic beyond.</text>')
    with open(path, "w", encoding="utf-8") as file:
        file.write(document(left + len(lengths) * (width + gap), top + height + 104, parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="+")
    parser.add_argument("--svg")
    args = parser.parse_args()
    dense, sparse = load(args.results)
    print_table(dense, sparse)
    if args.svg:
        write_svg(args.svg, dense, sparse)


if __name__ == "__main__":
    main()
