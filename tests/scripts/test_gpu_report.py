#!/usr/bin/env python3
"""tests/gpu without a GPU: a stand-in for nvidia-smi, compute-sanitizer and the built programs, and planted figures.

Shows that calls add up in one file, that a gate is reached, missed or not measured as the figures say, that what runs out of time
is not called a fault, that every case handed to compute-sanitizer exists, and that PyTorch's figures survive a kill.
"""
import argparse
import contextlib
import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import types
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "tests" / "scripts"), str(ROOT / "docs" / "benchmarks")]
import gpu_commit  # noqa: E402
import gpu_models  # noqa: E402
import gpu_parts  # noqa: E402
import gpu_report  # noqa: E402
from gpu_models import MODELS  # noqa: E402
from gpu_report import BIG, SMALL  # noqa: E402

CARD = "NVIDIA Planted 1"
STAND_INS = {
    "nvidia-smi": 'case "$1" in *compute_cap*) echo 9.0;; *) echo "NVIDIA Planted 1";; esac',
    "compute-sanitizer": 'case "$*" in *"matmul: rows"*) sleep ${SLOW:-0};; *"attention: forward"*) [ -z "$FOUND" ] || exit $FOUND;;'
                         ' *"cast: "*) sleep ${SLOW_CAST:-0};; esac\n'
                         'n=$(echo "$*" | sed "s/.*--test-case=//" | tr -cd , | wc -c); n=$((n + 1))\n'  # commas part the cases
                         'echo "[doctest] test cases: $n | ${RAN:-$n passed} | 0 failed"',
    "tests/test_kernels_cuda": 'cat "$(dirname "$0")/../kernel_cases"',
    "tests/test_words_cuda": 'echo "words: one, two"',
    # Its step takes RATE images a second; without RATE it fails.
    "evergrad": 'out=""; while [ $# -gt 0 ]; do [ "$1" = --json ] && out="$2"; [ "$1" = --ladder ] && rungs="$2"; shift; done\n'
                '[ -z "$rungs" ] || [ "$rungs" != "$SLOW_LADDER" ] || sleep 60\n'
                '[ -z "$rungs" ] || { echo "rung | ms"; echo "$rungs naive | 3.5"; exit 0; }\n'
                '[ -n "$RATE" ] || exit 1\n'
                'mkdir "$EVERGRAD_CACHE" || exit 1\n'  # which must be a new one
                'echo "{\\"steps\\": [{\\"method\\": \\"adamw\\", \\"images_per_second\\": $RATE, \\"p95_ms\\": 9.5}], \\"ceilings\\": {}}" > "$out"',
    # Trains: its weights are what the cache holds, which it fills when it is empty. Without SHARED everybody has a cache of his own.
    "trains": 'while [ $# -gt 0 ]; do [ "$1" = --out ] && out="$2"; [ "$1" = --kernels ] && mode="$2"; shift; done\n'
              'file="$EVERGRAD_CACHE/choices"; mkdir -p "$EVERGRAD_CACHE" "$out/checkpoints"\n'
              '[ "$mode" != auto ] || [ -n "$SHARED" ] || rm -f "$file"\n'
              '[ -e "$file" ] || { [ "$mode" = auto ] && date +%s%N || echo fixed; } > "$file"\n'
              'cp "$file" "$out/checkpoints/1.safetensors"',
}


def kernel_cases():
    """What test_kernels_cuda would list."""
    text = "".join(p.read_text() for p in sorted((ROOT / "tests" / "kernels").glob("test_*.cpp")) if p.stem != "test_matmul_paths")
    return re.findall(r'TEST_CASE\(\s*"([^"]+)"', text)


def part(state="ok", figures=None, time="2026-01-01 10:00", commit="aaa", **more):
    return {"state": state, "time": time, "commit": commit, "commands": [], **more,
            "figures": {k: {**v, "time": time, "commit": commit} for k, v in (figures or {}).items()}}


def row(name, ms, flops=0.0, gigabytes=1.0):
    return {"name": name, "ms": ms, "flops": flops, "bytes": gigabytes * 1e9, "bound": "memory", "ceiling_share": 0.5}


def bench_of(rate, rows=()):
    return {"images_per_second": rate, "p95_ms": 77.25, "report": {"ceilings": {"copy_gb_per_s": 2000.0}, "kernels": list(rows)}}


def planted():
    """Reaches every gate by a hair but three: ViT-Ti is missed, ViT-S not measured, the fp32 ring missed."""
    rate = {"attention_fwd": 180e9, "attention_bwd": 220e9}
    share = {"layer_norm_fwd + residual": 0.8501, "layer_norm_bwd + residual": 0.8501, "adam_update": 0.8801}
    big = [row(name, ms, ms * rate.get(name, 0.0), ms * share.get(name, 0.5) / 0.5)  # a gigabyte takes 0.5 ms
           for _, name, ms in gpu_report.ACCEPTED]
    small = [row("attention_fwd", 0.5 / 0.6), row("attention_bwd", 0.5 / 0.6)]
    return {
        "bench": part(figures={BIG: bench_of(3000, big), SMALL: bench_of(60000, small), "ViT-Ti/16 224 @256": bench_of(20999)}),
        "bench-auto": part(figures={BIG: bench_of(4000)}, commit="bbb"),
        "pytorch-eager": part(figures={f"{BIG} | eager, flash": {"images_per_second": 2500}, f"{SMALL} | eager, cudnn": {"images_per_second": 30000}}),
        "pytorch-compile": part(figures={f"{BIG} | compile, cudnn": {"images_per_second": 3200, "p95_ms": 88.5}}),
        "arrow": part(figures={BIG: {"ms": {"adamw": [100, 100, 100], "arrow:ring=bf16": [100.3, 99, 105], "arrow:ring=fp32": [100.7, 100.7, 90]}}}),
        "repeat": part(figures={"bitwise_equal": {"value": True}}),
    }


class Merging(unittest.TestCase):
    def test_figures_of_earlier_calls_stay_with_their_commit_and_time(self):
        new = {"bench": part(figures={SMALL: bench_of(70000)}, time="2026-01-02 10:00", commit="ccc")}
        merged = gpu_report.merge(planted(), new)
        self.assertEqual(set(merged), set(planted()))
        self.assertEqual(merged["bench"]["commit"], "ccc")
        self.assertEqual([(f["images_per_second"], f["commit"]) for f in merged["bench"]["figures"].values()],
                         [(3000, "aaa"), (70000, "ccc"), (20999, "aaa")])
        self.assertEqual(merged["arrow"], planted()["arrow"])

    def test_a_part_that_was_not_run_replaces_none_and_a_failed_one_keeps_figures(self):
        merged = gpu_report.merge(planted(), {"bench": part(gpu_report.NOT_RUN, why="no time was left"), "ranks": part(gpu_report.NOT_RUN),
                                              "arrow": part(gpu_report.FAILED, commit="ccc")})
        self.assertEqual(merged["bench"], planted()["bench"])
        self.assertEqual(merged["ranks"]["state"], gpu_report.NOT_RUN)
        self.assertEqual((merged["arrow"]["state"], merged["arrow"]["figures"][BIG]["commit"]), (gpu_report.FAILED, "aaa"))

    def test_a_file_of_somebody_else_is_refused_and_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "x.json"
            self.assertEqual(gpu_report.read(path), {})
            for text in ("{", "[]", '{"parts": {"bench": {"ok": true}}}'):
                path.write_text(text)
                with self.assertRaisesRegex(SystemExit, "x.json is not a file that tests/gpu wrote"):
                    gpu_report.read(path)
                self.assertEqual(path.read_text(), text)


class Gates(unittest.TestCase):
    def results(self, parts):
        return {what: (round(figure.value, 6) if figure else None, result) for what, _, _, _, figure, result in gpu_report.judge(parts)}

    def test_each_gate_says_what_the_figures_say(self):
        r = self.results(planted())
        missed = {what for what, (_, result) in r.items() if result == "MISSED"}
        unknown = {what for what, (_, result) in r.items() if result == "not measured"}
        self.assertEqual(missed, {"ViT-Ti/16 224 @256: images/s", "ARROW, fp32 ring: share of ViT-B's step"})
        self.assertEqual(unknown, {"ViT-S/16 224 @256: images/s"})
        self.assertEqual(r[f"{BIG}: images/s"], (4000, "reached"))  # of --kernels auto, the best of the three
        self.assertEqual(r[f"{BIG}: over the best PyTorch"], (1.25, "reached"))
        self.assertEqual(r[f"{SMALL}: over the best PyTorch"], (2.0, "reached"))
        self.assertEqual(r["attention backward, S=197, d=64"], (220, "reached"))
        self.assertEqual(r[f"{BIG}: proj"], (0.1, "reached"))
        self.assertEqual(r["attention forward, S=65: of the memory floor"], (60, "reached"))
        self.assertEqual(r["ARROW, bf16 ring: share of ViT-B's step"], (0.3, "reached"))  # the middle of three turns
        self.assertEqual(r["ARROW, fp32 ring: share of ViT-B's step"], (0.7, "MISSED"))

    def test_a_little_worse_is_missed(self):
        parts = planted()
        for r in parts["bench"]["figures"][BIG]["report"]["kernels"] + parts["bench"]["figures"][SMALL]["report"]["kernels"]:
            r["ms"] *= 1.01
        parts["repeat"]["figures"]["bitwise_equal"]["value"] = False
        missed = [what for what, (_, result) in self.results(parts).items() if result == "MISSED"]
        for what in ("attention forward, S=197, d=64", "attention backward, S=65: of the memory floor", "AdamW: of copy bandwidth",
                     "layer norm forward: of copy bandwidth", "layer norm backward: of copy bandwidth", "weights after 100 steps equal, bit for bit",
                     *(f"{BIG}: {name}" for name, _, _ in gpu_report.ACCEPTED)):
            self.assertIn(what, missed)

    def test_a_kernel_is_judged_by_the_fastest_of_its_times_and_the_others_are_named(self):
        parts = planted()
        self.assertEqual(gpu_report.kernel_ms(parts, "matmul qkv").what, "--kernels hand")
        choice = {"call": "matmul 50432x2304x768", "kernel": "wgmma 256", "from": "measured", "ms": {"mma": 0.5, "wgmma 256": 0.25, "cublaslt": "differs | by 3"}}
        parts["bench-auto"]["figures"][BIG]["report"].update(kernels=[row("matmul qkv", 0.25)], choices=[choice, {**choice, "from": "cache", "ms": None}])
        figure = gpu_report.kernel_ms(parts, "matmul qkv")
        self.assertEqual((figure.value, figure.what, figure.commit), (0.25, "--kernels auto; hand 0.280 ms", "bbb"))
        self.assertEqual(gpu_report.kernel_ms(parts, "matmul fc2").what, "--kernels hand")  # auto does not have it
        text = gpu_report.markdown(CARD, parts)
        self.assertIn(f"## Kernels at {BIG}, --kernels auto (bbb)", text)
        self.assertIn("| matmul 50432x2304x768 | wgmma 256 | measured | mma 0.500 ms, wgmma 256 0.250 ms, cublaslt: differs / by 3 |", text)
        self.assertIn("| matmul 50432x2304x768 | wgmma 256 | cache |  |", text)
        del parts["bench"]["figures"][BIG]
        self.assertIn((f"{BIG}: fc2", "not measured"), [(what, result) for what, _, _, _, _, result in gpu_report.judge(parts)])

    def test_nothing_measured_reaches_nothing(self):
        self.assertEqual({result for _, result in self.results({}).values()}, {"not measured"})

    def test_the_kernels_that_gates_read_are_those_that_bench_times(self):
        source = (ROOT / "apps" / "bench" / "kernel_bench.cpp").read_text()
        for _, name, _ in gpu_report.ACCEPTED:
            self.assertIn(f'time("{name}"', source)

    def test_markdown(self):
        parts = {**planted(), "sanitize-racecheck": part(gpu_report.OUT_OF_TIME, why="after 90 s of: a | b")}
        text = gpu_report.markdown(CARD, parts)
        self.assertIn("| ViT-S/16 224 @256: images/s | at least 11,000 /s | - | not measured |  |  |", text)
        self.assertIn("| ViT-B/16 224 @256: images/s | at least 3,900 /s | 4,000 /s | reached | --kernels auto | bbb |", text)
        self.assertIn("| ViT-B/16 224 @256 | 3,000 | - | 4,000 | 64.0, 77.2 | compile, cudnn | 3,200 | 80.0, 88.5 | 1.25 | bbb |", text)
        self.assertIn("| 60,000 | - | - | 17.1, 77.2 | eager, cudnn | 30,000 | 34.1, - | 2.00 |", text)  # without it in the file
        self.assertIn("not measured: pytorch-max-autotune", text)
        self.assertIn("| sanitize-racecheck | ran out of time: after 90 s of: a / b | 0 |", text)
        tables = [t for t in re.split(r"\n\n", text) if t.startswith("|")]
        self.assertEqual(len(tables), 5)
        for table in tables:
            self.assertEqual(len({line.count("|") for line in table.strip().splitlines()}), 1, table)


class WholeCalls(unittest.TestCase):
    """tests/gpu itself, with stand-ins for what a GPU machine has."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        (self.folder / "tests").mkdir()
        (self.folder / "kernel_cases").write_text("[doctest] listing all test case names\n" + "".join(f"{n}\n" for n in kernel_cases()))
        for name, body in STAND_INS.items():
            file = self.folder / name
            file.write_text(f"#!/bin/sh\n{body}\n")
            file.chmod(0o755)

    def call(self, *args, **env):
        clean = {k: v for k, v in os.environ.items() if k not in ("SLOW", "SLOW_LADDER", "FOUND", "RATE", "RAN")}
        done = subprocess.run([sys.executable, ROOT / "tests" / "gpu", "--out", self.folder, "--build", self.folder, *args], text=True,
                              capture_output=True, env={**clean, "PATH": f"{self.folder}:{os.environ['PATH']}", **env})
        json_file = self.folder / "gpu-nvidia-planted-1.json"
        return done, json.loads(json_file.read_text())["parts"] if json_file.exists() else {}

    def test_calls_add_up_and_a_fault_differs_from_a_lack_of_time(self):
        done, parts = self.call("--parts", "sanitize-memcheck")
        self.assertEqual((done.returncode, parts["sanitize-memcheck"]["state"]), (0, "ok"), done.stdout)
        self.assertEqual(len(parts["sanitize-memcheck"]["commands"]), len(gpu_parts.SANITIZED["memcheck"]))
        self.assertEqual(set(parts["sanitize-memcheck"]["figures"]), set(gpu_parts.SANITIZED["memcheck"]))
        done, parts = self.call("--parts", "sanitize-racecheck", "--minutes", "0.1", SLOW="60")
        self.assertEqual((done.returncode, parts["sanitize-racecheck"]["state"]), (1, "ran out of time"), done.stdout)
        self.assertNotIn("FAILED", done.stdout)
        done, parts = self.call("--parts", "sanitize-synccheck", FOUND="3")
        self.assertEqual((done.returncode, parts["sanitize-synccheck"]["state"]), (1, "FAILED"), done.stdout)
        done, parts = self.call("--parts", "sanitize-initcheck", RAN="0 passed")
        self.assertEqual(parts["sanitize-initcheck"]["state"], "FAILED")
        done, parts = self.call("--parts", "bench", "--models", "ViT-B", RATE="1234")
        self.assertEqual((done.returncode, parts["bench"]["figures"][BIG]["images_per_second"]), (0, 1234), done.stdout)
        self.assertIn("--steps 50 ", parts["bench"]["commands"][0]["command"])
        self.assertEqual(parts["bench"]["figures"][BIG]["p95_ms"], 9.5)
        self.assertNotIn("--step", parts["bench"]["commands"][0]["command"].split())  # its kernels too
        done, parts = self.call("--parts", "bench-auto", "--models", "ViT-B", RATE="1000")
        self.assertNotIn("--step", parts["bench-auto"]["commands"][0]["command"].split())
        done, parts = self.call("--parts", "benches", "--models", "D=384 @256", RATE="99")
        self.assertIn("--step", parts["bench-auto"]["commands"][0]["command"].split())
        self.assertEqual(set(parts["bench"]["figures"]), {BIG, "ViT 32/4 D=384 @256"})
        done, parts = self.call("--parts", "bench", "--models", "ViT-B")  # fails now
        self.assertEqual((parts["bench"]["state"], parts["bench"]["figures"][BIG]["images_per_second"]), ("FAILED", 1234))
        self.assertEqual(set(parts), {"sanitize-memcheck", "sanitize-racecheck", "sanitize-synccheck", "sanitize-initcheck", "bench",
                                      "bench-library", "bench-auto"})
        text = (self.folder / "gpu-nvidia-planted-1.md").read_text()
        self.assertIn("| sanitize-racecheck | ran out of time: after ", text)
        self.assertIn("| ViT-B/16 224 @256: images/s | at least 3,900 /s | 1,234 /s | MISSED |", text)

    def test_a_tool_goes_on_with_the_cases_that_it_has_not_seen(self):
        cases = gpu_parts.SANITIZED["racecheck"]
        done, parts = self.call("--parts", "sanitize-racecheck", FOUND="3")
        self.assertEqual((done.returncode, parts["sanitize-racecheck"]["state"]), (1, "FAILED"))
        self.assertEqual(set(parts["sanitize-racecheck"]["figures"]), {c for c in cases if not c.startswith("attention: forward")})
        done, parts = self.call("--parts", "sanitize-racecheck")
        self.assertEqual((done.returncode, parts["sanitize-racecheck"]["state"]), (0, "ok"), done.stdout)
        again = [c["command"] for c in parts["sanitize-racecheck"]["commands"]]
        self.assertEqual([c.split("--test-case=")[1] for c in again], [c for c in cases if c.startswith("attention: forward")])
        (self.folder / "built_from_commit").write_text("beef123")  # of another build nothing is known
        done, parts = self.call("--parts", "sanitize-racecheck")
        self.assertEqual(len(parts["sanitize-racecheck"]["commands"]), len(cases))

    def test_the_rest_of_the_cases_comes_family_by_family_and_goes_on_where_it_stopped(self):
        done, parts = self.call("--parts", "rest-memcheck", "--minutes", "0.1", SLOW_CAST="60")
        self.assertEqual((done.returncode, parts["rest-memcheck"]["state"]), (1, "ran out of time"), done.stdout)
        before = set(parts["rest-memcheck"]["figures"])
        self.assertTrue(before)
        self.assertNotIn("test_kernels_cuda cast", before)
        done, parts = self.call("--parts", "rest-memcheck")
        rest = parts["rest-memcheck"]
        self.assertEqual((done.returncode, rest["state"]), (0, "ok"), done.stdout)
        again = [c["command"] for c in rest["commands"] if "--tool" in c["command"]]
        self.assertEqual(len(again), len(rest["figures"]) - len(before))
        # With those of the part before, every case has been seen once.
        seen = sum(f["cases"] for f in rest["figures"].values())
        named = [n for n in kernel_cases() if any(fnmatch.fnmatchcase(n, p) for p in gpu_parts.SANITIZED["memcheck"])]
        self.assertEqual(seen, len(kernel_cases()) - len(named) + 1)  # and one of the words
        self.assertEqual(rest["figures"]["test_words_cuda words"]["cases"], 1)
        for tool in ("racecheck", "synccheck"):  # with their part before them: every case too
            done, parts = self.call("--parts", f"rest-{tool}")
            seen = sum(f["cases"] for f in parts[f"rest-{tool}"]["figures"].values())
            self.assertEqual((done.returncode, seen), (0, len(kernel_cases()) - len(gpu_parts.SANITIZED[tool]) + 1), done.stdout)
        done, parts = self.call("--parts", "rest-initcheck", RAN="0 passed")
        self.assertEqual(parts["rest-initcheck"]["state"], "FAILED")

    def test_a_run_that_chooses_its_kernels_repeats_only_with_one_cache(self):
        (self.folder / "evergrad").write_text((self.folder / "trains").read_text())
        done, parts = self.call("--parts", "repeat", SHARED="1")
        self.assertEqual((done.returncode, {k: f["value"] for k, f in parts["repeat"]["figures"].items()}),
                         (0, {"bitwise_equal": True, "bitwise_equal_library": True, "bitwise_equal_auto": True}), done.stdout)
        self.assertIn("| reached | --kernels hand, library, auto |", (self.folder / "gpu-nvidia-planted-1.md").read_text())
        done, parts = self.call("--parts", "repeat")
        self.assertEqual((done.returncode, parts["repeat"]["state"]), (1, "FAILED"))
        self.assertIn("--kernels auto", parts["repeat"]["why"])
        self.assertIn("| MISSED | --kernels hand, library, auto |", (self.folder / "gpu-nvidia-planted-1.md").read_text())

    def test_what_the_file_lacks_comes_first(self):
        first = next(iter(MODELS))
        self.call("--parts", "bench", "--models", first, RATE="5")
        done, parts = self.call("--parts", "bench", RATE="6")
        self.assertEqual(len(parts["bench"]["commands"]), len(MODELS))
        order = [line for line in done.stdout.splitlines() if "evergrad bench" in line]
        self.assertIn("--model vit-b --image-size 224", order[-1])

    def test_only_this_cards_architecture_and_only_what_is_started_is_built(self):
        commands = []
        figures = {}
        configured = "--   with    NCCL: x\n--   with    cuDNN: y\n--   WITHOUT cuBLASLt: z"
        call = types.SimpleNamespace(options=types.SimpleNamespace(deps="", build="b", minutes=9), last_output=configured, built=lambda: commands.append("built"),
                                     figure=lambda part, name, **values: figures.update({name: values}),
                                     run=lambda part, command, *_: commands.append([str(c) for c in command]) or "")
        with mock.patch.dict(os.environ, {"PATH": f"{self.folder}:{os.environ['PATH']}"}):
            gpu_parts.part_build(call)
        self.assertIn("-DCMAKE_CUDA_ARCHITECTURES=90a", commands[0])
        self.assertIn("-DEVERGRAD_EMULATED=OFF", commands[0])
        self.assertEqual(commands[1][commands[1].index("--target") + 1:], ["evergrad", "test_kernels_cuda", "test_words_cuda", "test_devices", "nccl_probe"])
        self.assertEqual(commands[2], "built")
        self.assertEqual(figures, {"libraries": {"with": ["NCCL", "cuDNN"], "without": ["cuBLASLt"]}})
        says = gpu_report.markdown(CARD, {"build": part(figures=figures)})
        self.assertIn("The build (aaa) has NCCL, cuDNN and **lacks cuBLASLt**", says)

    def test_libraries_of_python_packages_are_offered_where_no_toolkit_has_them(self):
        site, toolkit = self.folder / "site", self.folder / "toolkit"
        for file in ("nccl/include/nccl.h", "nccl/lib/libnccl.so.2", "cu13/include/cudnn.h", "cu13/lib/libcudnn.so.9",
                     "cublas/include/cublasLt.h", "cublas/lib/libcublasLt.so.12"):
            (site / "nvidia" / file).parent.mkdir(parents=True, exist_ok=True)
            (site / "nvidia" / file).touch()
        (toolkit / "include").mkdir(parents=True)
        with mock.patch.object(sys, "path", [str(site), *sys.path]), mock.patch.dict(sys.modules):
            sys.modules.pop("nvidia", None)
            nccl, cudnn = (f"-DEVERGRAD_NCCL={site}/nvidia/nccl", f"-DEVERGRAD_CUDNN={site}/nvidia/cu13")
            self.assertEqual(gpu_parts.packaged_libraries([toolkit]), [nccl, cudnn])  # that cuBLASLt is of another toolkit
            for folder in ("cublas", "cu13"):
                (site / "nvidia" / folder / "include" / "cublasLt.h").touch()
                (site / "nvidia" / folder / "lib" / "libcublasLt.so.13").touch()
                self.assertEqual(gpu_parts.packaged_libraries([toolkit]), [nccl, cudnn, f"-DEVERGRAD_CUBLAS={site}/nvidia/{folder}"])
            (toolkit / "include" / "nccl.h").touch()
            (toolkit / "include" / "cublasLt.h").touch()
            self.assertEqual(gpu_parts.packaged_libraries([toolkit]), [cudnn])

    def test_figures_carry_the_commit_that_was_built(self):
        (self.folder / "built_from_commit").write_text("beef123")
        _, parts = self.call("--parts", "bench", "--models", "ViT-B", RATE="5")
        self.assertEqual((parts["bench"]["commit"], parts["bench"]["figures"][BIG]["commit"]), ("beef123", "beef123"))

    def test_the_ladders_are_kept_as_they_are_printed(self):
        done, parts = self.call("--parts", "ladders", "--minutes", "0.1", SLOW_LADDER="layer_norm")
        self.assertEqual((done.returncode, parts["ladders"]["state"], set(parts["ladders"]["figures"])), (1, "ran out of time", {"attention"}))
        done, parts = self.call("--parts", "ladders", SLOW_LADDER="attention")
        self.assertEqual((done.returncode, parts["ladders"]["state"]), (0, "ok"), done.stdout)
        self.assertEqual(set(parts["ladders"]["figures"]), set(gpu_report.LADDERS))
        for c in parts["ladders"]["commands"]:
            self.assertIn("--model vit-b --image-size 224 --patch 16 --classes 1000 --batch 256 --device cuda:0", c["command"])
        text = (self.folder / "gpu-nvidia-planted-1.md").read_text()
        self.assertIn("\n```text\nrung | ms\nmatmul naive | 3.5\n```\n", text)

    def test_a_bare_machine_goes_on_from_a_file_of_an_earlier_one(self):
        _, parts = self.call("--parts", "sanitize-racecheck")
        kept = self.folder / "kept.json"
        (self.folder / "gpu-nvidia-planted-1.json").rename(kept)
        _, parts = self.call("--parts", "sanitize-racecheck,bench", "--models", "ViT-B", "--earlier", kept, RATE="5")
        self.assertEqual(parts["sanitize-racecheck"]["commands"], [])
        self.assertEqual(set(parts["sanitize-racecheck"]["figures"]), set(gpu_parts.SANITIZED["racecheck"]))
        # What lies in the folder is newer.
        _, parts = self.call("--parts", "bench", "--models", "D=192 @256", "--earlier", kept, RATE="6")
        self.assertEqual({m: f["images_per_second"] for m, f in parts["bench"]["figures"].items()}, {BIG: 5, "ViT 32/4 D=192 @256": 6})
        for text, why in ((None, "no such file"), ('{"card": "another", "parts": {}}', "its figures are of another")):
            kept.unlink(missing_ok=True)
            if text:
                kept.write_text(text)
            done, _ = self.call("--parts", "bench", "--earlier", kept)
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)

    def test_a_commit_that_nobody_knows_is_not_the_same_again(self):
        for name in ("unknown", "beef123+"):
            (self.folder / "built_from_commit").write_text(name)
            for _ in range(2):
                done, parts = self.call("--parts", "sanitize-racecheck")
                self.assertEqual(len(parts["sanitize-racecheck"]["commands"]), len(gpu_parts.SANITIZED["racecheck"]), done.stdout)

    def test_unknown_names_are_refused(self):
        for args, known in ((["--parts", "benchh"], "pytorch-eager"), (["--models", "ViT-L"], "ViT-B/16 224 @256")):
            done, _ = self.call(*args)
            self.assertEqual(done.returncode, 2)
            self.assertIn(known, done.stderr)


class Commits(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.tree = pathlib.Path(scratch.name) / "tree"
        (self.tree / "engine").mkdir(parents=True)
        (self.tree / "docs").mkdir()
        (self.tree / "CMakeLists.txt").write_text("project(x)")
        (self.tree / "engine" / "a.cpp").write_text("int a;")

    def name(self):
        return gpu_commit.commit_of_tree(self.tree)

    @contextlib.contextmanager
    def git(self, folder):
        def run(*args):
            subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *args], cwd=folder, check=True, capture_output=True)
        run("init")
        run("add", ".")
        run("commit", "-m", "x")
        yield
        shutil.rmtree(folder / ".git")

    def test_a_copied_tree_is_named_by_its_sources(self):
        first = self.name()
        self.assertRegex(first, "^files-[0-9a-f]{10}$")
        self.assertTrue(gpu_commit.same(first, self.name()))
        (self.tree / "engine" / "__pycache__").mkdir()
        (self.tree / "engine" / "__pycache__" / "a.pyc").write_text("x")
        (self.tree / "docs" / "gpu-card.json").write_text("{}")
        self.assertEqual(self.name(), first)
        (self.tree / "engine" / "a.cpp").rename(self.tree / "engine" / "b.cpp")
        renamed = self.name()
        (self.tree / "engine" / "b.cpp").write_text("int b;")
        self.assertEqual(len({first, renamed, self.name()}), 3)
        with self.git(self.tree.parent):  # of another repository, which has the copy in it
            self.assertRegex(self.name(), "^files-")

    def test_a_tree_in_git_is_named_by_its_commit_and_by_what_was_changed(self):
        with self.git(self.tree):
            clean = self.name()
            self.assertRegex(clean, "^[0-9a-f]{7,}$")
            (self.tree / "engine" / "a.cpp").write_text("int b;")
            changed = self.name()
            self.assertRegex(changed, rf"^{clean}\+[0-9a-f]{{10}}$")
            (self.tree / "engine" / "a.cpp").write_text("int c;")
            self.assertNotEqual(self.name(), changed)
            (self.tree / "engine" / "a.cpp").write_text("int a;")
            self.assertEqual(self.name(), clean)

    def test_without_the_program_git_too(self):
        with mock.patch.dict(os.environ, {"PATH": str(self.tree)}):
            self.assertRegex(self.name(), "^files-")


class Sources(unittest.TestCase):
    def test_the_top_file_takes_the_folders_that_a_build_is_given(self):
        text = (ROOT / "CMakeLists.txt").read_text()
        for name, (option, header, library) in gpu_parts.LIBRARIES.items():
            self.assertRegex(text, rf"find_path\(\w+ {header} HINTS \$\{{{option}\}}/include ")
            self.assertRegex(text, rf"find_library\(\w+ NAMES \w+ {library} [A-Z_\s]*HINTS \$\{{{option}\}}/lib ")
            self.assertIn(f'evergrad_have("{name}" ', text)

    def test_every_case_for_compute_sanitizer_is_one_case(self):
        names = kernel_cases()
        for pattern in {c for cases in gpu_parts.SANITIZED.values() for c in cases}:
            self.assertNotIn(",", pattern)  # doctest would take two patterns
            self.assertEqual(len([n for n in names if fnmatch.fnmatchcase(n, pattern)]), 1, pattern)
        for tool, cases in gpu_parts.SANITIZED.items():
            self.assertIn("matmul: rows*", cases, f"{tool} must see the tensor cores' product")
            self.assertTrue({f"sanitize-{tool}", f"rest-{tool}"} <= set(gpu_parts.PARTS), tool)

    def test_95_percent_of_times_are_within_what_p95_says(self):
        self.assertEqual([gpu_models.p95(list(range(1, n + 1))) for n in (1, 19, 20, 50, 100)], [1, 19, 19, 48, 95])
        self.assertEqual(gpu_models.p95([3, 1, 2]), 3)

    def test_pytorchs_figures_are_on_disk_after_each_variant(self):
        stubs = {name: mock.MagicMock() for name in ("torch", "torch.nn", "torch.nn.functional", "torch.nn.attention", "vit_torch")}
        with mock.patch.dict(sys.modules, stubs), tempfile.TemporaryDirectory() as folder:
            import pytorch_gpu
            file = pathlib.Path(folder) / "p.json"
            variants = [("A", "eager", "flash"), ("A", "eager", "cudnn"), ("A", "max-autotune", "flash")]

            def measure(_, mode, attention):
                if attention == "cudnn":
                    raise RuntimeError("no kernel\nmore")
                if mode != "eager":
                    raise SystemExit("killed while it compiled")
                return {"images_per_second": 7.0, "ms": 2.0, "p95_ms": 3.0}
            with self.assertRaises(SystemExit):
                pytorch_gpu.run_variants(variants, 100, measure, lambda r: pytorch_gpu.write_whole(file, r))
            result = json.loads(file.read_text())
            self.assertEqual(result["measured"], {"A": {"eager, flash": {"images_per_second": 7.0, "ms": 2.0, "p95_ms": 3.0}}})
            self.assertEqual(result["failed"], {"A": {"eager, cudnn": "RuntimeError: no kernel"}})
            pytorch_gpu.run_variants(variants, -1, measure, lambda r: pytorch_gpu.write_whole(file, r))
            self.assertEqual(len(json.loads(file.read_text())["left_out"]), 3)
            self.assertEqual([f.name for f in pathlib.Path(folder).iterdir()], ["p.json"])


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--source", help="not used: this file knows where it is")
    p.add_argument("--build", help="not used; every script test is given it")
    _, rest = p.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])
