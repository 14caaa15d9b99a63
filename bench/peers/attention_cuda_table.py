#!/usr/bin/env python3
"""Joins records of `seer bench attention --device cuda --json` and attention_cuda_torch.py (an array or JSON lines, of one
run on one GPU) into Markdown tables and, with --svg, the figure of speed-up over dense attention against sparsity. With
--json they are also written to one file. Records of one shape of heads are joined at a time.

    attention_cuda_table.py prefill.json decode.json peers.jsonl [--svg figure.svg] [--json joined.json]
"""

import argparse
import json
import statistics

from svg_panel import Panel, document, legend_entry

COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44")


def load(paths):
    records = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            content = file.read()
        if content.startswith("["):
            records += json.loads(content)
        else:
            records += [json.loads(line) for line in content.splitlines() if line.startswith("{")]
    devices = {r["device"] for r in records}
    if len(devices) != 1:
        raise SystemExit(f"records of one GPU expected, got {sorted(devices)}")
    return records, devices.pop()


def median_ms(records, **wanted):
    times = [r["ms"] for r in records if all(r.get(k) == v for k, v in wanted.items())]
    return statistics.median(times) if times else None


def text(value, form, unit=""):
    return "" if value is None else format(value, form) + unit


def prefill_rows(records):
    own = {}
    for r in records:
        if r["op"] == "prefill" and "peer" not in r and r["sharing"] == "auto":
            own.setdefault((r["length"], r["mask"], round(r["density"], 4)), []).append(r)
    for (length, mask, density), group in sorted(own.items(), key=lambda x: (x[0][0], x[0][1], -x[0][2])):
        ms = statistics.median(r["ms"] for r in group)
        cudnn = median_ms(records, op="prefill", peer="cudnn", length=length)
        flash = median_ms(records, op="prefill", peer="flash", length=length)

        def sparse(peer):
            near = [r["ms"] for r in records if r.get("peer") == peer and r["length"] == length
                    and abs(r["density"] - density) < 0.02 and mask == "random"]
            return statistics.median(near) if near else None

        yield {"length": length, "mask": mask, "density": density, "ms": ms,
               "tflops": statistics.median(r["tflops"] for r in group),
               "share": cudnn and cudnn * density / ms, "cudnn": cudnn and cudnn / ms, "flash": flash and flash / ms,
               "flex": sparse("flex"), "triton": sparse("triton"),
               "error": max((r["max_error"] for r in group if "max_error" in r), default=None)}


def print_prefill(rows):
    print("| tokens | mask | density | ms | TFLOP/s | share of cuDNN dense x density | over cuDNN | over FlashAttention-2 "
          "| FlexAttention ms | Triton ms | max error |")
    print("|" + "---|" * 11)
    for r in rows:
        print(f"| {r['length']} | {r['mask']} | {r['density']:.3f} | {r['ms']:.3f} | {r['tflops']:.0f} "
              f"| {text(r['share'], '.2f')} | {text(r['cudnn'], '.2f', 'x')} | {text(r['flash'], '.2f', 'x')} "
              f"| {text(r['flex'], '.3f')} | {text(r['triton'], '.3f')} | {text(r['error'], '.1e')} |")


def print_speedups(rows):
    """Random masks by length and nominal sparsity: over dense FlashAttention-2 / over dense cuDNN."""
    sparsities = (0, 0.5, 0.6, 0.7, 0.8, 0.9)
    print("| tokens | " + " | ".join(f"sparsity {s:g}" for s in sparsities) + " |")
    print("|" + "---|" * (1 + len(sparsities)))
    drawn = [r for r in rows if r["mask"] in ("random", "dense")]
    for length in sorted({r["length"] for r in drawn}):
        cells = []
        for sparsity in sparsities:
            near = [r for r in drawn if r["length"] == length and abs(1 - r["density"] - sparsity) < 0.02]
            cells.append(f"{text(near[0]['flash'], '.2f', 'x')} / {text(near[0]['cudnn'], '.2f', 'x')}" if near else "")
        print(f"| {length} | " + " | ".join(cells) + " |")


def print_decode(records):
    print("| batch | tokens | density | ms | GB/s | cuDNN dense ms | cuDNN GB/s | share of cuDNN's GB/s |")
    print("|" + "---|" * 8)
    for r in records:
        if r["op"] != "decode" or "peer" in r or "gate_ms" in r:
            continue
        dense = [x for x in records if x["op"] == "decode" and x.get("peer") == "cudnn"
                 and x["batch"] == r["batch"] and x["length"] == r["length"]]
        peer = dense[0] if dense else None
        print(f"| {r['batch']} | {r['length']} | {r['density']:.3f} | {r['ms']:.4f} | {r['gbps']:.0f} "
              f"| {text(peer and peer['ms'], '.4f')} | {text(peer and peer['gbps'], '.0f')} "
              f"| {text(peer and r['gbps'] / peer['gbps'], '.2f')} |")
    gated = [r for r in records if r["op"] == "decode" and "gate_ms" in r]
    if gated:
        print("\n| batch | tokens | density | attention us | gate us |")
        print("|" + "---|" * 5)
    for r in gated:
        print(f"| {r['batch']} | {r['length']} | {r['density']:.3f} | {1e3 * (r['ms'] - r['gate_ms']):.1f} "
              f"| {1e3 * r['gate_ms']:.1f} |")


def write_svg(path, rows, device):
    """Two panels: speed-up over dense cuDNN and over dense FlashAttention-2; ideal is 1 / density."""
    width, height, left, top, gap = 420, 300, 60, 50, 90
    lengths = sorted({r["length"] for r in rows})
    styles = [f'stroke="{colour}" stroke-width="2"' for colour in COLOURS]
    parts = []
    for index, (key, title) in enumerate((("cudnn", "over dense cuDNN"), ("flash", "over dense FlashAttention-2"))):
        points = [r for r in rows if r["mask"] in ("random", "dense") and r[key]]
        peak = max([r[key] for r in points] + [1]) * 1.1
        panel = Panel(left + index * (width + gap), top, width, height, lambda s: s / 0.95, lambda v, peak=peak: v / peak)
        panel.frame(f"Speed-up {title}")
        for sparsity in (0, 0.5, 0.6, 0.7, 0.8, 0.9):
            panel.x_tick(sparsity, f"{sparsity:g}")
        for tick in range(0, int(peak) + 1, 2 if peak < 14 else 4):
            panel.y_tick(tick, tick)
        panel.x_label("sparsity")
        if key == "cudnn":
            ideal = [(s / 100, 100 / (100 - s)) for s in range(0, 91) if 100 / (100 - s) <= peak]
            panel.line(ideal, 'stroke="#999" stroke-dasharray="5 4"')
        for colour, style, length in zip(COLOURS, styles, lengths):
            line = sorted((1 - r["density"], r[key]) for r in points if r["length"] == length)
            panel.line(line, style)
            panel.dots(line, colour)
        parts += panel.parts
    for i, length in enumerate(lengths):
        parts.append(legend_entry(left + i * 130, top + height + 68, styles[i], f"{length // 1024}k tokens"))
    parts.append(f'<text x="{left + len(lengths) * 130}" y="{top + height + 68}">dashed: 1 / density; {device}</text>')
    with open(path, "w", encoding="utf-8") as file:
        file.write(document(2 * width + gap + left + 30, height + top + 90, parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", nargs="+")
    parser.add_argument("--svg")
    parser.add_argument("--json")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--dim", type=int, default=128)
    args = parser.parse_args()
    records, device = load(args.records)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            file.write("[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n")
    shape = {"heads": args.heads, "kv_heads": args.kv_heads, "dim": args.dim}
    records = [r for r in records if r["op"] != "error" and all(r[k] == v for k, v in shape.items())]
    print(f"{device}\n")
    rows = list(prefill_rows(records))
    print_prefill(rows)
    print()
    print_speedups(rows)
    if any(r["op"] == "decode" for r in records):
        print()
        print_decode(records)
    if args.svg:
        write_svg(args.svg, rows, device)


if __name__ == "__main__":
    main()
