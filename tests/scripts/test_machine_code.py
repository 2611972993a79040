#!/usr/bin/env python3
"""Compiles every kernel file with nvcc for sm_80 and sm_90a and reads what came out.

    tests/scripts/test_machine_code.py [--source DIR] [--build DIR] [--only NAME] [--table]

Fails when a file does not compile, when any kernel spills registers, when ptxas runs products of a warpgroup one after another
that were to run on their own, when the PTX of a kernel family lacks the instructions that
its design stands on (tensor cores, matrix loads, asynchronous copies, wide loads), or when a kernel that must give the host's bits
has fused multiply-adds. Files are compiled with the options that cuda/device/CMakeLists.txt gives them. Leaves the cubins in BUILD/machine_code, where test_sass.py reads the opcodes,
and the registers of every kernel in registers.json there, for docs/benchmarks/gpu_analysis.py. Without nvcc it exits 77 (skipped).
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ARCHITECTURES = ["sm_80", "sm_90a"]

MMA = {"tensor cores": r"mma\.sync\.aligned\.m16n8k16", "matrix loads": r"ldmatrix\.sync", "asynchronous copies": r"cp\.async\.c[ag]"}
WIDE = {"wide loads": r"ld\.global(\.nc)?(\.[a-zA-Z0-9:_]+)*\.v[24]\."}
# file: what its PTX must hold (tests/scripts/test_sass.py: what ptxas makes of it)
WANTED = {"attention_fwd": MMA, "attention_bwd": MMA, "attention_bwd_short": MMA, "matmul": MMA,
          "layer_norm": WIDE, "optimizer": WIDE, "arrow": WIDE}
# The same, for Hopper alone.
WARPGROUPS = {"warpgroup products": r"wgmma\.mma_async\.sync\.aligned\.m64n(128|256)k16\.f32\.bf16\.bf16",
              "fences for them": r"fence\.proxy\.async\.shared::cta", "asynchronous copies": MMA["asynchronous copies"]}
WANTED_HOPPER = {"matmul_warpgroup": WARPGROUPS}
SERIALIZED = r"\(C75\d\d\)[^\n]*"  # ptxas: "Potential Performance Loss: wgmma.mma_async instructions are serialized ..."
# Files whose kernels give the host's bits: no fused multiply-add in double in their PTX (a division's own, which rounds as the
# host's, are younger than PTX; functions of the library that a kernel calls stand beside it).
EXACT = ["arrow_solve"]
FUSED = r"\bfma\.rn\.f64\b"
REPORT = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'|(\d+) bytes stack frame, (\d+) bytes spill stores, "
                    r"(\d+) bytes spill loads|Used (\d+) registers")


def find_nvcc():
    for candidate in [os.environ.get("CUDACXX"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]:
        if candidate and pathlib.Path(candidate).exists():
            return candidate
    return None


def options_of(source):
    """{file: options of its own} as the build has them."""
    text = (source / "cuda" / "device" / "CMakeLists.txt").read_text()
    return {m[1]: m[2].split() for m in re.finditer(r"kernels/(\w+)\.cu PROPERTIES COMPILE_OPTIONS ([^)]+)\)", text)}


def compile_one(nvcc, source, file, arch, folder, options):
    """(ptx text, kernels) where kernels is {name: (registers, spilled bytes)}; or an error text."""
    base = folder / f"{file.parent.name}-{file.stem}-{arch}"
    flags = ["-std=c++20", "-O3", f"-I{source}", "-DEVERGRAD_BACKEND=cuda_backend", f"-arch={arch}", *options.get(file.stem, [])]
    cubin = base.with_suffix(".cubin")
    stages = base.with_suffix(".stages")  # nvcc leaves the PTX there on its way to the cubin
    stages.mkdir()
    done = subprocess.run([nvcc, *flags, "-Xptxas", "-v", "-cubin", "--keep", "--keep-dir", stages, "-o", cubin, file], capture_output=True, text=True)
    if done.returncode:
        return done.stdout + done.stderr
    if serialized := re.search(SERIALIZED, done.stderr):
        return serialized[0]
    kernels, name, spilled = {}, None, 0
    for m in REPORT.finditer(done.stderr):
        if m[1]:
            name = m[1]
        elif m[3] is not None:
            # A stack frame is local memory too: an array in it is indexed at run time. (Ladders need not be fast.)
            spilled = int(m[4]) + int(m[5]) + (int(m[3]) if file.parent.name == "kernels" else 0)
        elif name:
            kernels[name] = (int(m[6]), spilled)
    ptx = (stages / f"{file.stem}.ptx").read_text()
    shutil.rmtree(stages)
    return ptx, kernels


def check(file, arch, result, problems, rows):
    if isinstance(result, str):
        problems.append(f"{file.name} does not compile for {arch}:\n{result}")
        return
    ptx, kernels = result
    if not kernels:
        problems.append(f"{file.name}, {arch}: ptxas reports no kernel; has the form of its report changed?")
    for name, (registers, spilled) in kernels.items():
        rows.append((file.name, arch, name, registers, spilled))
        if spilled:
            problems.append(f"{file.name}, {arch}: {name} keeps {spilled} bytes in local memory (spills, stack frame) ({registers} registers)")
    of_card = WANTED_HOPPER if arch == "sm_90a" else {}
    wanted = {**WANTED, **of_card}.get(file.stem, {}) if file.parent.name == "kernels" else {}  # ladders need not be fast
    for what, pattern in wanted.items():
        count = len(re.findall(pattern, ptx))
        print(f"{file.name:24s} {arch:7s} {what:20s} {count}")
        if not count:
            problems.append(f"{file.name}, {arch}: no {what} ({pattern}) in its PTX")
    if file.stem in EXACT and file.parent.name == "kernels":
        entries = re.findall(r"\.entry\b.*?\n}", ptx, re.S)
        fused = sum(len(re.findall(FUSED, entry)) for entry in entries)
        print(f"{file.name:24s} {arch:7s} {'fused multiply-adds':20s} {fused}")
        if fused or not entries:
            problems.append(f"{file.name}, {arch}: {fused} fused multiply-adds in {len(entries)} kernels, so its bits are not the host's; "
                            "compile it with -fmad=false (cuda/device/CMakeLists.txt)")


def leave_registers(nvcc, rows, folder):
    """{"nvcc": version, architecture: {file: {kernel: registers}}}; the ladders' kernels are not part of a training step."""
    version = re.search(r"V(\d+\.\d+\.\d+)", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout)
    found = {"nvcc": version[1] if version else "unknown"}
    for file, arch, name, registers, _ in rows:
        if "Ladder" not in name:
            found.setdefault(arch, {}).setdefault(pathlib.Path(file).stem, {})[name] = registers
    (folder / "registers.json").write_text(json.dumps(found, indent=1))


def main():
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--source", type=pathlib.Path, default=root)
    p.add_argument("--build", type=pathlib.Path, help="cubins go to machine_code/ there; without it, nowhere")
    p.add_argument("--only", default="", help="only files whose name contains this")
    p.add_argument("--table", action="store_true", help="print registers of every kernel")
    o = p.parse_args()
    nvcc = find_nvcc()
    if not nvcc:
        print("SKIPPED: no nvcc on the PATH, in CUDACXX or in /usr/local/cuda/bin")
        return 77
    files = sorted(f for part in ("kernels", "ladders") for f in (o.source / "cuda" / part).glob("*.cu") if o.only in f.stem)
    if not files:
        print(f"no kernel file in {o.source / 'cuda' / 'kernels'}")
        return 1
    problems, rows, options = [], [], options_of(o.source)
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as workers:
        folder = pathlib.Path(scratch)
        if o.build:
            folder = o.build / "machine_code"
            shutil.rmtree(folder, ignore_errors=True)  # no code of earlier sources
            folder.mkdir(parents=True)
        jobs = [(f, a, workers.submit(compile_one, nvcc, o.source, f, a, folder, options))
                for f in files for a in ARCHITECTURES]
        for file, arch, job in jobs:
            check(file, arch, job.result(), problems, rows)
        if not o.only:
            leave_registers(nvcc, rows, folder)
    if o.table:
        for row in rows:
            print("%-24s %-7s %-90s %3d registers, %d bytes spilled" % row)
    print(f"{len(files)} files, {len(rows)} kernels, {sum(1 for r in rows if r[4])} of them spill")
    for problem in problems:
        print("FAILED: " + problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
