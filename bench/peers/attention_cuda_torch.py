#!/usr/bin/env python3
"""Times causal attention of other implementations on the same GPU, one JSON record a line.

Peers: cuDNN and FlashAttention-2 through torch's scaled_dot_product_attention (dense), FlexAttention and a Triton
kernel over 64x64 block masks (sparse); cuDNN for decode. The operation `error` measures how far PyTorch's own attention
in bf16 and fp16 is from float64, beside the rounding that the tests of the kernels allow for. Needs torch with CUDA and
Triton.

    attention_cuda_torch.py --op prefill,decode --lengths 8192,32768 --densities 0.5,0.1 --peers cudnn,flash,flex,triton
"""

import argparse
import json
import math

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch.nn.attention import SDPBackend, sdpa_kernel

BLOCK = 64


@triton.jit
def block_sparse_kernel(q_ptr, k_ptr, v_ptr, o_ptr, index_ptr, count_ptr, scale_log2,
                        length, rows, HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr,
                        WIDTH, BLOCK: tl.constexpr):
    """One query block and head a program; walks a list of selected key blocks. Tensors are [length, heads, D]."""
    row = rows - 1 - tl.program_id(0)
    head = tl.program_id(1)
    kv_head = head // GROUP
    kv_heads: tl.constexpr = HEADS // GROUP
    t = row * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    n = tl.arange(0, BLOCK)
    q = tl.load(q_ptr + t[:, None] * (HEADS * D) + head * D + d[None, :], mask=t[:, None] < length, other=0.0)
    acc = tl.zeros([BLOCK, D], dtype=tl.float32)
    top = tl.full([BLOCK], -float("inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    list_ptr = index_ptr + (head * rows + row).to(tl.int64) * WIDTH
    count = tl.load(count_ptr + head * rows + row)
    for i in range(count):
        block = tl.load(list_ptr + i)
        key = block * BLOCK + n
        offset = key * (kv_heads * D) + kv_head * D
        k = tl.load(k_ptr + offset[None, :] + d[:, None], mask=key[None, :] < length, other=0.0)
        s = tl.dot(q, k) * scale_log2
        s = tl.where(t[:, None] >= key[None, :], s, -float("inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - new_top[:, None])
        factor = tl.exp2(top - new_top)
        total = total * factor + tl.sum(p, 1)
        v = tl.load(v_ptr + offset[:, None] + d[None, :], mask=key[:, None] < length, other=0.0)
        acc = acc * factor[:, None] + tl.dot(p.to(v.dtype), v)
        top = new_top
    tl.store(o_ptr + t[:, None] * (HEADS * D) + head * D + d[None, :], (acc / total[:, None]).to(q.dtype),
             mask=t[:, None] < length)


def triton_block_sparse(q, k, v, index, count, warps, stages):
    length, heads, dim = q.shape
    out = torch.empty_like(q)
    rows = count.shape[1]
    block_sparse_kernel[(rows, heads)](q, k, v, out, index, count, dim**-0.5 / math.log(2), length, rows,
                                       heads, heads // k.shape[1], dim, index.shape[2], BLOCK,
                                       num_warps=warps, num_stages=stages)
    return out


def random_mask(heads, n, density, generator):
    """bool [heads, n, n]: the diagonal and uniformly drawn other causal blocks, as many a row as top-k keeps."""
    k = max(1, round((1 - math.sqrt(1 - density)) * n))
    mask = torch.zeros(heads, n, n, dtype=torch.bool, device="cuda")
    causal = torch.ones(n, n, dtype=torch.bool, device="cuda").tril(-1)
    for head in range(heads):
        score = torch.rand(n, n, device="cuda", generator=generator).masked_fill(~causal, -1)
        score.diagonal().fill_(2)
        top = score.topk(k, dim=1).indices
        mask[head].scatter_(1, top, True)
    return mask & torch.ones(n, n, dtype=torch.bool, device="cuda").tril()


def block_lists(mask):
    """(index int32 [heads, n, width], count int32 [heads, n]) of the selected blocks of every row."""
    count = mask.sum(-1, dtype=torch.int32)
    width = int(count.max())
    index = torch.argsort(mask.to(torch.uint8), dim=-1, descending=True, stable=True)[..., :width]
    return index.to(torch.int32).contiguous(), count


def milliseconds(function):
    return triton.testing.do_bench(function, warmup=50, rep=300, return_mode="median")


def time_decode(args, batch, length):
    """cuDNN's attention of one query a sequence, dense."""
    q = torch.randn(batch, args.heads, 1, args.dim, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, args.kv_heads, length, args.dim, device="cuda", dtype=torch.bfloat16)
            for _ in range(2))
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        ms = milliseconds(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    print(json.dumps({"op": "decode", "peer": "cudnn", "device": torch.cuda.get_device_name(),
                      "torch": torch.__version__, "batch": batch, "length": length, "heads": args.heads,
                      "kv_heads": args.kv_heads, "dim": args.dim, "dtype": "bf16", "mask": "dense", "density": 1.0,
                      "ms": ms, "gbps": 2 * k.numel() * 2 / ms * 1e-6}), flush=True)


def record_errors(length, dim):
    """Largest differences to float64 of causal attention on normal values, 4 heads: PyTorch's in the type (products and
    softmax one after the other, and SDPA's own composition), and float64 with scores, probabilities and output rounded
    to the type, as tests/cuda has it."""
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float16, "fp16")):
        generator = torch.Generator("cuda").manual_seed(2)
        q, k, v = (torch.randn(4, length, dim, device="cuda", dtype=dtype, generator=generator) for _ in range(3))
        hidden = torch.ones(length, length, dtype=torch.bool, device="cuda").triu(1)
        scale = dim**-0.5

        def attention(q, k, v, rounded):
            scores = (rounded(q @ k.transpose(1, 2)) * scale).masked_fill(hidden, -float("inf"))
            return rounded(rounded(scores.softmax(-1)) @ v)

        wide = [x.double() for x in (q, k, v)]
        exact = attention(*wide, lambda x: x)
        with sdpa_kernel(SDPBackend.MATH):
            math_backend = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        errors = {"products": attention(q, k, v, lambda x: x), "sdpa_math": math_backend,
                  "rounding": attention(*wide, lambda x: x.to(dtype).double())}
        print(json.dumps({"op": "error", "peer": "torch", "device": torch.cuda.get_device_name(),
                          "torch": torch.__version__, "length": length, "heads": 4, "dim": dim, "dtype": name}
                         | {key: (out.double() - exact).abs().max().item() for key, out in errors.items()}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--op", default="prefill", help="of prefill, decode and error")
    parser.add_argument("--batches", default="1,16", help="decode")
    parser.add_argument("--lengths", default="8192,32768")
    parser.add_argument("--densities", default="0.5,0.1")
    parser.add_argument("--sparse-lengths", help="lengths of the sparse peers (default: all)")
    parser.add_argument("--peers", default="cudnn,flash,flex,triton")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--dim", type=int, default=128)
    args = parser.parse_args()
    peers = args.peers.split(",")
    known = {"cudnn", "flash", "flex", "triton"}
    if not set(peers) <= known:
        parser.error(f"--peers: known are {sorted(known)}, got {args.peers}")
    group = args.heads // args.kv_heads
    generator = torch.Generator("cuda").manual_seed(1)

    operations = set(args.op.split(","))
    if not operations <= {"prefill", "decode", "error"}:
        parser.error(f"--op: known are prefill, decode and error, got {args.op}")
    sparse_lengths = (args.sparse_lengths or args.lengths).split(",")

    if "error" in operations:
        for length in (64, 1024):
            for dim in (64, 128):
                record_errors(length, dim)
    if "decode" in operations:
        for batch in map(int, args.batches.split(",")):
            for length in map(int, args.lengths.split(",")):
                time_decode(args, batch, length)
    if "prefill" not in operations:
        return

    for length in map(int, args.lengths.split(",")):
        n = (length + BLOCK - 1) // BLOCK
        q = torch.randn(length, args.heads, args.dim, device="cuda", dtype=torch.bfloat16, generator=generator)
        k, v = (torch.randn(length, args.kv_heads, args.dim, device="cuda", dtype=torch.bfloat16,
                            generator=generator) for _ in range(2))
        qh, kh, vh = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))

        def report(peer, ms, density, mask):
            flop = 4 * BLOCK * BLOCK * args.dim * args.heads * density * n * (n + 1) / 2
            print(json.dumps({"op": "prefill", "peer": peer, "device": torch.cuda.get_device_name(),
                              "torch": torch.__version__, "length": length, "heads": args.heads,
                              "kv_heads": args.kv_heads, "dim": args.dim, "dtype": "bf16", "mask": mask,
                              "density": density, "ms": ms, "tflops": flop / ms * 1e-9}), flush=True)

        for peer, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
            if peer in peers:
                with sdpa_kernel(backend):
                    report(peer, milliseconds(lambda: F.scaled_dot_product_attention(
                        qh, kh, vh, is_causal=True, enable_gqa=True)), 1.0, "dense")

        for density in map(float, args.densities.split(",")) if args.densities else ():
            if not {"flex", "triton"} & set(peers) or str(length) not in sparse_lengths:
                break
            mask = random_mask(args.heads, n, density, generator)
            measured = mask.sum().item() / (args.heads * n * (n + 1) / 2)
            if "triton" in peers:
                index, count = block_lists(mask)
                report("triton", min(milliseconds(lambda: triton_block_sparse(q, k, v, index, count, warps, stages))
                                     for warps, stages in ((4, 2), (4, 3))), measured, "random")
                del index
            if "flex" in peers:
                from torch.nn.attention.flex_attention import BlockMask, flex_attention

                def causal(b, h, qi, ki):
                    return qi >= ki

                # Whole blocks below the diagonal need no element mask.
                eye = torch.eye(n, dtype=torch.bool, device="cuda")
                lists = []
                for part in (mask & eye, mask & ~eye):
                    count = part.sum(-1, dtype=torch.int32)
                    index = torch.argsort(part.to(torch.uint8), dim=-1, descending=True, stable=True)
                    lists += [count.unsqueeze(0), index.to(torch.int32).unsqueeze(0)]
                block_mask = BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=BLOCK, mask_mod=causal,
                                                      seq_lengths=(length, length), compute_q_blocks=False)
                compiled = torch.compile(flex_attention, dynamic=False)
                tiles = {"BLOCK_M": BLOCK, "BLOCK_N": BLOCK}
                report("flex", milliseconds(lambda: compiled(qh, kh, vh, block_mask=block_mask, enable_gqa=True,
                                                             kernel_options=tiles)), measured, "random")


if __name__ == "__main__":
    main()
