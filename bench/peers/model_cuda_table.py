#!/usr/bin/env python3
"""Joins results of `seer bench model --device cuda --json` and model_cuda_transformers.py, of one shape on one GPU, into
Markdown tables and, with --svg, the figure of time to first token against length. With --json all of it is also written
to one file, which can be read again. Of a case that was measured again the later file counts.

    model_cuda_table.py prefill.json decode.json peers.jsonl [--svg figure.svg] [--json joined.json]
"""

import argparse
import json
import math

from attention_cuda_table import COLOURS, text
from svg_panel import Panel, document, legend_entry

LINES = (*COLOURS, "#b07c00", "#7a4fa3")
PEERS = {"flash": "transformers, FlashAttention-2", "cudnn": "transformers, cuDNN"}
STAGES = ("projection", "rope_pool", "gate", "select", "attention", "mlp", "other")
DASHED = [f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
          for colour, dashes in (("#555", "7 3"), ("#999", "2 3"))]


def documents(path):
    with open(path, encoding="utf-8") as file:
        content = file.read()
    try:
        return [json.loads(content)]
    except ValueError:
        return [json.loads(line) for line in content.splitlines() if line.startswith("{")]


def load(paths):
    """{"device", "shape", "prefill", "decode", "peers"} of all files together."""
    joined = {"prefill": [], "decode": [], "peers": []}
    runs = set()
    for path in paths:
        for content in documents(path):
            runs.add((content["device"], content["shape"]))
            if "peer" in content:
                joined["peers"].append(content)
            for name in joined:
                joined[name] += content.get(name, [])
    if len(runs) != 1:
        raise SystemExit(f"results of one shape on one GPU expected, got {sorted(runs)}")
    (device, shape), = runs
    return {"device": device, "shape": shape} | joined


class Results:
    def __init__(self, joined):
        self.device, self.shape, self.decode = joined["device"], joined["shape"], joined["decode"]
        # None: dense.
        self.own = {(r["tokens"], None if r["selector"] == "dense" else r["density_asked"]): r
                    for r in joined["prefill"]}
        self.peers = {(r["op"], r.get("tokens", r.get("context")), r["attention"]): r for r in joined["peers"]}
        self.lengths = sorted({tokens for tokens, _ in self.own} |
                              {tokens for op, tokens, _ in self.peers if op == "prefill"})
        self.densities = sorted({density for _, density in self.own if density is not None}, reverse=True)

    def seconds(self, tokens, density):
        return self.own.get((tokens, density), {}).get("seconds")

    def peer_seconds(self, tokens, attention):
        return self.peers.get(("prefill", tokens, attention), {}).get("seconds")

    def peer_cell(self, op, tokens, attention, field, form):
        """The number, or why there is none."""
        record = self.peers.get((op, tokens, attention), {})
        return record.get("error", "") if field not in record else format(record[field], form)


def ratio(a, b):
    return a / b if a and b else None


def print_row(cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def print_head(cells):
    print_row(cells)
    print("|" + "---|" * len(cells))


def print_first_token(results):
    print("Time to first token, seconds (measured density):\n")
    print_head(["tokens", *PEERS.values(), "seer dense", *(f"seer at density {d:g}" for d in results.densities)])
    for tokens in results.lengths:
        cells = [tokens, *(results.peer_cell("prefill", tokens, name, "seconds", ".3f") for name in PEERS),
                 text(results.seconds(tokens, None), ".3f")]
        for density in results.densities:
            record = results.own.get((tokens, density))
            cells.append(f"{record['seconds']:.3f} ({record['density']:.3f})" if record else "")
        print_row(cells)


def print_speedups(results):
    print("Speed-up over own dense / transformers on cuDNN / transformers on FlashAttention-2:\n")
    print_head(["tokens", "dense", *(f"density {d:g}" for d in results.densities)])
    for tokens in results.lengths:
        cells = [tokens]
        for density in (None, *results.densities):
            seconds = results.seconds(tokens, density)
            over = [results.seconds(tokens, None), *(results.peer_seconds(tokens, name) for name in ("cudnn", "flash"))]
            cells.append(" / ".join(text(ratio(other, seconds), ".2f", "x") or "-" for other in over))
        print_row(cells)


def print_stages(results):
    print("Shares of the time to first token, and how far apart the runs were:\n")
    print_head(["tokens", "density", *(stage.replace("rope_pool", "RoPE + pool") for stage in STAGES), "spread"])
    for (tokens, density), record in sorted(results.own.items(), key=lambda x: (x[0][0], -(x[0][1] or 2))):
        stages = record["stages"]
        total = sum(stages.values())
        print_row([tokens, "dense" if density is None else f"{record['density']:.3f}",
                   *(f"{stages[stage] / total:.1%}" for stage in STAGES), f"{record['spread'] / record['seconds']:.1%}"])


def print_decode(results):
    print("Decode:\n")
    print_head(["context", "batch", "tokens/s", "GB/s", "copy GB/s", "share of copy",
                *(f"{name}, tokens/s" for name in PEERS.values()), "over the faster"])
    for r in results.decode:
        names = PEERS if r["batch"] == 1 else ()
        rates = [results.peers.get(("decode", r["context"], name), {}).get("tokens_per_second", 0) for name in names]
        cells = [results.peer_cell("decode", r["context"], name, "tokens_per_second", ".1f") for name in names]
        print_row([r["context"], r["batch"], f"{r['tokens_per_second']:.1f}", f"{r['bytes_per_second'] / 1e9:.0f}",
                   f"{r['copy_bytes_per_second'] / 1e9:.0f}", f"{r['share']:.2f}", *(cells or [""] * len(PEERS)),
                   text(ratio(r["tokens_per_second"], max(rates, default=0)), ".1f", "x")])


def curves(results):
    """[(label, style, colour, {tokens: seconds})], the peers first."""
    found = [(label, style, None, {t: results.peer_seconds(t, name) for t in results.lengths})
             for (name, label), style in zip(PEERS.items(), DASHED)]
    for i, density in enumerate((None, *results.densities)):
        colour = LINES[i % len(LINES)]
        found.append(("seer dense" if density is None else f"seer, density {density:g}",
                      f'stroke="{colour}" stroke-width="2"', colour,
                      {t: results.seconds(t, density) for t in results.lengths}))
    return [(label, style, colour, {t: s for t, s in line.items() if s}) for label, style, colour, line in found
            if any(line.values())]


def log_scale(low, high):
    """Low .. high to 0.03 .. 0.97."""
    return lambda value: 0.03 + 0.94 * math.log(value / low) / math.log(max(high / low, 1.01))


def write_svg(path, results):
    """Two panels: seconds against tokens, both by powers, and speed-up over transformers with FlashAttention-2 (over own
    dense attention where that was not measured)."""
    width, height, left, top, gap = 420, 320, 60, 50, 90
    lines = curves(results)
    seconds = [s for _, _, _, line in lines for s in line.values()]
    base = next((line for label, _, _, line in lines if label in (PEERS["flash"], "seer dense")), {})
    base_label = next((label for label, _, _, line in lines if line is base), "")
    ratios = [(label, style, colour, {t: base[t] / s for t, s in line.items() if t in base})
              for label, style, colour, line in lines]
    peak = 1.1 * max(v for _, _, _, line in ratios for v in line.values())
    across = log_scale(min(results.lengths), max(results.lengths))
    time = Panel(left, top, width, height, across, log_scale(min(seconds), max(seconds)))
    speed = Panel(left + width + gap, top, width, height, across, lambda v: v / peak)
    time.frame("Time to first token, seconds")
    speed.frame(f"Speed-up over {base_label}")
    for power in range(math.ceil(math.log10(min(seconds) / 2)), math.floor(math.log10(max(seconds))) + 1):
        for tick in (10.0**power, 2 * 10.0**power, 5 * 10.0**power):
            if min(seconds) <= tick <= max(seconds):
                time.y_tick(tick, f"{tick:g}")
    for tick in range(0, int(peak) + 1):
        speed.y_tick(tick, f"{tick}x")
    for panel, drawn in ((time, lines), (speed, ratios)):
        for tokens in results.lengths:
            panel.x_tick(tokens, f"{tokens // 1024}k")
        panel.x_label("tokens")
        for _, style, colour, line in drawn:
            panel.line(line.items(), style)
            panel.dots(line.items(), colour or "#777")
    parts = time.parts + speed.parts
    for i, (label, style, _, _) in enumerate(lines):
        parts.append(legend_entry(left + i % 4 * 240, top + height + 66 + i // 4 * 22, style, label))
    bottom = top + height + 66 + (len(lines) + 3) // 4 * 22
    parts.append(f'<text x="{left}" y="{bottom}">{results.shape}, batch 1, {results.device}</text>')
    with open(path, "w", encoding="utf-8") as file:
        file.write(document(2 * width + gap + left + 30, bottom + 18, parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="+")
    parser.add_argument("--svg")
    parser.add_argument("--json")
    args = parser.parse_args()
    joined = load(args.results)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(joined, file, indent=1)
            file.write("\n")
    results = Results(joined)
    print(f"{results.shape}, {results.device}\n")
    if results.lengths:
        print_first_token(results)
    if results.own:
        print()
        print_speedups(results)
        print()
        print_stages(results)
    if results.decode:
        print()
        print_decode(results)
    if args.svg and results.lengths:
        write_svg(args.svg, results)


if __name__ == "__main__":
    main()
