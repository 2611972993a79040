"""Reads evergrad's event files with the real tensorboard package and compares every scalar with metrics.jsonl.

Skipped (77) where the package is absent, or evergrad was built without protobuf.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

RUN = ("continual --stream procedural --tasks 3 --epochs 1 --train-limit 40 --test-limit 20 --batch 20 --dim 16 --depth 2 --heads 2 "
       "--patch 8 --threads 2 --seeds 1,2 --methods adamw,sgd:lr=0.05 --probe-images 8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    args = parser.parse_args()
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        print("skipped: the tensorboard package is not installed")
        return 77
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "run"
        subprocess.run([str(args.build / "evergrad"), *RUN.split(), "--out", str(folder)], check=True, capture_output=True)
        if not (folder / "tensorboard").exists():
            print("skipped: evergrad was built without protobuf")
            return 77
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        compared = 0
        for name, method, seed in [("adamw-seed1", "adamw", 1), ("sgd_lr=0.05-seed2", "sgd:lr=0.05", 2)]:
            events = EventAccumulator(str(folder / "tensorboard" / name), size_guidance={"scalars": 0})
            events.Reload()
            for line in lines:
                if line["method"] != method or line["seed"] != seed:
                    continue
                wanted = {}
                if line["event"] == "task":
                    wanted = {f"task/{key}": line[key] for key in ("test_accuracy", "train_loss", "online_accuracy")}
                if line["event"] == "diagnosis":
                    wanted = {f"diagnosis/{key}/{b}": v for key, list_ in line["blocks"].items() for b, v in enumerate(list_)}
                for tag, value in wanted.items():
                    if value is None:
                        continue
                    found = [e.value for e in events.Scalars(tag) if e.step == line["task"]]
                    if len(found) != 1 or not math.isclose(found[0], value, rel_tol=1e-6, abs_tol=1e-12):
                        print(f"{name}: {tag} of task {line['task']} is {found} in the event file, {value} in metrics.jsonl")
                        return 1
                    compared += 1
        print(f"{compared} scalars are the same")
        return 0 if compared > 300 else 1


if __name__ == "__main__":
    sys.exit(main())
