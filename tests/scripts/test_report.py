"""Makes a report of real runs and opens it in headless Chromium, with the made-up pages of tests/report beside it.

Skipped (77) where there is no Chromium, or evergrad was built without d3.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

RUN = ("continual --stream procedural --tasks 3 --epochs 2 --train-limit 60 --test-limit 40 --batch 20 --dim 16 --depth 2 --heads 2 "
       "--patch 8 --threads 2 --seeds 1-3 --methods adamw,sgd,fresh --test-during --head keep --test-earlier --probe-images 16")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    args = parser.parse_args()
    evergrad = str(args.build / "evergrad")
    check = [sys.executable, str(args.source / "tests/report/test_page.py")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        subprocess.run([evergrad, *RUN.split(), "--out", str(folder / "run")], check=True, capture_output=True)
        made = subprocess.run([evergrad, "report", str(folder / "run"), "--out", str(folder / "real.html")], capture_output=True, text=True)
        if made.returncode != 0 and "without d3" in made.stderr:
            print("skipped: evergrad was built without d3")
            return 77
        if made.returncode != 0:
            print(made.stderr)
            return 1
        subprocess.run([sys.executable, str(args.source / "tests/report/make_example.py"), str(folder)], check=True, capture_output=True)
        for page in ["real", "odd", "tiny", "empty"]:
            result = subprocess.run([*check, str(folder / f"{page}.html")], capture_output=True, text=True)
            print(f"{page}: {result.stdout}{result.stderr}")
            if result.returncode != 0:
                return result.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
