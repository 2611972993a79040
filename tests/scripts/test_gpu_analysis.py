#!/usr/bin/env python3
"""Holds docs/benchmarks/gpu-analysis.md to what its script prints, and the script's floors to the goals' own.

    tests/scripts/test_gpu_analysis.py --source DIR --build DIR

Seconds: nothing is compiled. Where test_machine_code.py and test_sass.py have left registers and instructions by the compiler that
gpu_machine_code.json names, that file is compared too.
"""
import argparse
import importlib.util
import json
import pathlib
import re
import sys

# The goals' floors in ms (790 TFLOP/s, 3,000 GB/s). They leave out attention's row of log-sum-exps, which explain counts: 4 bytes a
# query and head. Compared to half a unit of their last digit or 1%: they are rounded from shares rounded themselves.
LSE = 256 * 12 * 197 * 4 / 3e9
FLOORS = {"qkv": 0.226, "proj": 0.075, "fc1 + bias + GELU": 0.301, "fc2": 0.301, "fc2: d input, GELU'": 0.301, "fc2: d weight": 0.301,
          "fc1: d weight": 0.301, "attention": 0.103 + LSE, "attention, backward": 0.207 + LSE, "residual + norm": 0.103, "residual + norm, backward": 0.103}
STEP, ADAMW, RING_PASSES = 42.4, 0.87, 0.101
SOURCES = {  # file: what the script takes from it
    "cuda/kernels/matmul.h": r"kLargeTile = \{128, 128, 256, 3 \* \(128 \+ 128\) \* 32 \* 2, 3\.74e6\};[\s\S]*kSmallTile = \{64, .*, 2\.8e6\};[\s\S]*"
                             r"kWarpgroupWideTile = \{128, 256, 256, 4 \* \(128 \+ 256\) \* 64 \* 2 \+ 1024, 5\.98e6\};\s+"
                             r"inline constexpr MatmulTile kWarpgroupTile = \{128, 128, 256, 3 \* \(128 \+ 128\) \* 64 \* 2 \+ 1024, 5\.98e6\}",
    "cuda/kernels/matmul.cpp": r"kProcessors = 132, kMostSplits = 64, kLeastDepth = 512;\s+"
                               r"constexpr double kBandwidth = 3e6;[\s\S]*tiles_of\(p, kLargeTile\) \* 2 > kProcessors",
    "cuda/kernels/attention.h": r"return width <= 64 \? 8 : 4[\s\S]*case 64: return groups == 1 \? 16 : 12[\s\S]*kShortQueries = 32",
    "cuda/kernels/layer_norm.h": r"kNormWarps = 4[\s\S]*packs < 4 \? 4 : 3",
}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_floors(analysis, adamw, arrow, code, problems):
    found = {r["name"]: r["floor"] for r in analysis.rows_of(adamw, code)}
    update = {name: ms for name, _, ms in analysis.update_rows(adamw, arrow)}
    _, whole = analysis.step_floor(adamw)
    # Both passes over the window: what observe and step read of the ring's eight older columns.
    ring = 2 * 8 * 9437184 * 2 / analysis.GBPS * 1e-6
    for name, wanted, ms in [*((n, w, found[n]) for n, w in FLOORS.items()), ("AdamW", ADAMW, update["AdamW with its norm"]), ("step", STEP, whole),
                             ("both passes over ARROW's window", RING_PASSES, ring)]:
        if abs(ms - wanted) > max(0.01 * wanted, 0.0005):
            problems.append(f"floor of {name}: {ms:.4f} ms, the goals say {wanted}")
    if not ring < update["ARROW: observe"] + update["ARROW: step"]:
        problems.append("ARROW's passes are counted below their reads of the window")


def check_loops(code, problems):
    """Products and loads of a pair of tiles follow from the kernels' loops: forward has one over 64 keys, four pairs, and one over 16;
    backward's do all of a pair but dQ, of which there is one of four columns."""
    pair, kernel = code["per_tile_pair"], code["instructions"]
    if kernel["attention_fwd"][:2] != [5 * n for n in pair["attention_fwd"]] or kernel["attention_bwd"][:2] != [n - 3 * 2 for n in pair["attention_bwd"]]:
        problems.append(f"the loops of attention changed ({kernel}); count {pair} anew, in record() of gpu_analysis.py")
    if pair["attention_fwd"][0] != 2 * 64 // 8 or pair["attention_bwd"][0] != 5 * 64 // 8:
        problems.append(f"{pair} are not the products that tests/emulated/test_attention_tiles.cpp counts")


def check_document(analysis, evergrad, code, problems):
    fresh, kept = analysis.tables(evergrad, code), analysis.in_document(analysis.DOCUMENT.read_text())
    if fresh != kept:
        line = next((a for a, b in zip(fresh.splitlines() + [""], kept.splitlines() + [""]) if a != b), "its length")
        problems.append(f"{analysis.DOCUMENT.name} is out of date, first at:\n{line}\nrun python3 docs/benchmarks/gpu_analysis.py --evergrad {evergrad} --write and read the text around the tables again")
    changed = dict(code, registers=dict(code["registers"], **{"matmul 128": 255}))
    if analysis.tables(evergrad, changed) == fresh:
        problems.append("a kernel with twice the registers gives the same tables")


def check_record(analysis, folder, code, problems):
    report = folder / "registers.json"
    if not report.exists() or json.loads(report.read_text())["nvcc"] != code["nvcc"]:
        print(f"registers not compared: no {report} of nvcc {code['nvcc']}")
        return
    fresh = analysis.record(folder)
    if fresh != code:
        problems.append(f"{analysis.RECORD.name} is not what nvcc made of the kernels; run python3 docs/benchmarks/gpu_analysis.py --record {folder} "
                        f"(now {fresh}, recorded {code})")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--source", type=pathlib.Path, required=True)
    p.add_argument("--build", type=pathlib.Path, required=True)
    o = p.parse_args()
    evergrad, problems = o.build / "evergrad", []
    if not evergrad.exists():
        print(f"SKIPPED: no {evergrad}")
        return 77
    analysis = load(o.source / "docs" / "benchmarks" / "gpu_analysis.py")
    code = json.loads(analysis.RECORD.read_text())
    for file, pattern in SOURCES.items():
        if not re.search(pattern, (o.source / file).read_text()):
            problems.append(f"{file} no longer says {pattern}; bring docs/benchmarks/gpu_analysis.py, which repeats it, up to date")
    check_floors(analysis, analysis.explain(evergrad, "adamw"), analysis.explain(evergrad, "arrow"), code, problems)
    check_loops(code, problems)
    check_document(analysis, evergrad, code, problems)
    check_record(analysis, o.build / "machine_code", code, problems)
    for problem in problems:
        print("FAILED: " + problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
