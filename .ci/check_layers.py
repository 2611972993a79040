#!/usr/bin/env python3
"""Reads the #include lines of every source file and fails on an edge that the table of layers below does not allow.

Usage: .ci/check_layers.py [ROOT]      exit 0: clean, 1: at least one forbidden include (each is printed with file:line)
"""
import pathlib
import re
import sys

FOLDERS = ["engine", "autograd", "layers", "optim", "data", "cuda", "apps", "tests"]
ALLOWED = {
    "engine": {"engine"},
    "autograd": {"autograd", "engine"},
    "layers": {"layers", "autograd", "engine"},
    "optim": {"optim", "engine"},              # and layers/param.h, see below
    "data": {"data", "engine"},
    "cuda": {"cuda", "engine"},
    "apps": {"apps", "engine", "autograd", "layers", "optim", "data"},   # of cuda only the registering header
    "tests": set(FOLDERS),
}
EXTRA = {"optim": {"layers/param.h"}, "apps": {"cuda/register.h"}}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]')


def violations(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in {".h", ".cpp", ".inl", ".cu", ".cuh"}:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match.group(1)
                other = target.split("/")[0]
                if other not in FOLDERS or "/" not in target:
                    continue
                if other not in ALLOWED[folder] and target not in EXTRA.get(folder, set()):
                    yield f"{path.relative_to(root)}:{number}: {folder}/ may not include {target}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    found = list(violations(root))
    for line in found:
        print(line)
    print(f"layers: {len(found)} forbidden includes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
