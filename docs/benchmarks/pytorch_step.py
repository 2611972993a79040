#!/usr/bin/env python3
"""Times one full training step of the same ViT in PyTorch (eager and compiled) and, when asked, in evergrad.

    python3 docs/benchmarks/pytorch_step.py --threads 2 --json pytorch.json
    python3 docs/benchmarks/pytorch_step.py --threads 2 --evergrad build/evergrad

The step is what `evergrad bench --step` times: uint8 images already in memory, decode and normalise, forward, mean
cross-entropy, backward, global-norm clip, AdamW (decoupled decay on matrices only), loss read by the host. No crop and
no flip on either side. Every variant runs in a process of its own, variants and evergrad take turns (`--rounds`), and
the median over the steps of a round is kept; the table shows the best and the median round, because other load on the
machine only ever makes a round slower. Ratios compare best rounds.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

VARIANTS = ["eager-fp32", "compile-fp32", "eager-bf16", "compile-bf16"]


def parse(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--image-size", type=int, default=32)
    p.add_argument("--patch", type=int, default=4)
    p.add_argument("--dim", type=int, default=192)
    p.add_argument("--depth", type=int, default=12)
    p.add_argument("--heads", type=int, default=3)
    p.add_argument("--classes", type=int, default=100)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--steps", type=int, default=12, help="timed steps in each round")
    p.add_argument("--warmup", type=int, default=3)
    p.add_argument("--rounds", type=int, default=3, help="how often every variant has its turn")
    p.add_argument("--variants", default=",".join(VARIANTS))
    p.add_argument("--max-autotune", action="store_true", help="compile with mode='max-autotune' (slow to start)")
    p.add_argument("--evergrad", help="the evergrad binary to time side by side")
    p.add_argument("--evergrad-precisions", default="fp32,bf16")
    p.add_argument("--json", help="write everything here")
    p.add_argument("--worker", help=argparse.SUPPRESS)
    return p.parse_args(argv)


def worker(o):
    """One variant, one round; prints one JSON line."""
    import torch
    import torch.nn.functional as F
    from vit_torch import Config, Vit, decay_groups

    mode, precision = o.worker.split("-")
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    c = Config(image_size=o.image_size, patch=o.patch, dim=o.dim, depth=o.depth, heads=o.heads, classes=o.classes)
    model = Vit(c).train()
    optimizer = torch.optim.AdamW(decay_groups(model, 0.05), lr=1e-3, fused=True)
    images = torch.randint(0, 256, (4, o.batch, 3, o.image_size, o.image_size), dtype=torch.uint8)
    labels = torch.randint(0, o.classes, (4, o.batch))
    mean, std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)

    def loss_of(x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = model((x.float() / 255.0 - mean) / std)
        return F.cross_entropy(logits.float(), y)

    if mode == "compile":
        loss_of = torch.compile(loss_of, mode="max-autotune" if o.max_autotune else None)

    def step(i):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images[i % 4], labels[i % 4])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    start = time.perf_counter()
    for i in range(o.warmup):
        step(i)
    started = time.perf_counter() - start
    times = []
    for i in range(o.steps):
        start = time.perf_counter()
        step(i)
        times.append(1e3 * (time.perf_counter() - start))
    print(json.dumps({"ms": statistics.median(times), "min_ms": min(times), "warmup_s": started,
                      "torch": torch.__version__}))


def run_torch(o, variant):
    args = [sys.executable, os.path.abspath(__file__), "--worker", variant]
    for name in ("batch", "image_size", "patch", "dim", "depth", "heads", "classes", "threads", "steps", "warmup"):
        args += ["--" + name.replace("_", "-"), str(getattr(o, name))]
    args += ["--max-autotune"] if o.max_autotune else []
    done = subprocess.run(args, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS=str(o.threads)))
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_evergrad(o, precision):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        args = [o.evergrad, "bench", "--step", "--methods", "adamw", "--precision", precision, "--json", out.name]
        for name in ("batch", "image_size", "patch", "dim", "depth", "heads", "classes", "threads", "steps"):
            args += ["--" + name.replace("_", "-"), str(getattr(o, name))]
        done = subprocess.run(args, capture_output=True, text=True)
        if done.returncode:
            return {"error": (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]}
        with open(out.name) as f:
            report = json.load(f)
    return {"ms": report["steps"][0]["ms"], "min_ms": report["steps"][0]["ms"], "report": report}


def collect(o):
    variants = o.variants.split(",")
    ours = ["evergrad-" + p for p in o.evergrad_precisions.split(",")] if o.evergrad else []
    rounds = {name: [] for name in variants + ours}
    for turn in range(o.rounds):
        for name in rounds:
            r = run_evergrad(o, name.split("-")[1]) if name in ours else run_torch(o, name)
            rounds[name].append(r)
            print(f"round {turn + 1}: {name:14s} " + (r.get("error") or f"{r['ms']:.1f} ms"), file=sys.stderr)
    return rounds


def best(rounds, names):
    """(name, ms) of the fastest best round among `names`; None when none of them ran."""
    got = [(min(r["ms"] for r in rounds[n] if "ms" in r), n) for n in names if any("ms" in r for r in rounds.get(n, []))]
    return (min(got)[1], min(got)[0]) if got else None


def ratios(rounds):
    """evergrad's images/s over PyTorch's: fp32 against the best fp32, and best against best."""
    result = {}
    theirs32, ours32 = best(rounds, [n for n in VARIANTS if n.endswith("fp32")]), best(rounds, ["evergrad-fp32"])
    theirs, ours = best(rounds, VARIANTS), best(rounds, ["evergrad-fp32", "evergrad-bf16"])
    if theirs32 and ours32:
        result["fp32"] = {"pytorch": theirs32[0], "evergrad": ours32[0], "ratio": theirs32[1] / ours32[1], "wanted": 1.1}
    if theirs and ours:
        result["best"] = {"pytorch": theirs[0], "evergrad": ours[0], "ratio": theirs[1] / ours[1], "wanted": 1.5}
    return result


def show(o, rounds):
    from vit_torch import Config, train_flops
    flops = o.batch * train_flops(Config(image_size=o.image_size, patch=o.patch, dim=o.dim, depth=o.depth, heads=o.heads,
                                         classes=o.classes))
    print(f"ViT {o.image_size}/{o.patch}, D={o.dim}, depth {o.depth}, {o.heads} heads, batch {o.batch}, "
          f"{o.threads} threads, {o.rounds} rounds of {o.steps} steps")
    print(f"{'variant':16s} {'best ms':>9s} {'median ms':>10s} {'images/s':>9s} {'GFLOP/s':>8s}")
    for name, rs in rounds.items():
        ms = [r["ms"] for r in rs if "ms" in r]
        if not ms:
            print(f"{name:16s} failed: {rs[0]['error']}")
            continue
        print(f"{name:16s} {min(ms):9.1f} {statistics.median(ms):10.1f} {o.batch / min(ms) * 1e3:9.1f} "
              f"{flops / min(ms) * 1e-6:8.1f}")
    for kind, r in ratios(rounds).items():
        print(f"{kind}: {r['evergrad']} is {r['ratio']:.2f}x {r['pytorch']} (wanted {r['wanted']}x)")


def main():
    o = parse()
    if o.worker:
        return worker(o)
    rounds = collect(o)
    show(o, rounds)
    if o.json:
        options = {k: v for k, v in vars(o).items() if k not in ("json", "worker")}
        with open(o.json, "w") as f:
            json.dump({"options": options, "rounds": rounds, "ratios": ratios(rounds)}, f, indent=1)


if __name__ == "__main__":
    main()
