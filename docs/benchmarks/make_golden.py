#!/usr/bin/env python3
"""Writes golden files: weights, batch, loss and all gradients of one training step, computed by PyTorch.

    python3 docs/benchmarks/make_golden.py tests/layers/golden          # the small files that are kept with the tests
    python3 docs/benchmarks/make_golden.py --full DIR                   # ViT 32/4, D=192, depth 12, batch 64: 86 MB

tests/layers/test_golden.cpp checks evergrad against every file in tests/layers/golden, and against those in the folder
that the variable EVERGRAD_GOLDEN names. Weights are not the initial ones but spread out, so that no gradient is small by
construction. Needs torch and safetensors. The files depend on PyTorch's generator and rounding: a new version may change
their last digits, which is no reason to replace them.
"""
import argparse
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from vit_torch import Config, Vit

SMALL = dict(image_size=8, patch=4, dim=8, depth=2, heads=2, classes=5)
VARIANTS = {
    "class_token": (Config(**SMALL), 0.0),
    "mean_tanh_sincos": (Config(**SMALL, class_token=False, gelu="tanh", sincos=True), 0.0),
    "qk_norm_layer_scale": (Config(**SMALL, qk_norm=True, layer_scale=0.5), 0.0),
    "registers": (Config(**SMALL, registers=2), 0.1),
    "registers_mean": (Config(**dict(SMALL, depth=1), registers=3, class_token=False), 0.0),
    "odd_sizes": (Config(**dict(SMALL, image_size=6, patch=2, dim=9, heads=3, depth=1, mlp_ratio=3.5, classes=3)), 0.0),
}


def spread(model, seed):
    """Weights that make every gradient matter; all of them are exact in fp32."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            gain = "norm" in name and name.endswith("weight") or name.endswith("gamma")
            fan_in = p[0].numel() if p.ndim > 1 and "token" not in name and "pos" not in name else 4
            p.copy_(1 + 0.2 * noise if gain else noise / fan_in**0.5)


def step(model, images, labels, mean, std, smoothing, dtype):
    model = model.to(dtype)
    model.zero_grad()
    x = (images.to(dtype) / 255 - mean.to(dtype).view(1, -1, 1, 1)) / std.to(dtype).view(1, -1, 1, 1)
    loss = F.cross_entropy(model(x), labels, label_smoothing=smoothing)
    loss.backward()
    return loss.detach(), {n: p.grad.detach().clone() for n, p in model.named_parameters()}


def write(path, c, smoothing, batch, seed, double):
    torch.manual_seed(seed)
    model = Vit(c)
    spread(model, seed)
    images = torch.randint(0, 256, (batch, c.channels, c.image_size, c.image_size), dtype=torch.uint8)
    labels = torch.randint(0, c.classes, (batch,))
    mean, std = torch.tensor([0.5, 0.375, 0.4375]), torch.tensor([0.25, 0.3125, 0.25])
    out = {"weight/" + n: p.detach().float().clone() for n, p in model.named_parameters()}
    # Double first: model.to(float32) would round the sin-cos positions for good.
    for dtype, tag in ((torch.float64, "64"), (torch.float32, "32"))[0 if double else 1:]:
        loss, gradients = step(model, images, labels, mean, std, smoothing, dtype)
        out["loss" + tag] = loss.reshape(1)
        out.update({f"gradient{tag}/{n}": g.contiguous() for n, g in gradients.items()})
    out.update(images=images, labels=labels.int(), mean=mean, std=std)
    about = {k: str(v) for k, v in vars(c).items()} | {"smoothing": str(smoothing), "torch": torch.__version__}
    save_file(out, path, about)
    print(f"{path}: loss {float(out['loss32']):.6f}, {os.path.getsize(path)} bytes")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--full", action="store_true", help="the benchmark's model and batch in its real size instead")
    o = p.parse_args()
    os.makedirs(o.folder, exist_ok=True)
    if o.full:
        return write(os.path.join(o.folder, "vit_32_4.safetensors"), Config(), 0.0, 64, 1, True)
    for seed, (name, (config, smoothing)) in enumerate(VARIANTS.items(), 1):
        write(os.path.join(o.folder, name + ".safetensors"), config, smoothing, 3, seed, True)


if __name__ == "__main__":
    main()
