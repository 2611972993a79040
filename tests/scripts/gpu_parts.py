"""The parts of tests/gpu: what each one runs, on what limit, and which figures it leaves. `r` is the call (tests/gpu: Call)."""
import fnmatch
import importlib.util
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import gpu_report
from gpu_models import MODELS, STEPS, evergrad_flags

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What a build can have beside the toolkit: its name in what configure says, the option that takes its folder, header, library.
LIBRARIES = {"NCCL": ("EVERGRAD_NCCL", "nccl.h", "libnccl.so.2"), "cuDNN": ("EVERGRAD_CUDNN", "cudnn.h", "libcudnn.so.9"),
             "cuBLASLt": ("EVERGRAD_CUBLAS", "cublasLt.h", "libcublasLt.so.13")}
TARGETS = ["evergrad", "test_kernels_cuda", "test_words_cuda", "test_devices"]

# Cases of tests/kernels per tool of compute-sanitizer, which makes a kernel ten to a hundred times slower: each case is a command
# of its own, the most intricate kernels first. Reads of what nobody wrote and reads out of bounds can be anywhere; races and
# wrong barriers first where threads share memory. What is not named here is part_rest's, for every tool.
SHARING = ["matmul: rows*", "attention: backward agrees*accumulation", "attention: forward agrees*", "layer_norm: backward*",
           "cross_entropy: agrees*", "column_sum*", "global_norm: agrees*", "arrow_observe: agrees*"]
SANITIZED = {
    "memcheck": [*SHARING, "layer_norm: forward*", "patchify: forward agrees*", "patchify: backward*", "tokens: backward*",
                 "adam_update*", "arrow_update*"],
    "initcheck": [*SHARING, "layer_norm: forward*", "patchify: forward agrees*", "tokens: backward*", "adam_update*"],
    "racecheck": SHARING,
    "synccheck": SHARING,
}


def compute_capability():
    """"90a" for an H100: the architecture of this machine's card alone, in nvcc's words. "native" where nvidia-smi does not tell."""
    done = subprocess.run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], capture_output=True, text=True)
    digits = done.stdout.strip().splitlines()[0].replace(".", "") if done.returncode == 0 and done.stdout.strip() else ""
    if not digits.isdigit():
        return "native"
    return digits + ("a" if digits == "90" else "")


def packaged_libraries(toolkits):
    """Options for libraries that a Python package has and no toolkit: packages put them into nvidia/NAME or, all, into nvidia/cu13."""
    spec = importlib.util.find_spec("nvidia")
    folders = [pathlib.Path(f) for f in (spec.submodule_search_locations or [])] if spec else []
    options = []
    for name, (option, header, library) in LIBRARIES.items():
        if any((t / "include" / header).exists() for t in toolkits):
            continue
        found = (f / sub for f in folders for sub in ("cu13", name.lower().removesuffix("lt"))
                 if (f / sub / "include" / header).exists() and (f / sub / "lib" / library).exists())
        options += [f"-D{option}={f}" for f in [next(found, None)] if f]
    return options


def libraries_of(configured):
    """Those of LIBRARIES that configure found, and those that it did not."""
    found = [name for name in LIBRARIES if re.search(rf"  with    {name}:", configured)]
    return {"with": found, "without": [name for name in LIBRARIES if name not in found]}


def part_build(r):
    """What the other parts start, for this card alone, without the emulated device: a tenth of a whole build."""
    flags = ["-DCMAKE_BUILD_TYPE=Release", "-DEVERGRAD_CUDA=ON", "-DEVERGRAD_EMULATED=OFF",
             f"-DCMAKE_CUDA_ARCHITECTURES={compute_capability()}"]
    if r.options.deps:
        flags.append(f"-DEVERGRAD_DEPS={pathlib.Path(r.options.deps).resolve()}")
    flags += packaged_libraries([pathlib.Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")), pathlib.Path("/usr")])
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    if r.run("build", ["cmake", "-S", ".", "-B", r.options.build, *generator, *flags], 60) is None:
        return
    libraries = libraries_of(r.last_output)
    if r.run("build", ["cmake", "--build", r.options.build, "-j", os.cpu_count(), "--target", *TARGETS,
                       *(["nccl_probe"] if "NCCL" in libraries["with"] else [])], r.options.minutes * 60) is not None:
        r.built()
        r.figure("build", "libraries", **libraries)


def ctest(r, part, *which):
    r.run(part, ["ctest", "--test-dir", r.options.build, "-L", "^cuda$", *which, "--output-on-failure", "--no-tests=error"], 400)


def part_test(r):
    ctest(r, "test", "-R", "kernels|words")


def part_test_devices(r):
    ctest(r, "test-devices", "-E", "kernels|words")


def part_ranks(r):
    """NCCL: one rank for wiring and graph capture, then two ranks on this GPU for correctness (their time means nothing)."""
    probe = ROOT / r.options.build / "tests" / "nccl_probe"
    if not probe.exists():
        return r.skip("ranks", "this build has no NCCL")
    for size, mode in ((1, []), (1, ["deterministic"]), (2, []), (2, ["deterministic"])):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        start = [f"RANK={k} WORLD_SIZE={size} LOCAL_RANK={k} MASTER_ADDR=127.0.0.1 MASTER_PORT={port} {probe} {' '.join(mode)}" for k in range(size)]
        both = " & ".join(start[1:] + [f"{start[0]}; a=$?"])
        r.run("ranks", ["bash", "-c", both + ("; wait $! && exit $a" if size > 1 else "; exit $a")], 60)


def part_sanitize(r, tool):
    """Each case is a figure, as each family of part_rest: a call goes on where the one before ran out of time."""
    part, program = f"sanitize-{tool}", shutil.which("compute-sanitizer")
    if not program:
        return r.skip(part, "compute-sanitizer is neither on the PATH nor in /usr/local/cuda/bin")
    r.part(part)  # also when nothing is left to do
    done = r.measured(part)
    for case in SANITIZED[tool]:
        if case in done:
            continue
        text = r.run(part, [program, "--tool", tool, "--error-exitcode", "3", f"{r.options.build}/tests/test_kernels_cuda",
                            f"--test-case={case}"], 90, {"EVERGRAD_SHORT_TESTS": "1"})
        if text is None:
            continue
        if not re.search(r"test cases:\s+1 \|\s+1 passed", text):  # doctest is content with no case at all
            r.fail(part, f"--test-case={case} did not run one case")
        else:
            r.figure(part, case, cases=1)


def families(names):
    """Cases by what stands before the colon of their name: a program start for each family, not for each of eighty cases."""
    found = {}
    for name in names:
        found.setdefault(name.split(":")[0], []).append(name)
    return found


def part_rest(r, tool):
    """What part_sanitize leaves out: every other case of the conformance suite, and the words of CUDA that kernels are made of.
    Each family is a figure."""
    part, program = f"rest-{tool}", shutil.which("compute-sanitizer")
    if not program:
        return r.skip(part, "compute-sanitizer is neither on the PATH nor in /usr/local/cuda/bin")
    done = r.measured(part)
    for test in ("test_kernels_cuda", "test_words_cuda"):
        binary = f"{r.options.build}/tests/{test}"
        listed = r.run(part, [binary, "--list-test-cases"], 60)
        if listed is None:
            return
        names = [n for n in listed.splitlines() if ": " in n and not n.startswith("[doctest]")]
        left = [n for n in names if not any(fnmatch.fnmatchcase(n, pattern) for pattern in SANITIZED[tool])]
        if not left:
            return r.fail(part, f"{test} lists no cases")
        for family, cases in families(left).items():
            if f"{test} {family}" in done:
                continue
            # A comma would end the pattern; a question mark stands for any one character.
            text = r.run(part, [program, "--tool", tool, "--error-exitcode", "3", binary,
                                f"--test-case={','.join(c.replace(',', '?') for c in cases)}"], 240, {"EVERGRAD_SHORT_TESTS": "1"})
            if text is None:
                continue
            if not re.search(rf"test cases:\s+{len(cases)} \|\s+{len(cases)} passed", text):
                r.fail(part, f"of {test}, {family}: not all of {len(cases)} cases ran")
            else:
                r.figure(part, f"{test} {family}", cases=len(cases))


def bench_command(r, model, out, *more):
    return [f"{r.options.build}/evergrad", "bench", *evergrad_flags(MODELS[model]), "--device", "cuda:0", "--precision", "bf16",
            "--steps", STEPS, "--json", out, *more]


def part_bench(r, part):
    for i, model in enumerate(r.models(part)):
        out = ROOT / r.options.build / f"{part}-{i}.json"
        kernels = model in gpu_report.KERNELS.get(part, ())
        more = ["--methods", "adamw", "--kernels", gpu_report.BENCHES[part], *([] if kernels else ["--step"])]
        # A choice out of a cache would come without its candidates' times, and may be of another build.
        cache = ROOT / r.options.build / f"{part}-cache"
        shutil.rmtree(cache, ignore_errors=True)
        # The inputs of single kernels are drawn on the host: a billion numbers for ViT-B.
        if r.run(part, bench_command(r, model, out, *more), 150 if kernels else 90, {"EVERGRAD_CACHE": str(cache)}) is not None:
            report = json.loads(out.read_text())
            step = report["steps"][0]
            r.figure(part, model, images_per_second=step["images_per_second"], p95_ms=step.get("p95_ms"), report=report)


def part_arrow(r):
    """What ARROW adds to a step of ViT-B: a third of a percent can only be seen in turns."""
    out = ROOT / r.options.build / "arrow.json"
    methods = ["adamw", "arrow:ring=bf16", "arrow:ring=fp32"]
    command = bench_command(r, gpu_report.BIG, out, "--step", "--methods", ",".join(methods * 3))
    if r.run("arrow", command, 240) is None:
        return
    ms = {m: [s["ms"] for s in json.loads(out.read_text())["steps"] if s["method"] == m] for m in methods}
    r.figure("arrow", gpu_report.BIG, ms=ms)


def part_ladders(r):
    """The rungs of each teaching ladder, timed and checked at the shapes of ViT-B. `bench` leaves a table for people: it is kept as it is."""
    r.part("ladders")  # also when nothing is left to do
    for name in gpu_report.LADDERS:
        if name in r.measured("ladders"):
            continue
        text = r.run("ladders", [f"{r.options.build}/evergrad", "bench", *evergrad_flags(MODELS[gpu_report.BIG]), "--device", "cuda:0",
                                 "--precision", "bf16", "--ladder", name], 150)
        if text is not None:
            r.figure("ladders", name, text=text)


def part_pytorch(r, part):
    mode, out = gpu_report.PYTORCH[part], ROOT / r.options.build / f"{part}.json"
    out.unlink(missing_ok=True)
    limit = min(400.0, r.left())
    r.run(part, [sys.executable, ROOT / "docs" / "benchmarks" / "pytorch_gpu.py", "--json", out, "--modes", mode, "--models",
                 ",".join(r.models(part)), "--steps", STEPS, "--seconds", max(1, int(limit - 60))], limit)
    if not out.exists():  # else also what a killed script had measured
        return
    result = json.loads(out.read_text())
    for model, variants in result["measured"].items():
        for variant, figure in variants.items():
            r.figure(part, gpu_report.variant_key(model, variant), **figure, torch=result["torch"])
    for model, variants in result["failed"].items():
        for variant, why in variants.items():
            r.note(part, f"{model}, {variant}: {why}")
    if result["left_out"]:
        r.out_of_time(part, f"left out: {'; '.join(result['left_out'])}")


def train_flags(out):
    return ["--stream", "procedural", "--device", "cuda:0", "--precision", "bf16", "--image-size", "32", "--patch", "4",
            "--dim", "192", "--depth", "4", "--heads", "3", "--out", str(out)]


def part_train(r):
    out = ROOT / r.options.build / "run"
    shutil.rmtree(out, ignore_errors=True)
    r.run("train", [f"{r.options.build}/evergrad", "continual", "--tasks", "4", "--classes-per-task", "5", "--epochs", "4",
                    "--train-limit", "1000", "--batch", "128", "--methods", "adamw,arrow", "--seeds", "1", *train_flags(out)], 90)


def part_repeat(r):
    """Two runs of 100 steps must leave the same weights, bit for bit: with our kernels, with the libraries', and with those that the
    first run measured to be the fastest and the second finds in the cache."""
    for mode, figure in gpu_report.REPEATS.items():
        states = []
        cache = ROOT / r.options.build / f"repeat-{mode}-cache"
        shutil.rmtree(cache, ignore_errors=True)
        for i in range(2):
            out = ROOT / r.options.build / f"repeat-{mode}-{i}"
            shutil.rmtree(out, ignore_errors=True)
            if r.run("repeat", [f"{r.options.build}/evergrad", "train", "--classes", "10", "--epochs", "10", "--train-limit", "640",
                                "--test-limit", "100", "--batch", "64", "--method", "arrow", "--kernels", mode, *train_flags(out)],
                     60, {"EVERGRAD_CACHE": str(cache)}) is None:
                return
            states.append(sorted((out / "checkpoints").glob("*.safetensors"))[-1].read_bytes())
        same = states[0] == states[1]
        r.figure("repeat", figure, value=same)
        if not same:
            r.fail("repeat", f"weights and optimizer state of two runs differ, --kernels {mode}")


# name: what runs it, in the order of a call without --parts: faults first, then figures, then what takes longest.
PARTS = {
    "build": part_build,
    "test": part_test,
    "repeat": part_repeat,
    "bench": lambda r: part_bench(r, "bench"),
    "pytorch-eager": lambda r: part_pytorch(r, "pytorch-eager"),
    "arrow": part_arrow,
    "train": part_train,
    "ladders": part_ladders,
    "ranks": part_ranks,
    "test-devices": part_test_devices,
    "bench-library": lambda r: part_bench(r, "bench-library"),
    "bench-auto": lambda r: part_bench(r, "bench-auto"),
    "sanitize-memcheck": lambda r: part_sanitize(r, "memcheck"),
    "sanitize-racecheck": lambda r: part_sanitize(r, "racecheck"),
    "sanitize-initcheck": lambda r: part_sanitize(r, "initcheck"),
    "sanitize-synccheck": lambda r: part_sanitize(r, "synccheck"),
    "pytorch-compile": lambda r: part_pytorch(r, "pytorch-compile"),
    "pytorch-max-autotune": lambda r: part_pytorch(r, "pytorch-max-autotune"),
    "rest-memcheck": lambda r: part_rest(r, "memcheck"),
    "rest-racecheck": lambda r: part_rest(r, "racecheck"),
    "rest-initcheck": lambda r: part_rest(r, "initcheck"),
    "rest-synccheck": lambda r: part_rest(r, "synccheck"),
}
GROUPS = {"sanitize": "sanitize-", "rest": "rest-", "pytorch": "pytorch-", "benches": "bench"}  # a group's name stands for all parts that begin so
