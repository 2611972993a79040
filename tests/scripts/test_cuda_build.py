#!/usr/bin/env python3
"""Configures a CUDA build and builds what an NVIDIA machine would start first, on a machine that has nvcc and no GPU.

    tests/scripts/test_cuda_build.py --source DIR --build DIR

Every host file of cuda/device compiles, the kernels compile to PTX (nvcc's first half; test_machine_code.py does the other one, for
two architectures), `evergrad`, test_kernels_cuda, test_words_cuda, test_devices and nccl_probe link against the CUDA runtime and NCCL, and cuDNN, where it is,
accepts attention's plans. Without a GPU the test programs must show as skipped (exit code 77), and the binary must name the devices that
there are and say why there is no GPU; so it is built on a machine that has one (tests/gpu). Then the emulated device joins it, compiled from
the same kernel files: the binary must train to the losses of the build in DIR, which has no CUDA in it. Exits 77 itself where there is no nvcc.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time


def find_nvcc():
    return next((c for c in (os.environ.get("CUDACXX"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc") if c and pathlib.Path(c).exists()), None)


def run(*command, expected=0, env=None):
    began = time.time()
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**os.environ, **(env or {})})
    text = done.stdout + done.stderr
    print(f"{time.time() - began:6.1f} s  exit {done.returncode:3d}  {' '.join(str(c) for c in command)}", flush=True)
    if done.returncode != expected:
        print(text[-8000:])
        raise SystemExit(f"FAILED: exit code {done.returncode}, not {expected}")
    return text


def expect(text, *words):
    for word in words:
        if word not in text:
            print(text)
            raise SystemExit(f"FAILED: no {word!r} in this")


def train_on_emulated(evergrad, out, env):
    """All losses of a short training by ARROW in bf16."""
    shutil.rmtree(out, ignore_errors=True)
    run(evergrad, "train", "--stream", "procedural", "--classes", "2", "--device", "emulated", "--precision", "bf16", "--method", "arrow", "--dim", "32", "--depth", "2",
        "--heads", "1", "--image-size", "16", "--batch", "8", "--epochs", "2", "--train-limit", "48", "--test-limit", "8", "--out", out, env=env)
    epochs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [(e["train_loss"], e["test_loss"]) for e in epochs if "train_loss" in e]
    if len(losses) != 2:
        raise SystemExit(f"FAILED: {out} tells of {len(losses)} epochs")
    return losses


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--source", type=pathlib.Path, required=True)
    p.add_argument("--build", type=pathlib.Path, required=True)
    o = p.parse_args()
    nvcc = find_nvcc()
    if not nvcc:
        print("SKIPPED: no nvcc on the PATH, in CUDACXX or in /usr/local/cuda/bin")
        return 77
    build = o.build / "cuda_build"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    # PTX of one architecture: what ptxas makes of it nobody runs here.
    configure = ["cmake", "-S", o.source, "-B", build, *generator, "-DCMAKE_BUILD_TYPE=Release", "-DEVERGRAD_CUDA=ON",
                 "-DCMAKE_CUDA_ARCHITECTURES=80-virtual", f"-DCMAKE_CUDA_COMPILER={nvcc}"]
    said = run(*configure, "-DEVERGRAD_EMULATED=OFF")
    print("".join(f"{line}\n" for line in said.splitlines() if any(name in line for name in ("NCCL", "cuBLASLt", "cuDNN"))), end="")
    # What only a GPU machine starts must not stop to compile and link meanwhile.
    probe = ["nccl_probe"] if "with    NCCL" in said else []
    plans = ["test_cudnn", "pretended_driver"] if "with    cuDNN" in said else []
    run("cmake", "--build", build, "-j2", "--target", "evergrad", "test_kernels_cuda", "test_words_cuda", "test_devices", *probe, *plans)
    if plans:  # for an H100 that is only described; for an A100 too: ctest -R cudnn
        expect(run(build / "tests" / "test_cudnn", "-tc=*H100*,*refused*", env={
            "LD_LIBRARY_PATH": f"{build / 'tests' / 'pretended_driver'}:{os.environ.get('LD_LIBRARY_PATH', '')}"}), "2 passed")
    # Without a GPU, also on a machine that has one.
    none = {"CUDA_VISIBLE_DEVICES": ""}
    for program in ("test_kernels_cuda", "test_words_cuda"):
        expect(run(build / "tests" / program, expected=77, env=none), "SKIPPED: no GPU")
    expect(run(build / "tests" / "test_devices", expected=77, env={**none, "EVERGRAD_TEST_DEVICE": "cuda:0"}), "SKIPPED")
    for program in probe:  # ends at the first thing that it asks of the device
        expect(run(build / "tests" / program, expected=1, env={**none, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                                                                "MASTER_PORT": "29571"}), "cuda:0")
    said = run(build / "evergrad", "info", env=none)
    expect(said, "  cpu ", "  cuda:N     in this build, but no GPU can be used here: ", "  emulated   not in this build; configure with -DEVERGRAD_EMULATED=ON")
    if "EVERGRAD_CUDA=ON" in said:
        raise SystemExit(f"FAILED: a CUDA build advises to make one\n{said}")
    expect(run(build / "evergrad", "train", "--stream", "procedural", "--classes", "2", "--device", "cuda:0", "--out", build / "no_run", expected=1,
               env=none), "cuda:0", "available")
    # Both devices in one program: names that mixed would show as other bits, or as a missing GPU.
    cache = (o.build / "CMakeCache.txt").read_text()
    if "EVERGRAD_CUDA:BOOL=ON" in cache or "EVERGRAD_EMULATED:BOOL=ON" not in cache:
        print(f"not compared: the build in {o.build} is none of the emulated device alone")
        return 0
    run(*configure, "-DEVERGRAD_EMULATED=ON")
    run("cmake", "--build", build, "-j2", "--target", "evergrad", "test_devices")
    expect(run(build / "evergrad", "info", env=none), "  cuda:N     in this build, but no GPU can be used here: ", "  emulated   CUDA kernels on this processor")
    losses = [train_on_emulated(where / "evergrad", build / f"emulated_{name}", none) for name, where in (("both", build), ("alone", o.build))]
    if losses[0] != losses[1]:
        raise SystemExit(f"FAILED: the emulated device beside CUDA trains to {losses[0]}, alone to {losses[1]}")
    said = run(build / "tests" / "test_devices", "-tc=upload ahead*", env={**none, "EVERGRAD_TEST_DEVICE": "emulated"})
    expect(said, " 0 failed", "SUCCESS")
    if " 0 passed" in said:
        raise SystemExit(f"FAILED: no test ran\n{said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
