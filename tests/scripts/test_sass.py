#!/usr/bin/env python3
"""Reads the machine code (SASS) that test_machine_code.py compiled, kernel by kernel.

    tests/scripts/test_sass.py --build DIR [--table]

Every kernel on tensor cores must have its matrix products as HMMA (at least as many as its tile needs), its operands by LDSM of
four matrices, or both at once as HGMMA, which reads shared memory itself, and every asynchronous copy 16 bytes wide and past the first-level cache (LDGSTS.E.BYPASS.128): PTX says what was
asked for, ptxas may still have split it. Leaves the counts in BUILD/machine_code/instructions.json. Needs nvdisasm: NVDISASM=FILE, on the PATH, or from NVIDIA's Python package
nvidia-cuda-nvdisasm; exits 77 (skipped) where there is none, or no machine code to read.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HMMA, LDSM, COPY, WIDE_COPY = r"\bHMMA\.16816\.F32\.BF16\b", r"\bLDSM\.16\.MT?88\.4\b", r"\bLDGSTS\b", r"\bLDGSTS\.E\.BYPASS\.128\b"
HGMMA = r"\bHGMMA\.64x(128|256)x16\.F32\.BF16\b"
WIDE_LOAD = r"\bLDG\.E\.128\b"


def products_of_tile(m):
    """A warp's share of c, 16 x 8 values a product, over both halves of a depth of 32."""
    return int(m["m"]) // 16 * (int(m["n"]) // 8) * 2


def products_of_head(m):
    """Of 16 queries with 16 keys: scores from a depth of `d`, and one product of them with `d` columns; 16 x 8 x 16 each."""
    return 2 * (int(m["d"]) // 8)


def products_of_step(m):
    """A warpgroup's 64 rows by all columns at once, four times along a depth of 64."""
    return 4


# file: (its kernels on tensor cores, by mangled name; the least number of products that one must have)
TENSOR = {
    "matmul": (re.compile(r"13matmul_deviceILi\d+ELi\d+ELi(?P<m>\d+)ELi(?P<n>\d+)E"), products_of_tile),
    "attention_fwd": (re.compile(r"20attention_fwd_deviceILi(?P<d>\d+)E"), products_of_head),
    "attention_bwd": (re.compile(r"attention_bwd_(queries|keys)_deviceILi(?P<d>\d+)E"), products_of_head),
    "attention_bwd_short": (re.compile(r"26attention_bwd_short_deviceILi(?P<d>\d+)E"), products_of_head),
}
# Files of one architecture alone: elsewhere their kernels only stop.
HOPPER = {"matmul_warpgroup": (re.compile(r"23matmul_warpgroup_deviceILi(?P<n>\d+)E"), products_of_step)}
TENSOR.update(HOPPER)
WIDE = ["layer_norm", "optimizer", "arrow"]  # files that must load 16 bytes at a time


def find_nvdisasm():
    found = os.environ.get("NVDISASM") or shutil.which("nvdisasm")
    if found:
        return found
    try:
        import nvidia
    except ImportError:
        return None
    return next((str(path) for folder in nvidia.__path__ for path in pathlib.Path(folder).rglob("nvdisasm")), None)


def kernels_of(nvdisasm, cubin):
    done = subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{nvdisasm} could not read {cubin}: {done.stderr.strip()}")
    parts = re.split(r"\n\s*//-+ \.text\.(\S+) -+\n", done.stdout)
    return dict(zip(parts[1::2], parts[2::2]))


def check_kernel(where, name, code, least, problems, hopper=False):
    """Counts of one kernel; what is wrong with them goes to problems."""
    product = HGMMA if hopper else HMMA
    count = {what: len(re.findall(pattern, code)) for what, pattern in (("products", product), ("LDSM", LDSM), ("copies", COPY), ("wide copies", WIDE_COPY))}
    if count["products"] < least:
        problems.append(f"{where}: {name} has {count['products']} products ({product}); its tile needs {least}")
    if count["LDSM"] == 0 and not hopper:
        problems.append(f"{where}: {name} has no load of four matrices (LDSM.16.M88.4)")
    if count["copies"] == 0 or count["wide copies"] != count["copies"]:
        problems.append(f"{where}: {name}: of {count['copies']} asynchronous copies (LDGSTS) {count['wide copies']} are 16 bytes wide")
    return count


def check_file(nvdisasm, cubin, table, problems, counts):
    stem, arch = re.fullmatch(r"kernels-(\w+)-(sm_\w+)", cubin.stem).groups()
    where, found = f"{stem}.cu, {arch}", 0
    kernels = kernels_of(nvdisasm, cubin)
    if stem in WIDE:
        loads = sum(len(re.findall(WIDE_LOAD, code)) for code in kernels.values())
        print(f"{where:28s} LDG.E.128 {loads}")
        if not loads:
            problems.append(f"{where}: no load of 16 bytes (LDG.E.128)")
        return
    total = {}
    for name, code in kernels.items():
        match = TENSOR[stem][0].search(name)
        if not match:
            continue
        found += 1
        count = check_kernel(where, name, code, TENSOR[stem][1](match), problems, stem in HOPPER)
        counts.setdefault(arch, {}).setdefault(stem, {})[name] = [count["products"], count["LDSM"], count["wide copies"]]
        for what, n in count.items():
            total[what] = total.get(what, 0) + n
        if table:
            print(f"  {name[match.start():][:70]:70s} {count}")
    print(f"{where:28s} {found} kernels on tensor cores: {total}")
    if not found:
        problems.append(f"{where}: no kernel on tensor cores ({TENSOR[stem][0].pattern})")


def try_itself():
    """The patterns tell good lines from bad ones, so that a count of none cannot pass for many."""
    good = "HMMA.16816.F32.BF16 R4\nLDSM.16.M88.4 R1\nLDSM.16.MT88.4 R1\nLDGSTS.E.BYPASS.128 [R1]\n"
    for code, wrong in ((good, 0), (good.replace("BYPASS.128", "64"), 1), (good.replace("16816", "1688"), 1), (good.replace("88.4", "88.2"), 1),
                        (good + "LDGSTS.E [R2]\n", 1), ("", 3)):
        problems = []
        check_kernel("planted", "kernel", code, 1, problems)
        assert len(problems) == wrong, (code, problems)
    good = "HGMMA.64x256x16.F32.BF16 R24\nLDGSTS.E.BYPASS.128 [R1]\n"
    for code, wrong in ((good, 0), (good.replace("x16.F32", "x8.F32"), 1), (good.replace("HGMMA", "HMMA"), 1)):
        problems = []
        check_kernel("planted", "kernel", code, 1, problems, hopper=True)
        assert len(problems) == wrong, (code, problems)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--source", help="not used; every script test is given it")
    p.add_argument("--build", type=pathlib.Path, required=True)
    p.add_argument("--table", action="store_true", help="print the counts of every kernel")
    o = p.parse_args()
    try_itself()
    nvdisasm, folder = find_nvdisasm(), o.build / "machine_code"
    if not nvdisasm:
        print("SKIPPED: no nvdisasm on the PATH, in NVDISASM or in a Python package (pip install nvidia-cuda-nvdisasm)")
        return 77
    cubins = sorted(c for c in folder.glob("kernels-*.cubin") if c.stem.split("-")[1] in (*TENSOR, *WIDE)
                    and (c.stem.split("-")[1] not in HOPPER or c.stem.endswith("sm_90a")))
    if not cubins:
        print(f"SKIPPED: no machine code in {folder}: test_machine_code.py, which needs nvcc, has not left any")
        return 77
    problems, counts = [], {}
    for cubin in cubins:
        check_file(nvdisasm, cubin, o.table, problems, counts)
    (folder / "instructions.json").write_text(json.dumps(counts, indent=1))
    missing = {*TENSOR, *WIDE} - {c.stem.split("-")[1] for c in cubins}
    problems += [f"{stem}.cu was not compiled into {folder}" for stem in sorted(missing)]
    for problem in problems:
        print("FAILED: " + problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
