#!/usr/bin/env python3
"""images/s of one ViT training step on a GPU in PyTorch: eager, compiled, and compiled with max-autotune and CUDA graphs,
each with flash and cuDNN attention. `tests/gpu` runs it beside `evergrad bench`.

    python3 docs/benchmarks/pytorch_gpu.py --json pytorch.json
    python3 docs/benchmarks/pytorch_gpu.py --device cpu --models smoke      tries the script on a machine without a GPU

The step: uint8 images on the device, decode and normalise, forward in bf16 autocast, mean cross-entropy, backward,
global-norm clip, fused AdamW (decoupled decay on matrices only), the loss read by the host. The median over steps is
kept, and what 95% of them are within. A variant that fails says why; when `--seconds` are used up the rest is left out, by name. The file of `--json` is
written anew after every variant: compiling one can outlast any limit, and must not cost what was measured before it.
"""
import argparse
import json
import os
import pathlib
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from gpu_models import MODELS, STEPS, classes, p95
from torch.nn.attention import SDPBackend, sdpa_kernel
from vit_torch import Config, Vit, decay_groups

SMOKE = dict(image_size=16, patch=4, dim=32, depth=2, heads=2, batch=4)
MODES = {"eager": None, "compile": {}, "max-autotune": {"mode": "max-autotune"}}
ATTENTION = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def measure(o, model_name, mode, attention):
    m = SMOKE if model_name == "smoke" else MODELS[model_name]
    batch, size = m["batch"], m["image_size"]
    settings = {key: m[key] for key in ("image_size", "patch", "dim", "depth", "heads")}
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = Vit(Config(classes=classes(m), **settings)).to(o.device).train()
    optimizer = torch.optim.AdamW(decay_groups(model, 0.05), lr=1e-3, fused=True)
    images = torch.randint(0, 256, (2, batch, 3, size, size), dtype=torch.uint8, device=o.device)
    labels = torch.randint(0, 100, (2, batch), device=o.device)

    def loss_of(x, y):
        with torch.autocast(o.device, dtype=torch.bfloat16):
            logits = model((x.float() / 255.0 - 0.5) / 0.25)
        return F.cross_entropy(logits.float(), y)

    run = loss_of if MODES[mode] is None else torch.compile(loss_of, **MODES[mode])
    kernel = [ATTENTION[attention]] if o.device == "cuda" else [SDPBackend.MATH]

    def step(i):
        with sdpa_kernel(kernel):
            optimizer.zero_grad(set_to_none=True)
            loss = run(images[i % 2], labels[i % 2])
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()  # waits for the device

    for i in range(5):
        step(i)
    times = []
    for i in range(o.steps):
        start = time.perf_counter()
        step(i)
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    return {"images_per_second": batch / median, "ms": 1e3 * median, "p95_ms": 1e3 * p95(times), "timed_steps": o.steps}


def write_whole(path, result):
    """All of the file or none: whoever reads it after a kill finds what was measured until then."""
    part = pathlib.Path(str(path) + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(part, path)


def run_variants(variants, seconds, measure, write, after=lambda: None):
    """Measures (model, mode, attention) after (model, mode, attention) and writes what is known after each one."""
    start = time.time()
    result = {"measured": {}, "failed": {}, "left_out": []}
    for name, mode, attention in variants:
        variant = f"{mode}, {attention}"
        if time.time() - start > seconds:
            result["left_out"].append(f"{name}: {variant}")
            print(f"left out for lack of time: {name}: {variant}", flush=True)
        else:
            try:
                m = measure(name, mode, attention)
                result["measured"].setdefault(name, {})[variant] = m
                print(f"{name:20s} {variant:22s} {m['images_per_second']:10.1f} images/s, {m['ms']:.2f} ms, 95% within {m['p95_ms']:.2f}", flush=True)
            except Exception as e:  # one variant's failure must not cost the others' numbers
                why = f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"
                result["failed"].setdefault(name, {})[variant] = why
                print(f"{name:20s} {variant:22s} failed: {why}", flush=True)
            after()
        write(result)
    return result


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    p.add_argument("--models", default=",".join(MODELS), help="comma-separated; smoke: a tiny one")
    p.add_argument("--modes", default=",".join(MODES))
    p.add_argument("--attention", default=",".join(ATTENTION))
    p.add_argument("--steps", type=int, default=STEPS)
    p.add_argument("--seconds", type=float, default=1e9, help="start no further variant after this long")
    p.add_argument("--json")
    o = p.parse_args()
    for name in o.models.split(","):
        if name not in (*MODELS, "smoke"):
            p.error(f"unknown model {name!r}; known: {', '.join(MODELS)}, smoke")
    if o.device == "cuda" and not torch.cuda.is_available():
        sys.exit("pytorch_gpu.py: PyTorch sees no GPU; try --device cpu --models smoke to test the script")
    card = torch.cuda.get_device_name() if o.device == "cuda" else "cpu"

    def write(result):
        if o.json:
            write_whole(o.json, {"torch": torch.__version__, "card": card, **result})

    # One mode after the other over all models, so that a short time still gives every model its eager number.
    variants = [(name, mode, attention) for mode in o.modes.split(",") for name in o.models.split(",")
                for attention in o.attention.split(",")]
    run_variants(variants, o.seconds, lambda *variant: measure(o, *variant), write,
                 torch.cuda.empty_cache if o.device == "cuda" else lambda: None)


if __name__ == "__main__":
    main()
