#!/usr/bin/env python3
"""What the kernels of a training step of ViT-B/16 (224 pixels, batch 256, bf16) can reach on an H100, by arithmetic alone.

    python3 docs/benchmarks/gpu_analysis.py --evergrad build/evergrad                  print the tables of gpu-analysis.md
    python3 docs/benchmarks/gpu_analysis.py --evergrad build/evergrad --write          and put them into it
    python3 docs/benchmarks/gpu_analysis.py --record build/machine_code                take registers and instructions from there

FLOPs and bytes of the mathematics are those of `evergrad explain --json`; tiles, threads and shared memory those of cuda/kernels.
Registers and instructions were compiled, by nvcc: tests/scripts/test_machine_code.py and test_sass.py leave them in the folder that
--record reads, and gpu_machine_code.json keeps them. Nothing here was timed on a GPU.
"""
import argparse
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENT, RECORD = HERE / "gpu-analysis.md", HERE / "gpu_machine_code.json"
BEGIN, END = "<!-- tables: gpu_analysis.py -->", "<!-- end of tables -->"

TFLOPS, GBPS = 790.0, 3000.0  # a product of 8192 x 8192 x 8192 and a copy, measured on an H100
PROCESSORS, WARPS, REGISTERS, SHARED, CLOCK = 132, 64, 65536, 228 * 1024, 1.83e9  # clock: 989 TFLOP/s = 132 x 4096 x it
# FLOP a microsecond of one, as cuda/kernels/matmul.h has them
RATE = {128: 3.74e6, 64: 2.8e6}
WARPGROUP_RATE = 5.98e6
SHARED_PER_CYCLE = 128  # bytes of a multiprocessor's shared memory: 32 banks of 4
LDSM_CYCLES = 512 // SHARED_PER_CYCLE  # a load of four 8 x 8 matrices of bf16
TOKENS, BATCH, WIDTH, HEADS = 197, 256, 768, 12
STEP_MS = 56.9  # of which ARROW may take a share

# kernel: (file, its name in machine code, threads of a block, bytes of shared memory of a block)
ATTENTION_TOKENS = math.ceil(TOKENS / 16) * 16
SHORT_QUERIES = math.ceil(TOKENS / 32) * 32
KERNELS = {
    "matmul 128": ("matmul", r"matmul_deviceILi128E", 256, 3 * (128 + 128) * 32 * 2),
    "matmul 64": ("matmul", r"matmul_deviceILi64E", 128, 3 * (64 + 64) * 32 * 2),
    "warpgroup 256": ("matmul_warpgroup", r"matmul_warpgroup_deviceILi256E", 256, 4 * (128 + 256) * 64 * 2 + 1024),
    "warpgroup 128": ("matmul_warpgroup", r"matmul_warpgroup_deviceILi128E", 256, 3 * (128 + 128) * 64 * 2 + 1024),
    "attention_fwd": ("attention_fwd", r"attention_fwd_deviceILi64E", 7 * 32, 2 * ATTENTION_TOKENS * (72 * 2 + 4)),
    "attention_bwd": ("attention_bwd_short", r"attention_bwd_short_deviceILi64ELi1E", 13 * 32,
                      2 * (ATTENTION_TOKENS * 72 + 4 * 32 * 72 + 2 * ATTENTION_TOKENS * 40) + 8 * SHORT_QUERIES),
    "layer_norm_fwd": ("layer_norm", r"layer_norm_fwd_deviceIN\w*bf16ELi3ELi32E", 128, 0),
    "layer_norm_bwd": ("layer_norm", r"layer_norm_bwd_deviceIN\w*bf16ELi3ELi32E", 128, 2 * 4 * 768 * 4),
    "global_norm": ("optimizer", r"11norm_device", 256, 0),
    "adam": ("optimizer", r"adam_device", 256, 0),
    "arrow_observe": ("arrow", r"14observe_device", 256, 0),
    "arrow_base": ("arrow", r"11base_device", 256, 0),
    "arrow_update": ("arrow", r"13update_device", 256, 0),
}
# name here: (pass and name in explain, kernel, accepted ms, whether the goals name this kernel: else the time of its twin in the forward pass)
ROWS = {
    "qkv": ("forward", "qkv", "product", 0.28, True),
    "proj": ("forward", "proj", "product", 0.10, True),
    "fc1 + bias + GELU": ("forward", "fc1 + GELU", "product", 0.38, True),
    "fc2": ("forward", "fc2", "product", 0.37, True),
    "fc2: d input, GELU'": ("backward", "fc2 + GELU: d input", "product", 0.39, True),
    "fc2: d weight": ("backward", "fc2 + GELU: d weight", "product", 0.38, True),
    "fc1: d input": ("backward", "fc1: d input", "product", 0.37, False),
    "fc1: d weight": ("backward", "fc1: d weight", "product", 0.38, True),
    "proj: d input": ("backward", "proj: d input", "product", 0.10, False),
    "proj: d weight": ("backward", "proj: d weight", "product", 0.10, False),
    "qkv: d input": ("backward", "qkv: d input", "product", 0.28, False),
    "qkv: d weight": ("backward", "qkv: d weight", "product", 0.28, False),
    "attention": ("forward", "attention", "attention_fwd", 0.169, True),
    "attention, backward": ("backward", "attention", "attention_bwd", 0.346, True),
    "residual + norm": ("forward", "norm 2 + residual", "layer_norm_fwd", 0.12, True),
    "residual + norm, backward": ("backward", "norm 2 + residual", "layer_norm_bwd", 0.121, True),
}


def explain(evergrad, method):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "explain.json"
        done = subprocess.run([evergrad, "explain", "--model", "vit-b", "--image-size", "224", "--patch", "16", "--batch", str(BATCH), "--precision", "bf16",
                               "--device", "cuda:0", "--tflops", str(TFLOPS), "--gbps", str(GBPS), "--method", method, "--no-legend", "--json", out],
                              capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{evergrad} explain failed: {done.stderr.strip()}")
        return {(o["pass"], o["name"]): o for o in json.loads(out.read_text())["operations"]}


def whole_call(o):
    """(FLOPs, bytes) of one call over all tokens. explain counts what runs: in the last block only the class token goes on behind
    attention. Arithmetic and activations are in proportion to tokens; weights, and their gradients, are not."""
    if " x [" in o["shape"] or o["shape"].startswith("["):  # attention, norms: all bytes belong to tokens
        whole = o["calls"] if o["name"] == "attention" else (o["calls"] - 1) + 1 / TOKENS
        return o["flops"] / whole, o["bytes"] / whole
    a, b, c = (int(x) for x in o["shape"].split(" x "))
    weights = 2 * a * b * c / (TOKENS * BATCH)  # bytes of a weight in bf16, or of its gradient
    share = o["flops"] / (o["calls"] * 2 * a * b * c)
    return 2 * a * b * c, (o["bytes"] / o["calls"] - weights) / share + weights


def floor_ms(flops, size):
    return max(flops / TFLOPS * 1e-9, size / GBPS * 1e-6)


def occupancy(kernel, registers):
    """(blocks, warps, what limits them) on one multiprocessor, whose four parts have a quarter of the registers each."""
    _, _, threads, shared = KERNELS[kernel]
    warps = threads // 32
    of_quarter = REGISTERS // 4 // (math.ceil(registers * 32 / 256) * 256)
    by = {"threads": min(WARPS // warps, 32), "shared memory": SHARED // (shared + 1024), "registers": of_quarter * 4 // warps}
    limit = min(by, key=by.get)
    return by[limit], by[limit] * warps, limit


def filled(blocks):
    """Share of the time that the multiprocessor with most blocks takes in which the average one has work."""
    return blocks / PROCESSORS / math.ceil(blocks / PROCESSORS)


def in_rounds(rows, depth, columns, tile, splits, rate):
    """Microseconds of a product by the rule of cuda/kernels/matmul.cpp: rounds of blocks, and parts that are written and read again."""
    rounds = math.ceil(tiles_of(rows, columns, tile) * splits / PROCESSORS)
    return rounds * 2 * tile[0] * tile[1] * math.ceil(depth / splits) / rate + (8 * splits * rows * columns / 3e6 if splits > 1 else 0)


def tiles_of(rows, columns, tile):
    return math.ceil(rows / tile[0]) * math.ceil(columns / tile[1])


def splits_of(name, rows, depth, columns, tile, rate):
    """Only sums without an epilogue are cut in depth."""
    most = max(1, min(depth // 512, 64)) if name.endswith("d weight") else 1
    return min(range(1, most + 1), key=lambda s: in_rounds(rows, depth, columns, tile, s, rate))


def extra_bytes(name, rows, columns, tile, splits):
    """Parts in fp32, written and read: of the product, and of the gradient of a bias."""
    extra = 2 * splits * rows * columns * 4 if splits > 1 else 0
    if name.endswith("d weight"):
        extra += 2 * splits * math.ceil(columns / tile[1]) * rows * 4
    elif "GELU'" in name:
        extra += 2 * math.ceil(rows / tile[0]) * columns * 4
    return extra


def product_as_built(name, o, code):
    """What the rule of cuda/kernels/matmul.cpp takes, and what that kernel does to shared memory."""
    rows, depth, columns = (int(x) for x in o["shape"].split(" x "))

    def best(side):
        splits = splits_of(name, rows, depth, columns, (side, side), RATE[side])
        return splits, in_rounds(rows, depth, columns, (side, side), splits, RATE[side])

    cut = best(128)[0] > 1 and best(128)[1] < best(64)[1]
    side = 128 if tiles_of(rows, columns, (128, 128)) * 2 > PROCESSORS or cut else 64
    kernel, tiles, splits = f"matmul {side}", tiles_of(rows, columns, (side, side)), best(side)[0]
    products, loads, _ = code["instructions"][kernel]  # of a warp, for the same step
    warps = KERNELS[kernel][2] // 32
    reads, writes = warps * loads * LDSM_CYCLES, 2 * side * 32 * 2 // SHARED_PER_CYCLE  # of one step of 32 along the depth
    return {"kernel": kernel, "computed": tiles * side * side / (rows * columns), "extra": extra_bytes(name, rows, columns, (side, side), splits),
            "blocks": tiles * splits, "ratio": products / loads, "shared": tiles * math.ceil(depth / 32) * (reads + writes) / PROCESSORS / CLOCK * 1e3,
            "l2": (2 * side) * 2 / (2 * side * side)}


def product_by_warpgroups(name, o, columns_of_tile):
    """cuda/kernels/matmul_warpgroup.cu: of a step of 16 each of two warpgroups reads 64 rows of a and all columns of b."""
    rows, depth, columns = (int(x) for x in o["shape"].split(" x "))
    tile = (128, columns_of_tile)
    tiles, splits = tiles_of(rows, columns, tile), splits_of(name, rows, depth, columns, tile, WARPGROUP_RATE)
    cycles = 2 * (64 + tile[1]) * 16 * 2 / SHARED_PER_CYCLE + (tile[0] + tile[1]) * 16 * 2 / SHARED_PER_CYCLE
    fill = filled(tiles * splits)
    flops, size = whole_call(o)
    computed = tiles * tile[0] * tile[1] / (rows * columns)
    bounds = ((size + extra_bytes(name, rows, columns, tile, splits)) / GBPS * 1e-6, flops * computed / TFLOPS * 1e-9 / fill,
              tiles * math.ceil(depth / 16) * cycles / PROCESSORS / CLOCK * 1e3 / fill)
    return {"blocks": tiles * splits, "fill": fill, "bound": max(bounds), "l2": flops * (tile[0] + tile[1]) * 2 / (2 * tile[0] * tile[1])}


def attention_as_built(kernel, code):
    """Tiles of 16 x 16 tokens, as tests/emulated/test_attention_tiles.cpp counts them; loads of a pair of tiles, from the loops' code."""
    tiles = math.ceil(TOKENS / 16)
    products, loads = code["per_tile_pair"][kernel]
    return {"kernel": kernel, "computed": (16 * tiles / TOKENS) ** 2, "extra": 0, "blocks": BATCH * HEADS, "ratio": products / loads,
            "shared": BATCH * HEADS * tiles * tiles * loads * LDSM_CYCLES / PROCESSORS / CLOCK * 1e3, "l2": None}


def rows_of(operations, code):
    for name, (part, operation, kind, accept, listed) in ROWS.items():
        o = operations[part, operation]
        flops, size = whole_call(o)
        built = {"kernel": kind, "computed": 1.0, "extra": 0, "blocks": None, "ratio": None, "shared": 0.0, "l2": None}
        if kind == "product":
            built = product_as_built(name, o, code)
        elif kind.startswith("attention"):
            built = attention_as_built(kind, code)
        elif kind == "layer_norm_bwd":  # partial sums of gamma and beta, 4 blocks a multiprocessor
            built["extra"] = 2 * PROCESSORS * 4 * 2 * WIDTH * 4
        fill = filled(built["blocks"]) if built["blocks"] else 1.0
        tensor = flops * built["computed"] / TFLOPS * 1e-9 if built["ratio"] else 0.0
        bounds = {"memory": (size + built["extra"]) / GBPS * 1e-6, "tensor cores": tensor / fill, "shared memory": built["shared"] / fill}
        yield dict(built, name=name, flops=flops, bytes=size, floor=floor_ms(flops, size), accept=accept, listed=listed, fill=fill, bounds=bounds,
                   bound=max(bounds.values()))


def update_rows(adamw, arrow):
    """(name, bytes, ms) of the update, and what ARROW adds to it."""
    ms = lambda o: floor_ms(o["flops"], o["bytes"])
    norm, adam = adamw["update", "gradient norm"], adamw["update", "AdamW"]
    parts = [arrow["update", f"ARROW: {part}"] for part in ("observe", "base moments", "step")]
    saved = adam["bytes"] - arrow["update", "AdamW"]["bytes"]
    added = sum(o["bytes"] for o in parts) - saved
    return [("AdamW with its norm", norm["bytes"] + adam["bytes"], ms(norm) + ms(adam)), *((o["name"], o["bytes"], ms(o)) for o in parts),
            ("ARROW instead of AdamW", added, added / GBPS * 1e-6)]


def step_floor(operations):
    """Of the step as it runs, and as it would be if the last block computed all tokens."""
    whole = 0.0
    for o in operations.values():
        in_block = o["calls"] == 12 and o["name"] != "norm 1"
        whole += 12 * floor_ms(*whole_call(o)) if in_block else floor_ms(o["flops"], o["bytes"])
    return sum(floor_ms(o["flops"], o["bytes"]) for o in operations.values()), whole


def table(head, rows):
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] + ["---:"] * (len(head) - 1), *rows])


def tables(evergrad, code):
    adamw, arrow = explain(evergrad, "adamw"), explain(evergrad, "arrow")
    rows = list(rows_of(adamw, code))
    need = [[r["name"], f"{r['flops'] / 1e9:.1f}", f"{r['bytes'] / 1e6:.0f}", f"{r['floor']:.3f}", f"{r['accept']:.3f}" if r["listed"] else f"({r['accept']:.2f})",
             f"{100 * r['floor'] / r['accept']:.0f}%", f"{r['flops'] / r['accept'] * 1e-9:.0f}" if r["ratio"] else ""] for r in rows]
    built = [[r["name"], r["kernel"], f"{r['computed']:.2f}", f"{1 + r['extra'] / r['bytes']:.2f}", str(r["blocks"] or ""),
              f"{100 * r['fill']:.0f}%" if r["blocks"] else "", f"{r['ratio']:.2f}" if r["ratio"] else "",
              f"{r['flops'] * r['l2'] / r['accept'] * 1e-9:.1f}" if r["l2"] else ""] for r in rows]
    bounds = [[r["name"], *(f"{ms:.3f}" if ms else "" for ms in r["bounds"].values()), f"{r['bound']:.3f}", f"{r['accept']:.3f}" if r["listed"] else f"({r['accept']:.2f})",
               f"**{r['bound'] / r['accept']:.2f}**" if r["bound"] > r["accept"] else f"{r['bound'] / r['accept']:.2f}"] for r in rows]
    groups = []
    for name, (part, operation, kind, accept, listed) in ROWS.items():
        if kind == "product":
            cells = [name]
            for wide in (256, 128):
                g = product_by_warpgroups(name, adamw[part, operation], wide)
                cells += [str(g["blocks"]), f"{100 * g['fill']:.0f}%", f"{g['l2'] / accept * 1e-9:.1f}", f"{g['bound']:.3f}", f"{g['bound'] / accept:.2f}"]
            groups.append(cells)
    seats = []
    for kernel, (_, _, threads, shared) in KERNELS.items():
        blocks, warps, limit = occupancy(kernel, code["registers"][kernel])
        instructions = code["instructions"].get(kernel)
        seats.append([kernel, str(threads), str(code["registers"][kernel]), f"{shared / 1024:.0f}" if shared else "", str(blocks), f"{warps} of {WARPS}", limit,
                      "{} : {}".format(*instructions) if instructions else "", str(instructions[2]) if instructions else ""])
    narrow, whole = step_floor(adamw)
    update = [[name, f"{size / 1e6:.0f}", f"{ms:.3f}"] for name, size, ms in update_rows(adamw, arrow)]
    return "\n\n".join([
        "### What the mathematics needs, one call",
        table(["operation", "GFLOP", "MB", "floor ms", "accepted ms", "floor / accepted", "TFLOP/s then"], need),
        f"The floor of the whole step: {narrow:.1f} ms as it runs, {whole:.1f} ms if the last block computed all tokens.",
        "### What was built",
        table(["operation", "kernel", "FLOPs / needed", "bytes / needed", "blocks", "fill", "HMMA per LDSM", "L2 TB/s if accepted"], built),
        "### Below which time it cannot be: arithmetic, not measured",
        table(["operation", "memory ms", "tensor cores ms", "shared memory ms", "bound ms", "accepted ms", "bound / accepted"], bounds),
        "### The same products by warpgroups: tiles of 128 x 256, and of 128 x 128",
        table(["operation", *(f"{wide}: {what}" for wide in (256, 128) for what in ("blocks", "fill", "L2 TB/s", "bound ms", "/ accepted"))], groups),
        "### What fits on a multiprocessor",
        table(["kernel", "threads", "registers", "shared KiB", "blocks", "warps", "limited by", "products : LDSM", "16-byte copies"], seats),
        "### The update, whole model", table(["", "MB", "floor ms"], update)])


def record(folder):
    """Registers from test_machine_code.py's report, instructions from test_sass.py's."""
    report, sass = (folder / name for name in ("registers.json", "instructions.json"))
    if not report.exists():
        raise SystemExit(f"no {report}: run tests/scripts/test_machine_code.py --build {folder.parent}, which needs nvcc")
    found, known = json.loads(report.read_text()), json.loads(RECORD.read_text()) if RECORD.exists() else {"instructions": {}}
    counts = json.loads(sass.read_text()) if sass.exists() else None
    code = {"nvcc": found["nvcc"], "registers": {}, "instructions": {} if counts else known["instructions"],
            # 16 queries with 16 keys at a head of 64, read off the loops: S and P V; S, dP, dV, dK and four columns of dQ.
            "per_tile_pair": {"attention_fwd": [16, 8], "attention_bwd": [40, 28]}}
    for kernel, (file, pattern, _, _) in KERNELS.items():
        sizes = [n for name, n in found["sm_90a"].get(file, {}).items() if re.search(pattern, name)]
        if not sizes:
            raise SystemExit(f"{report}: no kernel of {file}.cu is called {pattern}; has it been renamed? KERNELS in {__file__} names them")
        code["registers"][kernel] = max(sizes)
        for name, n in (counts or {"sm_90a": {}})["sm_90a"].get(file, {}).items():
            if re.search(pattern, name):
                code["instructions"][kernel] = n
    return code


def in_document(text):
    return text.split(BEGIN, 1)[1].split(END, 1)[0].strip()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--evergrad", type=pathlib.Path)
    p.add_argument("--write", action="store_true", help="put the tables into gpu-analysis.md")
    p.add_argument("--record", type=pathlib.Path, metavar="DIR", help="read BUILD/machine_code and write gpu_machine_code.json")
    o = p.parse_args()
    if o.record:
        RECORD.write_text(json.dumps(record(o.record), indent=1) + "\n")
    if not o.evergrad:
        return 0 if o.record else p.error("--evergrad or --record is needed")
    text = tables(o.evergrad, json.loads(RECORD.read_text()))
    print(text)
    if o.write:
        before, rest = DOCUMENT.read_text().split(BEGIN, 1)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
