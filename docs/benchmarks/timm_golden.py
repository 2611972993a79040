#!/usr/bin/env python3
"""Writes golden files for tests/cases: tiny models of timm and Hugging Face with their logits and gradients, and what
timm's resampling makes of positions and patch kernels.

    python3 docs/benchmarks/timm_golden.py tests/cases

tests/apps/test_weights.cpp checks evergrad against them. Weights are spread out, so that no gradient is small by
construction. Needs torch, timm, transformers and safetensors; other versions may change the last digits, which is no reason
to replace the files.
"""
import argparse
import os
import tempfile

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models.vision_transformer import VisionTransformer

SMALL = dict(img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=10, mlp_ratio=2.0)
VARIANTS = {
    "timm_registers": dict(SMALL, reg_tokens=3, no_embed_class=True, init_values=0.5),
    "timm_qk_norm_mean": dict(SMALL, qk_norm=True, global_pool="avg", class_token=False),
}


def spread(model, seed):
    """Weights that make every gradient matter."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            gain = ("norm" in name and name.endswith("weight")) or name.endswith("gamma")
            fan_in = p[0].numel() if p.ndim > 1 and "token" not in name and "pos" not in name else 4
            p.copy_(1 + 0.2 * noise if gain else noise / fan_in**0.5)
    return model


def logits_of(model, images):
    out = model(images)
    return out if torch.is_tensor(out) else out.logits


def case_of(model, images, labels):
    """images, labels, logits and gradient/NAME of the mean cross-entropy, for evergrad import --check."""
    model.eval().zero_grad()
    logits = logits_of(model, images)
    F.cross_entropy(logits, labels).backward()
    case = {"images": images, "labels": labels, "logits": logits.detach()}
    case.update({"gradient/" + n: p.grad for n, p in model.named_parameters()})
    return {name: t.contiguous() for name, t in case.items()}


def weights_of(model):
    """Under the names that files have: transformers 5 calls parameters otherwise in memory."""
    if not hasattr(model, "save_pretrained"):
        return {n: p.contiguous() for n, p in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(os.path.join(folder, "model.safetensors"))


def write_model(path, model, size, classes, seed, mean=None):
    torch.manual_seed(seed)
    case = case_of(spread(model, seed), torch.randn(3, 3, size, size), torch.randint(0, classes, (3,)))
    if mean is not None:  # the same weights with the mean of the patch tokens behind the last norm
        mean.load_state_dict(model.state_dict())
        case["logits/mean"] = logits_of(mean.eval(), case["images"]).detach()
    save_file({**weights_of(model), **case}, path)


def write_resampled(path):
    torch.manual_seed(5)
    out = {"positions": torch.randn(1, 2 + 36, 8), "kernels": torch.randn(4, 3, 6, 6)}
    for side in (2, 4, 5, 7, 13):
        out[f"positions/{side}"] = resample_abs_pos_embed(out["positions"], [side, side], num_prefix_tokens=2)
    for side in (3, 4, 8, 12):
        out[f"kernels/{side}"] = resample_patch_embed(out["kernels"], [side, side])
    save_file({n: t.contiguous() for n, t in out.items()}, path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    folder = p.parse_args().folder
    for name, arguments in VARIANTS.items():
        mean = None if "class_token" in arguments else VisionTransformer(**arguments, global_pool="avg", fc_norm=False)
        write_model(os.path.join(folder, name + ".safetensors"), VisionTransformer(**arguments), 16, 10, 3, mean)
    from transformers import ViTConfig, ViTForImageClassification
    config = ViTConfig(image_size=16, patch_size=4, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=64, num_labels=10)
    write_model(os.path.join(folder, "hugging_face_vit.safetensors"), ViTForImageClassification(config), 16, 10, 4)
    write_resampled(os.path.join(folder, "timm_resampled.safetensors"))


if __name__ == "__main__":
    main()
