#!/usr/bin/env python3
"""Trains in PyTorch what `evergrad train` and `softmax_regression` train, to compare test accuracies.

    python3 docs/benchmarks/pytorch_train.py --data DIR/cifar-100-binary --seeds 1,2 --dim 64 --depth 4 --heads 4
    python3 docs/benchmarks/pytorch_train.py --data DIR/cifar-100-binary --seeds 1,2 --linear

The same protocol on both sides: CIFAR-100's 50,000 training images, per-channel normalisation, random crop (4 pixels of
padding) and flip, batches of 64 in a new order each epoch, AdamW (lr 1e-3, decay 0.05 on matrices), global-norm clip 1,
constant rate. --linear: softmax regression on raw pixels, SGD with momentum 0.9, no augmentation, zero weights at first.
Random numbers differ, so accuracies agree only up to the noise of the seed; the last line gives mean and deviation.
"""
import argparse
import os
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F


def load(path):
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, 3074)
    return torch.from_numpy(records[:, 2:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(records[:, 1].astype(np.int64))


def crop_flip(images, generator):
    """A random 32x32 crop of each image padded by 4 black pixels, mirrored half of the time."""
    n = len(images)
    padded = F.pad(images, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, n), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5
    rows = top[:, None] + torch.arange(32)
    columns = torch.where(mirrored[:, None], 31 - torch.arange(32), torch.arange(32)) + left[:, None]
    return padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None], rows[:, None, :, None],
                  columns[:, None, None, :]]


def train(o, seed, data):
    from vit_torch import Config, Vit, decay_groups
    (images, labels), (test_images, test_labels) = data
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels = images.float() / 255
    mean, std = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    del pixels
    if o.linear:
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 100))
        torch.nn.init.zeros_(model[1].weight), torch.nn.init.zeros_(model[1].bias)
        optimizer = torch.optim.SGD(model.parameters(), lr=o.lr or 1e-3, momentum=0.9)
    else:
        model = Vit(Config(image_size=32, patch=o.patch, dim=o.dim, depth=o.depth, heads=o.heads, classes=100))
        optimizer = torch.optim.AdamW(decay_groups(model, 0.05), lr=o.lr or 1e-3, fused=True)
    for epoch in range(o.epochs):
        order = torch.randperm(len(images), generator=generator)
        start, total = time.time(), 0.0
        for begin in range(0, len(order), o.batch):
            batch = order[begin:begin + o.batch]
            x = images[batch].float() / 255
            if not o.linear:
                x = crop_flip(x, generator)
            loss = F.cross_entropy(model((x - mean) / std), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            if not o.linear:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(batch)
        with torch.no_grad():
            right = sum(int((model((test_images[b:b + 500].float() / 255 - mean) / std).argmax(1) == test_labels[b:b + 500]).sum())
                        for b in range(0, len(test_images), 500))
        accuracy = 100 * right / len(test_images)
        print(f"seed {seed} epoch {epoch + 1}/{o.epochs}: train loss {total / len(order):.4f}, test accuracy {accuracy:.2f}%, "
              f"{len(order) / (time.time() - start):.0f} images/s", flush=True)
    return accuracy


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="folder with CIFAR-100's train.bin and test.bin, or with cifar-100-binary/")
    p.add_argument("--seeds", default="1,2")
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float)
    p.add_argument("--linear", action="store_true")
    p.add_argument("--patch", type=int, default=4)
    p.add_argument("--dim", type=int, default=64)
    p.add_argument("--depth", type=int, default=4)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--threads", type=int, default=2)
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    folder = o.data if os.path.exists(f"{o.data}/train.bin") else f"{o.data}/cifar-100-binary"
    data = load(f"{folder}/train.bin"), load(f"{folder}/test.bin")
    result = [train(o, int(s), data) for s in o.seeds.split(",")]
    spread = statistics.stdev(result) if len(result) > 1 else 0.0
    print(f"PyTorch {'softmax regression' if o.linear else 'ViT'}: {statistics.mean(result):.2f} +- {spread:.2f}% over {len(result)} seeds")


if __name__ == "__main__":
    main()
