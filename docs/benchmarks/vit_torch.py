"""The same Vision Transformer as layers/vit.h in plain PyTorch, with timm's parameter names. No timm needed.

Used by make_golden.py (equality of loss and gradients), pytorch_step.py (speed) and pytorch_train.py (accuracy).
Written from the definition (Dosovitskiy et al. 2020, arXiv:2010.11929); options as in `evergrad train --help`.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    image_size: int = 32
    patch: int = 4
    channels: int = 3
    dim: int = 192
    depth: int = 12
    heads: int = 3
    mlp_ratio: float = 4.0
    classes: int = 100
    class_token: bool = True    # False: mean of the patch tokens, and the last norm is called fc_norm
    registers: int = 0          # register tokens; then only the patches receive positions
    sincos: bool = False        # fixed positions, for the patches only
    qk_norm: bool = False
    layer_scale: float = 0.0    # initial value, 0: none
    gelu: str = "erf"
    eps: float = 1e-6


class Attention(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.heads, width = c.heads, c.dim // c.heads
        self.qkv = nn.Linear(c.dim, 3 * c.dim)
        if c.qk_norm:
            self.q_norm, self.k_norm = nn.LayerNorm(width, eps=c.eps), nn.LayerNorm(width, eps=c.eps)
        self.proj = nn.Linear(c.dim, c.dim)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        hidden = int(c.dim * c.mlp_ratio)
        self.fc1, self.fc2 = nn.Linear(c.dim, hidden), nn.Linear(hidden, c.dim)
        self.approximate = "tanh" if c.gelu == "tanh" else "none"

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class LayerScale(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((c.dim,), c.layer_scale))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        scale = (lambda: LayerScale(c)) if c.layer_scale > 0 else nn.Identity
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(c.dim, eps=c.eps), Attention(c), scale()
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(c.dim, eps=c.eps), Mlp(c), scale()

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.proj = nn.Conv2d(c.channels, c.dim, c.patch, c.patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


def sincos_positions(c: Config):
    """MoCo v3 (arXiv:2104.02057): a quarter of the width each for sin and cos of the column, then of the row."""
    grid, quarter = c.image_size // c.patch, c.dim // 4
    omega = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(torch.arange(grid).double(), torch.arange(grid).double(), indexing="ij")
    a, b = column.reshape(-1, 1) * omega, row.reshape(-1, 1) * omega
    return torch.cat([a.sin(), a.cos(), b.sin(), b.cos()], dim=1)[None]


class Vit(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.config = c
        patches, prefix = (c.image_size // c.patch) ** 2, int(c.class_token) + c.registers
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.dim)) if c.class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, c.registers, c.dim)) if c.registers else None
        if c.sincos:
            self.register_buffer("pos_embed", sincos_positions(c), persistent=False)
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, patches + (0 if c.registers else prefix), c.dim))
        self.patch_embed = PatchEmbed(c)
        self.blocks = nn.Sequential(*[Block(c) for _ in range(c.depth)])
        last = nn.LayerNorm(c.dim, eps=c.eps)
        self.norm, self.fc_norm = (last, nn.Identity()) if c.class_token else (nn.Identity(), last)
        self.head = nn.Linear(c.dim, c.classes)
        self.reset()

    def reset(self):
        """timm's default initialisation: see layers/init.h."""
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.trunc_normal_(m.weight, std=0.02)
                nn.init.zeros_(m.bias)
        for token in (self.cls_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        if isinstance(self.pos_embed, nn.Parameter):
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images):
        x = self.patch_embed(images)
        prefix = [t.expand(x.shape[0], -1, -1) for t in (self.cls_token, self.reg_token) if t is not None]
        pos = self.pos_embed.to(x.dtype)
        if pos.shape[1] == x.shape[1]:
            x = torch.cat(prefix + [x + pos], dim=1)
        else:
            x = torch.cat(prefix + [x], dim=1) + pos
        x = self.norm(self.blocks(x))
        x = x[:, 0] if self.config.class_token else x[:, sum(t.shape[1] for t in prefix):].mean(dim=1)
        return self.head(self.fc_norm(x))


def decay_groups(model, weight_decay):
    """evergrad's no-decay set: biases, norms, layer scales, tokens and positions."""
    decays = [p for n, p in model.named_parameters() if p.ndim in (2, 4)]
    rest = [p for n, p in model.named_parameters() if p.ndim not in (2, 4)]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def train_flops(c: Config):
    """Per image; three times the forward pass, minus the input gradient of the patch embedding."""
    n = (c.image_size // c.patch) ** 2
    s, d, embed = n + int(c.class_token) + c.registers, c.dim, 2 * n * c.channels * c.patch**2 * c.dim
    hidden = int(d * c.mlp_ratio)
    forward = c.depth * (s * (8 * d * d + 4 * d * hidden) + 4 * s * s * d) + embed + 2 * d * c.classes
    return 3 * forward - embed


assert math.isclose(train_flops(Config()) / 1e9, 2.19, rel_tol=0.01)
