"""Trains over several processes under mpirun and compares: with one process, with itself, and across a restart.

The sums themselves are tested bit for bit by test_engine and test_apps (one process); here is what only real processes show:
the same steps over MPI, the emulated device's streams and recordings, run folders, checkpoints, signals, and
what happens when a rank is lost (rank_faults.py). Every run checks by itself after each task that the weights are the same bits on
all ranks. Skipped (77) without mpirun or a build with MPI. Faults that need root are not among these, but a call each
(--fault), skipped where nobody may make what they need.
"""
import argparse
import array
import hashlib
import json
import math
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from rank_faults import SPECIAL, check_faults
from rank_hosts import Unavailable

ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               # Few cores and many ranks: whoever waits lets the others run.
               "OMPI_MCA_mpi_yield_when_idle": "1"}
# Debian's Fashion-MNIST, of which such a network learns something, where it is.
REAL = pathlib.Path("/usr/share/datasets/fashion-mnist").exists()
IMAGES = "--stream idx --channels 1 --image-size 28 --patch 7" if REAL else "--stream procedural --image-size 16 --patch 8"
# The rate falls to nothing, so that accuracies at the end are those of a network at rest.
MODEL = "--dim 16 --depth 3 --heads 2 --lr 1e-3 --schedule cosine --precision fp32"
STREAM = f"{IMAGES} --train-limit 200 --test-limit 300 --augment none --batch 16 --epochs 6 {MODEL}"
CONTINUAL = f"continual {STREAM} --tasks 2 --classes-per-task 3 --probe none --methods"
TOLERANCE = pathlib.Path(__file__).parents[1] / "tolerance.h"
SHARE = 0.03  # decision for accuracies across numbers of ranks


def mpirun(ranks):
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []


class Runs:
    def __init__(self, evergrad, scratch):
        self.evergrad, self.scratch, self.count = evergrad, scratch, 0
        self.environment = ENVIRONMENT

    def __call__(self, command, ranks=1, folder=None, extra=(), expect=0, **environment):
        self.count += 1
        folder = folder or self.scratch / f"run{self.count}"
        args = [*mpirun(ranks), self.evergrad, *command.split(), "--out", str(folder), *extra]
        done = subprocess.run(args, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=300)
        assert done.returncode == expect, f"{' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        self.output = done.stdout + done.stderr
        return folder


def tensors(path):
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data])
    return {name: (e["dtype"], content[data + e["data_offsets"][0]:data + e["data_offsets"][1]])
            for name, e in header.items() if name != "__metadata__"}


def weights(folder):
    """The bits of the newest checkpoint's tensors, which ranks may have written each its part of."""
    newest = max((folder / "checkpoints").glob("step-*.json"), key=lambda p: int(p.stem.split("-")[1]))
    said = json.loads(newest.read_text())
    whole = {}
    for file in said.get("files", [said]):
        for name, (dtype, content) in tensors(newest.parent / file["file"]).items():
            pieces = file.get("pieces", {}).get(name)
            if pieces is None:
                whole[name] = content
                continue
            width, at = int(dtype.strip("BF")) // 8, 0
            for begin, size in pieces:
                size_of_whole = math.prod(said["divided"][name]) * width
                place = whole.setdefault(name, bytearray(size_of_whole))
                place[begin * width:(begin + size) * width] = content[at:at + size * width]
                at += size * width
    digest = hashlib.sha256()
    for name in sorted(whole):
        digest.update(name.encode() + bytes(whole[name]))
    return digest.hexdigest()


def accuracies(folder):
    return [r["task_accuracy"] for r in json.loads((folder / "summary.json").read_text())["results"]]


def children(pid):
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except OSError:
            pass  # it has ended
    return sorted(found)


def sent(folder):
    """Bytes that all ranks together sent in each task."""
    return [sum(json.loads(line)["sent_bytes"]) for line in (folder / "ranks.jsonl").read_text().splitlines()]


def near(ours, theirs, what):
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            assert abs(x - y) <= SHARE, f"{what}: accuracies {ours} against {theirs}"


def sums_over_mpi(build):
    for ranks in [2, 3, 4]:
        for program in ["test_engine", "test_devices"] if ranks == 3 else ["test_engine"]:
            if not (build / "tests" / program).exists():
                continue  # a build without the emulated device
            done = subprocess.run([*mpirun(ranks), str(build / "tests" / program), "-tc=collectives: MPI*"], env=ENVIRONMENT, capture_output=True,
                                  text=True, timeout=300)
            assert done.returncode == 0 and done.stdout.count("1 passed") == ranks, f"{program}: {done.stdout}{done.stderr}"


def ranks_equal_one(run):
    methods = "sgd,adamw,arrow:window=4"
    one = run(f"{CONTINUAL} {methods}")
    for ranks in [2, 3, 4]:
        near(accuracies(run(f"{CONTINUAL} {methods}", ranks)), accuracies(one), f"{ranks} ranks")
        if ranks == 4:
            assert run.output.count("arrow") < 40, f"other ranks print too:\n{run.output}"


# One step an epoch, so that metrics.jsonl has every loss; 14 images, of which three and four ranks have unequal parts.
STEPS = ("train --stream procedural --classes 2 --image-size 8 --patch 4 --dim 16 --depth 2 --heads 2 --train-limit 14 --test-limit 4 --batch 14 "
         "--augment none --precision fp32 --threads 1 --lr 1e-3")


def named_weights(run, folder):
    """Tensors by name, as numbers. Without the key biases: their gradient is zero but for rounding."""
    file = run.scratch / f"{folder.name}.safetensors"
    subprocess.run([run.evergrad, "export", str(folder), "-o", str(file)], env=ENVIRONMENT, check=True, capture_output=True)
    found = {name: array.array("f", content) for name, (_, content) in tensors(file).items()}
    for name, numbers in found.items():
        if name.endswith("qkv.bias"):
            del numbers[len(numbers) // 3:2 * len(numbers) // 3]
    return file, found


def disturbed_copy(file, share):
    """The file with every number w as w (1 + share n), n normal."""
    content, draw = file.read_bytes(), random.Random(1)
    data = 8 + int.from_bytes(content[:8], "little")
    numbers = array.array("f", (w * (1 + share * draw.gauss(0, 1)) for w in array.array("f", content[data:])))
    other = file.with_suffix(".disturbed.safetensors")
    other.write_bytes(content[:data] + numbers.tobytes())
    return other


def ranks_take_the_same_steps(run):
    """Losses step by step and the weights behind them, within drift_bound of tests/tolerance.h: of what a run of one rank does whose
    first weights are disturbed by kDriftSeed; the weights as a whole by what that disturbance was at first, or has become. With --zero 1:
    the same bits. EVERGRAD_SLOW_TESTS (tests/run --all): on the emulated device as many steps, methods and ranks as on the cpu."""
    bounds = {name: float(value) for name, value in re.findall(r"\b(k\w+) = ([0-9.e-]+)[,;]", TOLERANCE.read_text())}
    start, _ = named_weights(run, run(f"{STEPS} --method sgd --epochs 1"))
    disturbed = disturbed_copy(start, bounds["kDriftSeed"])

    def losses(folder):
        return [json.loads(line)["train_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

    everything = {"sgd": [2, 3, 4], "adamw": [2, 3, 4], "arrow:window=4": [2, 3, 4]}
    emulated = (50, everything) if os.environ.get("EVERGRAD_SLOW_TESTS") else (12, {"sgd": [2], "adamw": [3], "arrow:window=4": [2, 3, 4]})
    for device, steps, sizes in [("cpu", 50, everything), ("emulated", *emulated)]:
        for method, ranks_tried in sizes.items():
            command = f"{STEPS} --device {device} --epochs {steps} --method {method} --init"
            one, other = run(f"{command} {start}"), run(f"{command} {disturbed}")
            right, off = losses(one), losses(other)
            right_weights, off_weights = named_weights(run, one)[1], named_weights(run, other)[1]
            assert len(right) == steps, right
            for ranks in ranks_tried:
                what = f"{method} on {device}, {ranks} ranks"
                folder = run(f"{command} {start}", ranks)
                largest = 0.0
                for step, (ours, loss, moved) in enumerate(zip(losses(folder), right, off, strict=True)):
                    largest = max(largest, abs(moved - loss))
                    bound = largest + bounds["kLossAgreement"] * (1 + abs(loss))
                    assert abs(ours - loss) <= bound, f"{what}: the loss of step {step} is {ours} and not {loss}, off by more than {bound}"
                ours = named_weights(run, folder)[1]
                error, disturbance = (math.hypot(*(math.dist(w[name], right_weights[name]) for name in right_weights)) for w in (ours, off_weights))
                bound = max(disturbance, bounds["kDriftSeed"] * math.hypot(*(math.hypot(*w) for w in right_weights.values())))
                assert error <= bound, f"{what}: the weights are off by {error}, more than {bound}"
                if method != "adamw" and ranks < 4:
                    divided = run(f"{command} {start} --zero 1", ranks)
                    assert weights(divided) == weights(folder), f"{what}: --zero 1 changes the checkpoint"
                    assert losses(divided) == losses(folder), f"{what}: --zero 1 changes losses"


def repeats_are_bitwise_equal(run):
    first, *others = (weights(run(f"{CONTINUAL} arrow:window=4", 3)) for _ in range(3))
    assert others == [first, first], "three runs of three ranks differ"


def divided_state_gives_the_same_checkpoint(run):
    whole, divided = (run(f"{CONTINUAL} adamw --optimizer-state keep", 3, extra=extra) for extra in [[], ["--zero", "1"]])
    assert weights(whole) == weights(divided), "--zero 1 changes the checkpoint"
    assert len(list((divided / "checkpoints").glob("step-*.rank-2.safetensors"))) > 0, "rank 2 has written no part of a checkpoint"
    # In bf16 a rank keeps its pieces of the masters alone, and what travels is the copy that forward reads: 4 + 2 bytes instead of 4 + 4.
    command = f"{CONTINUAL} adamw --epochs 2".replace("fp32", "bf16")
    whole, divided = (run(command, 3, extra=extra) for extra in [[], ["--zero", "1"]])
    assert weights(whole) == weights(divided), "--zero 1 changes what is trained in bf16"
    assert sum(sent(divided)) < 0.8 * sum(sent(whole)), (sum(sent(divided)), sum(sent(whole)))
    for ranks in [2, 1]:
        run(f"{command} --zero 1", ranks, divided, ["--resume"])
    newest = max((whole / "checkpoints").glob("step-*.json"), key=lambda p: int(p.stem.split("-")[1]))
    own = run(f"{command} --zero 1 --ema 0.9", 3)
    part = sorted((own / "checkpoints").glob("step-*.rank-1.safetensors"))[-1]
    said = [subprocess.run([run.evergrad, "eval", "--checkpoint", str(c)], env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
            for c in [newest, part, own]]
    assert said[1] == said[2] and "%" in said[0], said
    # Not equal: MPI adds up short ranges in one round, in which everybody sends everything.
    assert 0 < sum(sent(divided)) <= sum(sent(whole)), "a divided step sends more than a whole sum"


def gradients_travel_as_bf16(run):
    """Half the bytes for gradients, the same bits with --zero 1, and a setting that a run keeps."""
    command = f"{CONTINUAL} adamw --epochs 2"
    wide = run(command, 2)
    narrow, divided = (run(f"{command} --reduce bf16 {zero}", 2) for zero in ["", "--zero 1"])
    assert 'reduce = "bf16"' in (narrow / "config.toml").read_text()
    assert weights(narrow) == weights(divided) != weights(wide), "--zero 1 changes what --reduce bf16 trains, or that does nothing"
    near(accuracies(narrow), accuracies(wide), "gradients in bf16")
    # Norms are 8 bytes a step; of gradients and weights, 4 bytes each, the gradients' half is saved where both travel.
    whole, half, three_quarters = (sum(sent(folder)) for folder in [wide, narrow, divided])
    # The weights of a task's last step, of 26, are gathered by its test, behind the line that counts.
    expected = 1 / 4 + 1 / 2 * 25 / 26
    assert abs(half / whole - 1 / 2) < 0.01 and abs(three_quarters / whole - expected) < 0.003, (whole, half, three_quarters)
    run(command, 2, narrow, ["--resume"], expect=1)
    assert "reduce" in run.output, run.output


def kernels_that_one_rank_has_measured(run):
    """Ranks measure nothing: what one has found for the batch of each, in a cache, all of them take; else the rule decides."""
    command = ("train --device emulated --precision bf16 --stream procedural --classes 2 --train-limit 16 --test-limit 4 --epochs 1 --image-size 8 --patch 4 "
               "--dim 16 --depth 1 --heads 2 --threads 1 --method adamw --augment none --batch")
    def products(folder):
        """{call: kernel}"""
        lines = [line for line in (folder / "config.toml").read_text().split('"') if line.startswith("matmul") and " = tile-" in line]
        return dict(line.split(" = ") for line in lines)

    chosen = {}
    for name, cache in [("found", run.scratch / "measured"), ("nothing", run.scratch / "unmeasured")]:
        clock = {"EVERGRAD_EMULATED": "fastest=tile-128", "EVERGRAD_CACHE": str(cache)}
        if name == "found":
            alone = products(run(f"{command} 4", 1, **clock))
            assert set(alone.values()) == {"tile-128"}, f"one rank has not measured: {alone}"
        chosen[name] = products(run(f"{command} 8", 2, **clock))
        assert " measured " not in run.output, run.output
    assert len(chosen["found"]) > 12 and chosen["found"].keys() == chosen["nothing"].keys(), chosen
    for call, kernel in chosen["found"].items():  # tests are shared differently: two images a rank, which one rank has not met
        assert kernel == ("tile-128" if call in alone else "tile-64"), f"{call} = {kernel}"
    assert "tile-128" in chosen["found"].values() and set(chosen["nothing"].values()) == {"tile-64"}, chosen


def the_emulated_device(run):
    """Recorded steps hold the collectives too: the same bits as without a recording, whenever each stream's work is done."""
    command = f"{CONTINUAL} arrow:window=4+cbp --device emulated --epochs 2 --train-limit 40 --test-limit 90"
    recorded = run(command, 2)
    assert weights(recorded) == weights(run(command, 2, extra=["--no-graph"])), "a recorded step of two ranks differs from a plain one"
    for order in ["3"]:
        lazy = run(command, 2, EVERGRAD_EMULATED=f"streams=lazy:{order}")
        assert weights(recorded) == weights(lazy), f"another order of streams ({order}) gives other bits: a wait is missing"
    by_parts = command.replace("+cbp", "") + " --zero 1 --reduce bf16"
    divided, plain = (run(by_parts, 2, extra=extra) for extra in [[], ["--no-graph"]])
    assert weights(divided) == weights(plain), "--zero 1: a recorded step differs from a plain one"
    lazy = run(by_parts, 2, EVERGRAD_EMULATED="streams=lazy:3")
    assert weights(divided) == weights(lazy), "--zero 1: another order of streams gives other bits: a wait is missing"
    # A last batch of one image, of which the first two ranks have none: they wait for weights all the same, and record what the third does.
    short = ("train --device emulated --stream procedural --classes 2 --train-limit 10 --test-limit 4 --epochs 3 --batch 9 --image-size 8 --patch 4 "
             "--dim 16 --depth 2 --heads 2 --threads 1 --method adamw --zero 1")
    reference = run(short, 3)
    assert "not recorded" not in run.output, run.output
    for more in [{"EVERGRAD_EMULATED": "streams=lazy:2"}, {"EVERGRAD_EMULATED": "streams=lazy:5"}]:
        assert weights(run(short, 3, **more)) == weights(reference), "a rank without images: another order of streams gives other bits"
    kernels_that_one_rank_has_measured(run)
    near(accuracies(recorded), accuracies(run(command)), "two emulated devices")
    bf16 = command.replace("fp32", "bf16")
    near(accuracies(run(bf16, 2)), accuracies(run(bf16)), "two emulated devices in bf16")


def stopped_at_four_goes_on_at_any(run):
    """A signal to one rank stops all of them at the same step, with a checkpoint that any number of ranks continues."""
    command = f"train {STREAM} --epochs 24 --classes 3 --method arrow:window=4"
    folder = run.scratch / "stopped"
    args = [*mpirun(4), run.evergrad, *command.split(), "--out", str(folder)]
    process = subprocess.Popen(args, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not (folder / "metrics.jsonl").exists() or (folder / "metrics.jsonl").stat().st_size == 0:
        assert process.poll() is None and time.time() < deadline, f"the run did not start:\n{process.communicate()}"
        time.sleep(0.05)
    os.kill(children(process.pid)[2], signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, f"exit {process.returncode}\n{out}{err}"
    assert "continue with the same command and --resume" in out, out
    ends = {}
    for ranks in [1, 2, 3, 4]:
        copy = run.scratch / f"resumed{ranks}"
        shutil.copytree(folder, copy)
        run(command, ranks, copy, ["--resume"])
        epochs = json.loads((copy / "summary.json").read_text())["epochs"]
        assert len(epochs) == 24, epochs
        ends[ranks] = [[sum(epochs[-5:]) / 5]]  # the stop came at any time, so the last of so many epochs is noise
    for ranks in [2, 3, 4]:
        near(ends[ranks], ends[1], f"resumed by {ranks} ranks")
    assert weights(run.scratch / "resumed4") == weights(run(command, 4)), "a stop and a restart change bits"


def errors_end_all(run):
    folder = run(f"{CONTINUAL} sgd", 2)
    run(f"{CONTINUAL} sgd", 2, folder, expect=1)
    assert "rank 0 of 2: the output folder" in run.output and "add --resume" in run.output, run.output
    run(f"{CONTINUAL} l2p", 2, expect=1)
    assert "l2p:batchwise=0 or one rank" in run.output, run.output
    run(f"{CONTINUAL} sgd --jobs 2", 2, expect=1)
    assert "--ranks-as-jobs" in run.output, run.output


def bench_over_ranks(run):
    """A timeline of two processes: every bucket once a step on both, on the cpu all of it exposed; and weak scaling."""
    bench = f"bench --steps 3 --batch 4 --threads 1 --image-size 8 --patch 4 {MODEL.split('--lr')[0]} --precision fp32 --methods"

    def start(command, ranks=2, expect=0, **environment):
        done = subprocess.run([*mpirun(ranks), run.evergrad, *command.split()], env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=300)
        assert done.returncode == expect, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    for device in ["cpu", "emulated"]:
        file = run.scratch / f"{device}.json"
        said = start(f"{bench} arrow:window=4 --device {device} --trace {file}")
        assert said.count("exposed") == 1, f"the second rank prints too:\n{said}"
        trace = json.loads(file.read_text())
        buckets, seen = len(trace["otherData"]["profile"]["buckets"]), {}
        for event in trace["traceEvents"]:
            if event.get("cat") == "communication" and event["args"]["bucket"] >= 0:
                key = event["pid"], event["args"]["step"], event["args"]["bucket"]
                seen[key] = seen.get(key, 0) + 1
        assert buckets >= 2 and set(seen.values()) == {1}, seen
        assert set(seen) == {(r, s, b) for r in range(2) for s in range(3) for b in range(buckets)}, seen
        # A sum on the main stream (the gradient's norm, ARROW's inner products) lets nothing else run.
        assert any(e["args"]["bucket"] < 0 and e["args"]["blocks"] for e in trace["traceEvents"] if e.get("cat") == "communication"), device
        for line in said.split("exposed\n")[1].splitlines()[1:3]:
            _, step, *_, communication, exposed = map(float, line.split())
            assert 0 <= exposed <= communication <= step and (device != "cpu" or exposed == communication), line
        # With --zero 1: every bucket's weights once a step (what lies outside of blocks in two pieces), and a block waits for its own.
        divided = run.scratch / f"{device}-divided.json"
        said_of_it = start(f"{bench} arrow:window=4 --device {device} --zero 1 --trace {divided}", EVERGRAD_EMULATED="streams=lazy:3")
        assert "--zero 1" in said_of_it and "of them exposed" in said_of_it, said_of_it
        events = [e for e in json.loads(divided.read_text())["traceEvents"] if e["ph"] == "X"]
        for rank, step in [(r, s) for r in range(2) for s in range(3)]:
            own = [e for e in events if (e["pid"], e["args"]["step"]) == (rank, step)]
            gathers = [e for e in own if e["args"].get("weights", -1) >= 0]
            waits = {e["name"].split(" of ")[1]: e for e in own if e["name"].startswith("waits for the weights")}
            assert sorted(e["args"]["weights"] for e in gathers) == [*range(buckets), buckets - 1], gathers
            assert list(waits) == ["the embedding", "block 0", "block 1", "block 2", "the head"], waits
            for block in range(3):
                mine, = (e for e in gathers if f"block {block}" in e["name"])
                wait = waits[f"block {block}"]
                assert mine["ts"] + mine["dur"] <= wait["ts"] + wait["dur"] + 1, (mine, wait)
            forward, = (e for e in own if e["name"] == "forward")
            assert all(e["args"]["enqueued_us"] <= forward["ts"] + forward["dur"] for e in gathers), (gathers, forward)
            # In lazy streams gathers run between two pieces of the forward pass, which goes on without the later ones.
            hidden = [e for e in gathers if e["ts"] > forward["ts"] and all(not w["ts"] < e["ts"] + e["dur"] / 2 < w["ts"] + w["dur"] for w in waits.values())]
            assert (len(hidden) > 0) == (device == "emulated"), (device, gathers, waits, forward)
        for line in said_of_it.split("of them exposed\n")[1].splitlines()[1:3]:
            *_, communication, exposed, gathered, late = map(float, line.split())
            assert 0 <= late <= gathered <= communication and late <= exposed and gathered > 0, line
            assert (late == gathered) == (device == "cpu"), line
        said = start(f"bench --scaling {file} --scaling-ranks 2,8", ranks=1)
        assert "measured on 2 ranks" in said and "Of the 2 ranks that were traced the model says" in said, said

    file = run.scratch / "weak.json"
    start(f"{bench} adamw --weak-scaling --rounds 2 --json {file}")
    weak = json.loads(file.read_text())
    assert weak["ranks"] == 2 and len(weak["all_ranks_s"]) == 2 and min(weak["one_rank_s"] + weak["nothing_exchanged_s"]) > 0, weak
    assert "--weak-scaling" in start("bench --kernels-only", expect=2)


def faults_end_all(run):
    check_faults(run, weights, mpirun)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--only", help="one check, by name")
    parser.add_argument("--fault", choices=SPECIAL, help="this fault and nothing else")
    args = parser.parse_args()
    evergrad = str(args.build / "evergrad")
    if not shutil.which("mpirun"):
        print("skipped: there is no mpirun (Debian: openmpi-bin)")
        return 77
    if "MPI: training over several" not in subprocess.run([evergrad, "info"], capture_output=True, text=True, check=True).stdout:
        print("skipped: evergrad was built without MPI")
        return 77
    with tempfile.TemporaryDirectory() as scratch:
        run = Runs(evergrad, pathlib.Path(scratch))
        if args.fault:
            try:
                check_faults(run, weights, mpirun, args.fault)
            except Unavailable as e:
                print(f"skipped: {e}")
                return 77
            return 0
        checks = [ranks_equal_one, ranks_take_the_same_steps, repeats_are_bitwise_equal, divided_state_gives_the_same_checkpoint,
                  gradients_travel_as_bf16, the_emulated_device, stopped_at_four_goes_on_at_any, bench_over_ranks,
                  errors_end_all, faults_end_all]
        start = time.time()
        for check in [lambda _: sums_over_mpi(args.build), *checks]:
            name = "sums_over_mpi" if check not in checks else check.__name__
            if args.only in [None, name]:
                check(run)
                print(f"{name}: good, {time.time() - start:.0f} s so far", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
