"""What the figures of tests/gpu belong to: the commit of the tree, and where that does not say it all, a hash of its files."""
import hashlib
import subprocess

SOURCES = ["CMakeLists.txt", "engine", "autograd", "layers", "optim", "cuda", "data", "apps", "tests"]
UNKNOWN = "unknown"  # what nobody can name; never the same as anything


def hash_of_sources(root):
    """Ten hex digits of every file's path and bytes; build products of Python and of editors are not sources."""
    total = hashlib.sha256()
    for name in SOURCES:
        top = root / name
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            if not file.is_file() or "__pycache__" in file.parts or file.suffix in (".tmp", ".pyc"):
                continue
            total.update(f"{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0".encode())
            total.update(file.read_bytes())
    return total.hexdigest()[:10]


def commit_of_tree(root):
    """Short hash of git; with + and a hash of the files where these differ from it; that hash alone outside of git, as in a copied
    tree: two trees have one name only when they have the same sources."""
    def git(*args):
        try:
            return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True)
        except FileNotFoundError:
            return subprocess.CompletedProcess(args, 1, "", "")
    top, head = git("rev-parse", "--show-toplevel"), git("rev-parse", "--short", "HEAD")
    # A copy inside of another repository has that one's commits, which say nothing about it.
    if head.returncode != 0 or top.stdout.strip() != str(root.resolve()):
        return f"files-{hash_of_sources(root)}"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs").stdout.strip()
    return head.stdout.strip() + (f"+{hash_of_sources(root)}" if changed else "")


def same(a, b):
    """Whether figures of `a` are figures of `b`. A name of a changed tree that does not say how it was changed is none."""
    return a == b and a != UNKNOWN and not a.endswith("+")
