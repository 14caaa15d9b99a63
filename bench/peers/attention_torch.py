#!/usr/bin/env python3
"""Times causal prefill attention on this CPU beside PyTorch's: scaled_dot_product_attention, and FlexAttention.

In each round every implementation runs the same shape, type and number of threads one after another, so that a
change of the machine's clock or load hits all; the least time of all rounds counts. Needs torch, and a C++
compiler for --flex.

    attention_torch.py --seer build/apps/seer/seer --lengths 2048,8192 --densities 0.1 --isa avx2 --out result.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

BLOCK = 64


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seer", required=True, help="the seer program")
    parser.add_argument("--lengths", default="2048,8192", help="tokens")
    parser.add_argument("--densities", default="0.1", help="shares of the causal blocks (top-k rule)")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"],
                        help="of torch's tensors and of seer's KV cache")
    parser.add_argument("--threads", type=int, default=0, help="0: one per core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"],
                        help="cpu: processor time by thread, for machines with other work to do")
    parser.add_argument("--isa", default="native", choices=["native", "avx2"],
                        help="avx2 limits seer, torch, MKL and oneDNN to AVX2")
    parser.add_argument("--flex", action="store_true", help="also FlexAttention, dense and sparse")
    parser.add_argument("--out", help="write the results to this JSON file")
    return parser.parse_args()


def limit_isa(isa):
    """Must run before torch is imported."""
    if isa == "avx2":
        os.environ.update(SEER_CPU_ISA="avx2", ATEN_CPU_CAPABILITY="avx2", MKL_ENABLE_INSTRUCTIONS="AVX2",
                          ONEDNN_MAX_CPU_ISA="AVX2")


def run_seer(args, length):
    """Seer's records of one length: the dense one first, then one a density."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "seer.json")
        subprocess.run([args.seer, "bench", "attention", "--lengths", str(length), "--densities", args.densities,
                        "--heads", str(args.heads), "--kv-heads", str(args.kv_heads), "--head-dim",
                        str(args.head_dim), "--dtype", args.dtype, "--threads", str(args.threads), "--repeats",
                        "2", "--clock", args.clock, "--check", "--json", path], check=True, stdout=subprocess.DEVNULL)
        with open(path) as file:
            return json.load(file)


def seconds_of(args, body):
    now = time.perf_counter if args.clock == "wall" else lambda: time.process_time() / args.threads
    start = now()
    body()
    return now() - start


def flex_runs(torch, q, k, v, densities):
    """FlexAttention with a dense causal block mask and with random ones: {density: callable}."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    compiled = torch.compile(flex_attention)
    _, heads, length, _ = q.shape
    rows = (length + BLOCK - 1) // BLOCK
    runs = {}
    for density in densities:
        generator = torch.Generator().manual_seed(1)
        share = 1 - (1 - density) ** 0.5
        keep = max(1, int(share * rows)) if density < 1 else rows
        causal = torch.ones(rows, rows).tril().bool()
        score = torch.rand(heads, rows, rows, generator=generator).masked_fill(~causal, -1)
        score.diagonal(dim1=1, dim2=2).fill_(2)
        selected = torch.zeros_like(score).scatter_(2, score.topk(keep, dim=2).indices, 1).bool() & causal

        def mask_mod(b, h, i, j, selected=selected):
            return (i >= j) & selected[h, i // BLOCK, j // BLOCK]

        mask = create_block_mask(mask_mod, 1, heads, length, length, device="cpu", BLOCK_SIZE=BLOCK)
        measured = selected.sum().item() / (heads * rows * (rows + 1) / 2)
        runs[measured] = lambda mask=mask: compiled(q, k, v, block_mask=mask, enable_gqa=True)
    return runs


def main():
    args = parse_arguments()
    limit_isa(args.isa)
    import torch
    args.threads = args.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    dtype = getattr(torch, args.dtype)
    densities = [float(x) for x in args.densities.split(",")]
    result = {"benchmark": "attention against torch", "torch": torch.__version__,
              "torch_isa": torch.backends.cpu.get_cpu_capability(), "threads": args.threads, "dtype": args.dtype,
              "heads": args.heads, "kv_heads": args.kv_heads, "head_dim": args.head_dim, "rounds": args.rounds,
              "clock": args.clock,
              "records": []}
    print(f"{'length':>8} {'implementation':>16} {'density':>8} {'ms':>10} {'GFLOP/s':>9} {'SDPA / it':>10}")
    for length in [int(x) for x in args.lengths.split(",")]:
        shape = lambda heads: torch.randn(1, heads, length, args.head_dim).to(dtype)
        q, k, v = shape(args.heads), shape(args.kv_heads), shape(args.kv_heads)
        sdpa = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        peers = {("torch SDPA", 1.0): sdpa}
        if args.flex:
            for density, run in flex_runs(torch, q, k, v, [1.0] + densities).items():
                peers["FlexAttention", density] = run
        for run in peers.values():
            run()
        least = {}
        gate = {}
        for _ in range(args.rounds):
            for key, run in peers.items():
                least[key] = min(least.get(key, float("inf")), seconds_of(args, run))
            seer = run_seer(args, length)
            result.update(cpu=seer["cpu"], seer_isa=seer["isa"])
            result["peak_gflops"] = max(result.get("peak_gflops", 0), seer["peak_gflops"])
            for record in seer["records"]:
                key = ("seer", record["density"])
                least[key] = min(least.get(key, float("inf")), record["seconds_least"])
                gate[key] = min(gate.get(key, float("inf")), record["gate_seconds"])
        for (name, density), seconds in least.items():
            gate_seconds = gate.get((name, density), 0.0)
            gflops = 2 * args.heads * args.head_dim * length * (length + 1) * density / seconds * 1e-9
            ratio = least["torch SDPA", 1.0] / (seconds + gate_seconds)
            print(f"{length:>8} {name:>16} {density:>8.3f} {seconds * 1e3:>10.2f} {gflops:>9.1f} {ratio:>10.2f}")
            result["records"].append({"length": length, "implementation": name, "density": density,
                                      "seconds": seconds, "gate_seconds": gate_seconds, "gflops": gflops,
                                      "speed_up_over_sdpa_with_gate": ratio})
        sys.stdout.flush()
    if args.out:
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
