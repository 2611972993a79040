"""The models that tests/gpu times on a GPU, by evergrad and by PyTorch: name -> what both need to build the same one."""

SIZES = {"Ti": (192, 3), "S": (384, 6), "B": (768, 12)}  # width, heads; twelve blocks each


def model(size, image_size, patch, batch):
    dim, heads = SIZES[size]
    return dict(size=size, image_size=image_size, patch=patch, dim=dim, heads=heads, depth=12, batch=batch)


# In the order of their importance: what comes last is what a short time leaves out.
MODELS = {
    "ViT-B/16 224 @256": model("B", 224, 16, 256),
    "ViT 32/4 D=192 @1024": model("Ti", 32, 4, 1024),
    "ViT-S/16 224 @256": model("S", 224, 16, 256),
    "ViT-Ti/16 224 @256": model("Ti", 224, 16, 256),
    "ViT 32/4 D=384 @1024": model("S", 32, 4, 1024),
    "ViT 32/4 D=768 @1024": model("B", 32, 4, 1024),
    "ViT 32/4 D=192 @256": model("Ti", 32, 4, 256),
    "ViT 32/4 D=384 @256": model("S", 32, 4, 256),
    "ViT 32/4 D=768 @256": model("B", 32, 4, 256),
}

STEPS = 50  # timed by both, after a warm-up: fewer say little about the slow ones among them


def p95(times):
    """What 95% of the times are within."""
    return sorted(times)[(95 * len(times) + 99) // 100 - 1]


def classes(m):
    return 1000 if m["image_size"] == 224 else 100


def evergrad_flags(m):
    return ["--model", f"vit-{m['size'].lower()}", "--image-size", m["image_size"], "--patch", m["patch"], "--classes", classes(m),
            "--batch", m["batch"]]
