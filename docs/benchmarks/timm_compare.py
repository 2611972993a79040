#!/usr/bin/env python3
"""Compares evergrad with the models of timm and Hugging Face on the same weights: logits and all gradients after
`evergrad import`, and the logits that those libraries compute from what `evergrad export` wrote.

    python3 docs/benchmarks/timm_compare.py --evergrad build/evergrad

Prints a Markdown table (docs/benchmarks/timm.md). Weights are those of a fresh model; images are random, with the mean and
deviation of normalised ones. Needs torch, timm, transformers and safetensors, and 3 GB of memory for the base model.
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models.vision_transformer import VisionTransformer

from timm_golden import case_of, logits_of, weights_of


def hugging_face():
    c = transformers.ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768,
                               num_labels=100)
    return transformers.ViTForImageClassification(c)


TINY32 = dict(img_size=32, patch_size=4, embed_dim=192, depth=12, num_heads=3, num_classes=100)
MODELS = {
    "timm vit_tiny_patch16_224": lambda: timm.create_model("vit_tiny_patch16_224"),
    "timm vit_small_patch16_224": lambda: timm.create_model("vit_small_patch16_224"),
    "timm vit_base_patch16_224": lambda: timm.create_model("vit_base_patch16_224"),
    "timm deit_tiny_patch16_224": lambda: timm.create_model("deit_tiny_patch16_224"),
    "timm 32/4, width 192": lambda: VisionTransformer(**TINY32),
    "timm 32/4, 4 registers, layer scale": lambda: VisionTransformer(**TINY32, reg_tokens=4, no_embed_class=True, init_values=0.1),
    "timm 32/4, qk-norm": lambda: VisionTransformer(**TINY32, qk_norm=True),
    "timm 32/4, mean, fc-norm": lambda: VisionTransformer(**TINY32, global_pool="avg", class_token=False),
    "timm 32/4, mean beside a class token": lambda: VisionTransformer(**TINY32, global_pool="avg"),
    "timm 32/4, mean behind the norm": lambda: VisionTransformer(**TINY32, global_pool="avg", class_token=False, fc_norm=False),
    "Hugging Face ViT 224/16, width 192": hugging_face,
}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def number(text, label):
    found = re.search(label + r"\D*?error ([-+.e\d]+)", text)
    return float(found.group(1)) if found else float("nan")


def loaded(name, hf_model, folder):
    """A new network with what evergrad exported, by the library's own strict loader."""
    torch.manual_seed(2)
    if hf_model is None:
        again = MODELS[name]()
        again.load_state_dict(load_file(folder / "out.safetensors"), strict=True)
        return again.eval()
    with tempfile.TemporaryDirectory() as pretrained:
        hf_model.config.save_pretrained(pretrained)
        shutil.copy(folder / "out.safetensors", pathlib.Path(pretrained) / "model.safetensors")
        again, report = type(hf_model).from_pretrained(pretrained, output_loading_info=True)
    if any(report.values()):
        sys.exit(f"{name}: from_pretrained reports {report}")
    return again.eval()


def compare(evergrad, name, folder, batch):
    """(relative error of the logits, largest error of a layer's gradient, re-exported logits are identical)"""
    torch.manual_seed(1)
    model = MODELS[name]()
    is_hf = isinstance(model, transformers.PreTrainedModel)
    size = model.config.image_size if is_hf else model.patch_embed.img_size[0]
    images = torch.randn(batch, 3, size, size)
    case = case_of(model, images, torch.arange(batch))
    save_file(weights_of(model), folder / "model.safetensors")
    save_file(case, folder / "case.safetensors")
    code, text = run(evergrad, "import", folder / "model.safetensors", "-o", folder / "in.safetensors", "--check", folder / "case.safetensors")
    if "logits: relative error" not in text:
        sys.exit(f"{name}: import ended with {code}\n{text}")
    exported, printed = run(evergrad, "export", folder / "in.safetensors", "-o", folder / "out.safetensors", "--names", "hf" if is_hf else "timm")
    if exported != 0:
        sys.exit(f"{name}: export ended with {exported}\n{printed}")
    again = loaded(name, model if is_hf else None, folder)
    with torch.no_grad():
        same = torch.equal(logits_of(again, images), logits_of(model, images))
    return number(text, "logits"), number(text, "gradients"), same


def resampled(evergrad, folder):
    """Largest differences from timm's resampling: positions of 224/16 for images of 160 and 384, kernels 16 -> 8 and 32."""
    torch.manual_seed(3)
    model = timm.create_model("vit_tiny_patch16_224")
    state = model.state_dict()
    save_file(state, folder / "model.safetensors")
    for size in (160, 384):
        run(evergrad, "import", folder / "model.safetensors", "-o", folder / "in.safetensors", "--image-size", size)
        ours = load_file(folder / "in.safetensors")["pos_embed"]
        theirs = resample_abs_pos_embed(state["pos_embed"], [size // 16, size // 16])
        yield f"positions of 14 x 14 to {size // 16} x {size // 16}", (ours - theirs).abs().max() / theirs.abs().max()
    for patch in (8, 32):
        run(evergrad, "import", folder / "model.safetensors", "-o", folder / "in.safetensors", "--patch-size", patch)
        ours = load_file(folder / "in.safetensors")["patch_embed.proj.weight"]
        theirs = resample_patch_embed(state["patch_embed.proj.weight"], [patch, patch])
        yield f"patch kernels of 16 to {patch} pixels", (ours - theirs).abs().max() / theirs.abs().max()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--evergrad", default="build/evergrad")
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--only", default="", help="models whose names contain this")
    o = p.parse_args()
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, timm {timm.__version__}, transformers {transformers.__version__}, batch {o.batch}, fp32\n")
    print("| model | logits | gradients | re-exported: logits identical |\n|---|---|---|---|")
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for name in MODELS:
            if o.only not in name:
                continue
            logits, gradient, same = compare(o.evergrad, name, folder, o.batch)
            good &= logits < 1e-5 and gradient < 1e-5 and same
            print(f"| {name} | {logits:.1e} | {gradient:.1e} | {'yes' if same else 'NO'} |", flush=True)
        print("\n| resampled | largest difference from timm's, over the largest value |\n|---|---|")
        for name, error in resampled(o.evergrad, folder):
            good &= float(error) < 1e-5
            print(f"| {name} | {float(error):.1e} |", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
