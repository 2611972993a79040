"""The include-layering check passes on the tree, and fails when an include is planted that design forbids."""
import argparse
import pathlib
import subprocess
import sys
import tempfile

PLANTED = [("engine/bad.cpp", '#include "autograd/tape.h"'), ("optim/bad.h", '#include "layers/vit.h"'),
           ("data/bad.cpp", '#include "layers/param.h"'), ("apps/bad.cpp", '#include "cuda/runtime.h"')]
ALLOWED = [("optim/good.h", '#include "layers/param.h"'), ("apps/good.cpp", '#include "cuda/register.h"'),
           ("tests/good.cpp", '#include "cuda/runtime.h"')]


def check(source, root):
    done = subprocess.run([sys.executable, str(source / ".ci/check_layers.py"), str(root)], capture_output=True, text=True)
    return done.returncode, done.stdout


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--source", type=pathlib.Path, required=True)
    p.add_argument("--build")
    source = p.parse_args().source
    code, text = check(source, source)
    assert code == 0, text
    for expected, files in ((1, PLANTED), (0, ALLOWED)):
        for name, line in files:
            with tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / name
                file.parent.mkdir(parents=True)
                file.write_text(line + "\n")
                code, text = check(source, pathlib.Path(folder))
                assert code == expected, f"{name} with {line}: exit {code}\n{text}"
                assert expected == 0 or f"{name}:1:" in text, text
    print("layer rule: the tree is clean, and planted includes are found")


if __name__ == "__main__":
    main()
