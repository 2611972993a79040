"""Runs Doxygen over the public headers: no warning, and every class has a comment that says what it is for."""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile


def doxygen(source, headers, out, *settings):
    text = (source / "docs/Doxyfile").read_text() + "\n".join(
        [f"INPUT={headers}", f"STRIP_FROM_PATH={headers}", f"OUTPUT_DIRECTORY={out}", *settings])
    return subprocess.run(["doxygen", "-"], input=text, capture_output=True, text=True, timeout=300)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--source", type=pathlib.Path, required=True)
    p.add_argument("--build", type=pathlib.Path, required=True)
    o = p.parse_args()
    if not shutil.which("doxygen"):
        print("skipped: doxygen is not installed (Debian: doxygen)")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="evergrad-doxygen-") as folder:
        subprocess.run(["cmake", f"-DSOURCE={o.source}", f"-DBINARY={folder}", "-DVERSION=0", "-P", o.source / "apps/package/public_headers.cmake"], check=True)
        headers = pathlib.Path(folder) / "public"
        done = doxygen(o.source, headers, folder)
        if done.returncode or done.stderr.strip():
            raise SystemExit(f"doxygen complains:\n{done.stderr[-4000:]}")
        page = pathlib.Path(folder) / "html/index.html"
        if not page.exists():
            raise SystemExit("doxygen wrote no page")
        # A second pass that looks only for classes without a word about them.
        strict = doxygen(o.source, headers, folder, "EXTRACT_ALL=NO", "GENERATE_HTML=NO", "WARN_AS_ERROR=NO")
        silent = [line for line in strict.stderr.splitlines() if "Compound" in line and "::detail::" not in line
                  and "<" not in line]  # a template's specialisations have its comment
        if silent:
            raise SystemExit("classes without a comment:\n" + "\n".join(silent))
        print(f"{len(list(headers.rglob('*.h')))} public headers, no warning")


if __name__ == "__main__":
    main()
