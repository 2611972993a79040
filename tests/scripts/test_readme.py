"""Runs every command that README.md and docs/*.md show in their ```sh blocks, shrunken so that each takes seconds.

A command is recognised by its first words; one that no rule knows fails the test, so a new command needs a rule. Real
data sets are replaced by small made-up files in the same format. Long options are overridden, not removed: the last
occurrence of a flag wins.
"""
import argparse
import os
import pathlib
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from debug_page import check_page  # noqa: E402

SMALL_STREAM = "--tasks 2 --epochs 1 --train-limit 24 --test-limit 12 --batch 12 --dim 16 --depth 1 --heads 1 --seeds 1 --threads 2 --steps 2"
SMALL_TRAIN = "--epochs 1 --train-limit 48 --test-limit 24 --batch 12 --dim 16 --depth 1 --heads 1 --threads 2"
# A tiny model of timm stands for the one that a reader brings.
WEIGHTS = "tests/cases/timm_registers.safetensors", "--heads 2 --drop 'images,labels,logits*,gradient/*'"
SMALL_BENCH = "--dim 16 --depth 1 --heads 1 --batch 4 --steps 2 --seconds 0.01"
# What a shell would need from outside this machine or more than this test may take: shown, checked for syntax, not run.
ONLY_CHECKED = ["tests/run", "gdb ", "ctest ", "cmake --preset", "cmake --build", "git clone", "cd ", "python3 -m venv", "pip install", ".ci/run", "apt-get", "cmake --install", "(cat docs/Doxyfile"]


def commands(text):
    """(line number, command) for every command of the ```sh blocks; a trailing backslash joins lines."""
    for block in re.finditer(r"^```sh\n(.*?)^```", text, re.M | re.S):
        line, joined = text[:block.start(1)].count("\n") + 1, ""
        for raw in block.group(1).splitlines():
            joined += raw.rstrip("\\").split(" #")[0].strip() + " "
            if not raw.endswith("\\"):
                if joined.strip() and not joined.startswith("#"):
                    yield line, joined.strip()
                joined = ""
            line += 1


def make_cifar100(folder, per_class=8):
    folder.mkdir(parents=True)
    for name, count in (("train.bin", per_class), ("test.bin", 4)):
        with open(folder / name, "wb") as f:
            for i in range(100 * count):
                label = i % 100
                f.write(bytes([label // 5, label]) + bytes((label * 7 + i * 13 + k * (1 + label % 3)) % 256 for k in range(3072)))


def make_idx(folder):
    folder.mkdir(parents=True)
    for stem, count in (("train", 200), ("t10k", 100)):
        with open(folder / f"{stem}-images-idx3-ubyte", "wb") as f:
            f.write(struct.pack(">IIII", 0x803, count, 28, 28) + bytes((i * 31 + k) % 256 for i in range(count) for k in range(784)))
        with open(folder / f"{stem}-labels-idx1-ubyte", "wb") as f:
            f.write(struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count)))


class Runner:
    def __init__(self, source, build, scratch):
        self.source, self.build, self.scratch = source, build, scratch
        make_cifar100(scratch / "cifar")
        make_idx(scratch / "idx")
        self.ran = self.checked = 0

    def shrink(self, command):
        """The command as it is run here, or None when it is only checked."""
        launcher = re.match(r"mpirun (.*?)(?=build/evergrad)", command)
        if launcher:
            if not shutil.which("mpirun"):
                return None
            root = "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
            return f"{root} mpirun --oversubscribe {launcher.group(1)}{self.shrink(command[launcher.end():])}"
        command = re.sub(r"(?<=--data )\S+", lambda m: str(self.scratch / ("idx" if "--stream idx" in command else "cifar")), command)
        command = re.sub(r"\bruns/", f"{self.scratch}/runs/", command)
        command = re.sub(r"(?<=--plugin )build/", f"{self.build}/", command)
        command = re.sub(r"^build/", f"{self.build}/", command)
        if any(command.startswith(c) for c in ONLY_CHECKED):
            return None
        command = re.sub(r"^((?:\w+=\S+ )+)build/", rf"\1{self.build}/", command)
        command = re.sub(r"(?<=--sweep-tasks )\d+", "1", command)
        words = [w for w in shlex.split(command) if not re.match(r"[A-Z_]+=", w)]
        tool = os.path.basename(words[0])
        if tool == "demo":
            return f"EVERGRAD_DEMO_OUT={self.scratch}/demo {command} {SMALL_STREAM}"
        if tool == "softmax_regression":
            return command + " --epochs 1"
        if tool == "train_vit":
            return command + " 1"
        if tool == "autograd":
            return command
        if command.startswith("tests/gpu"):
            return command + " --list"  # which parts that would be
        if tool.startswith("python3"):  # PyTorch is not a dependency of the tests: the scripts must at least parse
            return f"{sys.executable} -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' {words[1]}"
        if tool != "evergrad":
            raise SystemExit(f"no rule for the command '{command}': add one to {os.path.relpath(__file__, self.source)}")
        if "vit_tiny.safetensors" in words:
            return command.replace("vit_tiny.safetensors", WEIGHTS[0]) + " " + WEIGHTS[1]
        if "--init" in words:  # the file brings the model's flags
            return command + re.sub(r" --(dim|depth|heads) \d+", "", " " + (SMALL_STREAM if words[1] == "continual" else SMALL_TRAIN))
        if len(words) > 1 and not {"--help", "--list-methods", "--list-recipes"} & set(words):
            return command + {"continual": " " + SMALL_STREAM, "train": " " + SMALL_TRAIN, "bench": " " + SMALL_BENCH,
                              "eval": " --test-limit 24"}.get(words[1], "")
        return command

    def run(self, where, command):
        subprocess.run(["bash", "-n", "-c", command], check=True)
        short = self.shrink(command)
        if short is None:
            self.checked += 1
            return
        environment = dict(os.environ, CI="true", EVERGRAD_TARGETS="evergrad")
        done = subprocess.run(["bash", "-c", short], cwd=self.source, capture_output=True, text=True, env=environment, timeout=300)
        if done.returncode == 2 and "has no cairo" in done.stderr:
            print(f"{where}: left out, this build draws no pictures: {short}", flush=True)
            return
        if done.returncode:
            raise SystemExit(f"{where}: '{command}'\nrun as '{short}'\nexit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        self.ran += 1
        print(f"{where}: {short}", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--source", type=pathlib.Path, required=True)
    p.add_argument("--build", type=pathlib.Path, required=True)
    o = p.parse_args()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="evergrad-readme-"))
    try:
        runner = Runner(o.source, o.build, scratch)
        for file in [o.source / "README.md"] + sorted(o.source.glob("docs/*.md")) + sorted(o.source.glob("docs/benchmarks/*.md")):
            text = file.read_text()
            for line, command in commands(text):
                runner.run(f"{file.relative_to(o.source)}:{line}", command)
            for link in re.findall(r"\]\(([^)#:]+)\)", text):
                if not (file.parent / link).exists():
                    raise SystemExit(f"{file.relative_to(o.source)} links to {link}, which does not exist")
        if runner.ran < 5:
            raise SystemExit(f"only {runner.ran} commands were found: has the README lost its ```sh blocks?")
        print(f"docs/debug-a-kernel.md: {check_page(o.source.resolve(), o.build.resolve(), scratch)}", flush=True)
        print(f"{runner.ran} commands ran, {runner.checked} were checked for syntax only")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
