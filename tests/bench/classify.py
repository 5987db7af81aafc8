"""Classification against the field's tools: the same arrays, alternately, in one run; ratios are printed, nothing fails.

    python tests/bench/classify.py [--scale 1.0] [--rounds 3]

Needs numpy, scikit-learn and faiss-cpu (pip install them into an environment of your own), `make build`, and
`cargo build --release -p harness-worker --example classify`. Without a tool its part is skipped. Everything runs on
OMP_NUM_THREADS threads, one by default. `--scale 0.2` takes a fifth of the rows and queries, for busy machines.
Features need pictures: those of HARNESS_SHARED_DATA (imagenette-224), if they are there.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
try:
    import numpy as np
except ImportError:
    print("skipped: numpy is not installed")
    sys.exit()

ROOT = Path(__file__).resolve().parents[2]
OURS = ROOT / "target/release/examples/classify"
THREADS = int(os.environ["OMP_NUM_THREADS"])


def ours(*arguments):
    text = subprocess.run([OURS, *map(str, arguments)], check=True, capture_output=True, text=True).stdout
    return json.loads(text)


def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def best(rounds, *calls):
    """The least time of each, measured in turns."""
    times = [[] for _ in calls]
    for _ in range(rounds):
        for place, call in enumerate(calls):
            times[place].append(call())
    return [tuple(map(min, zip(*t))) if isinstance(t[0], tuple) else min(t) for t in times]


def said(what, mine, other, name, wanted):
    print(f"  {what}: harness {mine:.2f} s, {name} {other:.2f} s: {other / mine:.2f} times as fast (wanted: {wanted})")


def knn(folder, scale, rounds):
    rows, queries, columns, k = int(50_000 * scale), int(10_000 * scale), 2048, 20
    print(f"kNN, {rows} x {columns} against {queries} queries, k = {k}")
    draw = np.random.default_rng(0)
    train = np.abs(draw.standard_normal((rows, columns), dtype=np.float32))
    test = np.abs(draw.standard_normal((queries, columns), dtype=np.float32))
    np.save(folder / "train.npy", train)
    np.save(folder / "test.npy", test)
    first = {}

    def mine():
        result = ours("knn", folder / "train.npy", folder / "test.npy", k)
        first["ours"] = np.array(result["first"]).reshape(-1, k)
        return result["search_s"], result["product_s"]

    calls = [mine]
    try:
        import faiss

        faiss.omp_set_num_threads(THREADS)
        for x in (train, test):
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        index = faiss.IndexFlatIP(columns)
        index.add(train)

        def theirs():
            seconds, found = timed(lambda: index.search(test, k))
            first["faiss"] = found[1][:100]
            return seconds

        calls.append(theirs)
    except ImportError:
        print("  faiss is not installed: skipped")
    (search, product), *rest = best(rounds, *calls)
    if rest:
        said("search", search, rest[0], "faiss flat", "at least 1.0")
        same = np.mean([len(set(a) & set(b)) / k for a, b in zip(first["ours"], first["faiss"])])
        print(f"  neighbours in common: {100 * same:.2f} %")
    said("search", search, product, "the bare matrix product", "at least 0.85")


def svm(folder, scale, rounds):
    try:
        from sklearn.svm import LinearSVC
    except ImportError:
        return print("SVM: scikit-learn is not installed: skipped")
    rows, columns, classes = int(5_011 * scale), 2048, 20
    print(f"SVM, {classes} classes, {rows} x {columns}")
    draw = np.random.default_rng(1)
    centres = draw.standard_normal((classes, columns)).astype(np.float32)
    labels = draw.random((rows, classes)) < 0.075
    # Like average-pooled features behind a ReLU: not negative, and much alike.
    x = np.maximum(0.5 * (labels @ centres) + draw.standard_normal((rows, columns), dtype=np.float32) + 0.5, 0)
    x = (x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", labels.astype(np.float32))
    planes = {}

    def mine():
        result = ours("svm", folder / "x.npy", folder / "y.npy", folder / "w.npy")
        assert result["converged"]
        return result["svm_s"]

    def theirs():
        def fit():
            for place in range(classes):
                tool = LinearSVC(C=0.5, class_weight={1: 2, -1: 1}, dual=True, tol=1e-4, max_iter=2000)
                tool.fit(x, labels[:, place] * 2 - 1)
                planes[place] = np.append(tool.coef_[0], tool.intercept_[0])

        return timed(fit)[0]

    a, b = best(rounds, mine, theirs)
    said("all classes", a, b, "scikit-learn", "at least 3")
    w = np.load(folder / "w.npy")
    apart = max(np.linalg.norm(w[p] - planes[p]) / np.linalg.norm(planes[p]) for p in planes)
    print(f"  planes apart: {apart:.1e} of their length")


def features(folder, scale, rounds):
    shared = Path(os.environ.get("HARNESS_SHARED_DATA", ROOT / "../shared/data")) / "imagenette-224/val.tar"
    if not shared.is_file():
        return print(f"features: no pictures at {shared}: skipped")
    pictures = folder / "pictures"
    pictures.mkdir()
    count = max(64, int(192 * scale))
    with tarfile.open(shared) as archive:
        for place, member in enumerate(m for m in archive if m.isfile()):
            if place < count:
                (pictures / f"{place:04}.jpg").write_bytes(archive.extractfile(member).read())
    print(f"features, ResNet-50, {count} pictures at 224")

    def mine():
        result = ours("features", pictures)
        return result["embed_s"], result["bare_s"]

    ((embed, bare),) = best(rounds, mine)
    print(f"  harness {embed:.2f} s, bare forward passes {bare:.2f} s: {100 * (embed / bare - 1):+.1f} % (wanted: at most 5)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["knn", "svm", "features"])
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{THREADS} thread(s), {os.cpu_count()} cores, load {load:.1f} at the start, best of {options.rounds}")
    for part in (knn, svm, features):
        if options.only in (None, part.__name__):
            with tempfile.TemporaryDirectory() as folder:
                part(Path(folder), options.scale, options.rounds)


main()
