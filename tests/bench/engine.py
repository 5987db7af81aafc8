#!/usr/bin/env python3
"""Speed of the engine beside other workflow tools, on generated projects. Prints; fails for nothing but wrong results.

Usage: engine.py [--harness PATH] [--peers DIR] [--sizes 10,100,1000] [--repeat 5] [--only fan,chain,files,hash]

Every step is one `sed` of a tiny file. A fan is N steps, each on its own input, and one that joins them; a chain is N
steps in a row. All tools do the same work in turn within one run, so that a busy machine is busy for all of them, and
times are medians. `make` is the floor. DVC, Snakemake and redun are taken from DIR/bin (a virtual environment with
`pip install dvc snakemake redun`), where that is given, up to the sizes that they finish in reasonable time.
"""

import argparse
import hashlib
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

LIMIT = {"dvc": 100, "snakemake": 1000, "redun": 1000}  # steps; above, a cold run takes minutes or ends in an error


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def inputs(folder, shape, n):
    for i in range(n if shape == "fan" else 1):
        write(folder / f"in/{i}", f"{i} word\n")


class Harness:
    name = "harness"

    def __init__(self, program):
        self.program = program

    def make(self, folder, shape, n):
        steps = []
        out = "outputs = { out = { kind = file, path = \"out\" } }"
        sed = "[\"sed\", \"-n\", \"s/word/&d/w out\", \"{inputs.x}\"]"
        for i in range(n):
            if shape == "fan" or i == 0:
                steps.append(f"command s{i} {{ run = {sed}, files = {{ x = \"in/{i}\" }}, {out} }}")
            else:
                steps.append(f"command s{i} {{ run = {sed}, inputs = {{ x = s{i - 1}.out }}, {out} }}")
        if shape == "fan":
            staged = ", ".join(f"x{i} = s{i}.out" for i in range(n))
            steps.append(f"command join {{ run = [\"sh\", \"-c\", \"cat inputs/* > out\"], inputs = {{ {staged} }}, {out} }}")
        write(folder / "a.exp", "\n".join(steps) + "\n")

    def command(self, folder):
        return [self.program, "run", "a.exp", "-j", "2", "--device", "cpu"]


class Make:
    name = "make"

    def make(self, folder, shape, n):
        rules = ["all: out/last" if shape == "fan" else f"all: out/{n - 1}"]
        for i in range(n):
            source = f"in/{i}" if shape == "fan" or i == 0 else f"out/{i - 1}"
            rules.append(f"out/{i}: {source}\n\tsed -n 's/word/&d/w $@' $<")
        if shape == "fan":
            rules.append("out/last: " + " ".join(f"out/{i}" for i in range(n)) + "\n\tcat $^ > $@")
        write(folder / "Makefile", "\n".join(rules) + "\n")
        (folder / "out").mkdir()

    def command(self, folder):
        return ["make", "-r", "-s", "-j2"]


class Dvc:
    name = "dvc"

    def __init__(self, bin):
        self.bin = bin

    def make(self, folder, shape, n):
        lines = ["stages:"]
        for i in range(n):
            source = f"in/{i}" if shape == "fan" or i == 0 else f"out/{i - 1}"
            lines += [f"  s{i}:", f"    cmd: sed -n 's/word/&d/w out/{i}' {source}", f"    deps: [{source}]", f"    outs: [out/{i}]"]
        if shape == "fan":
            all = ", ".join(f"out/{i}" for i in range(n))
            lines += ["  join:", "    cmd: cat out/[0-9]* > last", f"    deps: [{all}]", "    outs: [last]"]
        write(folder / "dvc.yaml", "\n".join(lines) + "\n")
        (folder / "out").mkdir()
        subprocess.run([self.bin / "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True, capture_output=True)

    def command(self, folder):
        return [self.bin / "dvc", "repro", "-q"]


class Snakemake:
    name = "snakemake"

    def __init__(self, bin):
        self.bin = bin

    def make(self, folder, shape, n):
        rules = [f"rule all:\n    input: 'out/last'" if shape == "fan" else f"rule all:\n    input: 'out/{n - 1}'"]
        if shape == "fan":
            rules.append("rule s:\n    input: 'in/{i}'\n    output: 'out/{i,[0-9]+}'\n    shell: \"sed -n 's/word/&d/w {output}' {input}\"")
            rules.append(f"rule join:\n    input: expand('out/{{i}}', i=range({n}))\n    output: 'out/last'\n    shell: 'cat {{input}} > {{output}}'")
        else:
            rules.append("rule first:\n    input: 'in/0'\n    output: 'out/0'\n    shell: \"sed -n 's/word/&d/w {output}' {input}\"")
            rules.append("rule s:\n    input: lambda w: f'out/{int(w.i) - 1}'\n    output: 'out/{i,[1-9][0-9]*}'\n    shell: \"sed -n 's/word/&d/w {output}' {input}\"")
        write(folder / "Snakefile", "\n".join(rules) + "\n")

    def command(self, folder):
        return [self.bin / "snakemake", "-c2", "-q", "all"]


class Redun:
    name = "redun"

    def __init__(self, bin):
        self.bin = bin

    def make(self, folder, shape, n):
        if shape == "fan":
            body = f"return join([step(File(f'in/{{i}}'), f'out/{{i}}') for i in range({n})])"
        else:
            body = f"x = File('in/0')\n    for i in range({n}):\n        x = step(x, f'out/{{i}}')\n    return x"
        write(
            folder / "flow.py",
            "import os, subprocess\nfrom redun import File, task\nredun_namespace = 'bench'\n\n"
            "@task()\ndef step(x, out):\n    os.makedirs('out', exist_ok=True)\n"
            "    subprocess.run(['sed', '-n', f's/word/&d/w {out}', x.path], check=True)\n    return File(out)\n\n"
            "@task()\ndef join(xs):\n    with open('out/last', 'w') as f:\n        f.writelines(x.read() for x in xs)\n    return File('out/last')\n\n"
            f"@task()\ndef main():\n    {body}\n",
        )

    def command(self, folder):
        return [self.bin / "redun", "run", "flow.py", "main"]


def timed(command, folder):
    """Seconds, the exit status and the process's own peak memory in MiB."""
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - start, child.returncode, usage.ru_maxrss / 1024, said


def compare(tools, shape, n, repeat, cold_repeat):
    folders, rows = {}, {}
    base = pathlib.Path(tempfile.mkdtemp(prefix="harness-bench-"))
    try:
        for tool in tools:
            if n > LIMIT.get(tool.name, n):
                print(f"  {tool.name}: not run at {n} steps")
                continue
            folder = base / tool.name
            folder.mkdir()
            inputs(folder, shape, n)
            tool.make(folder, shape, n)
            folders[tool.name] = (tool, folder)
            rows[tool.name] = {"cold": [], "noop": [], "memory": 0.0}
        for phase, times in [("cold", cold_repeat), ("noop", repeat)]:
            if phase == "noop":
                time.sleep(2.5)  # files younger than two seconds are read again, and rightly so
                for tool, folder in folders.values():
                    timed(tool.command(folder), folder)
            for again in range(times):
                for name, (tool, folder) in list(folders.items()):
                    if phase == "cold" and again:
                        # A new folder, and the old one stays: where many files were just removed, ext4 is slow in making
                        # others for minutes, and whoever comes first after that would pay for it.
                        folder = base / f"{name}-{again}"
                        folder.mkdir()
                        inputs(folder, shape, n)
                        tool.make(folder, shape, n)
                        folders[name] = (tool, folder)
                    seconds, status, memory, said = timed(tool.command(folder), folder)
                    if status:
                        print(f"  {name}: {phase} ended with status {status}: {said.strip().splitlines()[-1:]}")
                        del folders[name]
                        continue
                    rows[name][phase].append(seconds)
                    rows[name]["memory"] = max(rows[name]["memory"], memory)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    ours = {phase: statistics.median(rows["harness"][phase]) for phase in ["cold", "noop"] if rows["harness"][phase]}
    for name, row in rows.items():
        cells = []
        for phase in ["cold", "noop"]:
            if row[phase] and phase in ours:
                median = statistics.median(row[phase])
                cells.append(f"{phase} {median:8.3f} s ({median / ours[phase]:7.2f} x harness)")
        print(f"  {name:10} {'   '.join(cells)}   {row['memory']:.0f} MiB")


def sync_cost(files):
    """Seconds to make so many small files safe at once."""
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
        for i in range(files):
            pathlib.Path(folder, str(i)).write_text("x")
        start = time.perf_counter()
        os.sync()
        return time.perf_counter() - start


def files(harness, count, repeat):
    """One step on a folder of small files, looked at again and again."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="harness-bench-"))
    try:
        for i in range(count):
            write(base / f"data/{i % 10}/{i}.png", hashlib.sha256(str(i).encode()).hexdigest())
        code = ", ".join(f'"data/{i}"' for i in range(10))
        write(base / "a.exp", f"command c {{ run = [\"true\"], code = [{code}] }}\n")
        command = [harness, "run", "a.exp"]
        time.sleep(2.5)
        first = timed(command, base)[0]
        timed(command, base)
        again = [timed(command, base) for _ in range(repeat)]
        print(f"  {count} files: first {first:.3f} s, unchanged {statistics.median(t[0] for t in again) * 1e3:.0f} ms, {max(t[2] for t in again):.0f} MiB")
    finally:
        shutil.rmtree(base, ignore_errors=True)


def hashing(harness, size, repeat):
    """One large input, beside `openssl dgst -sha256` on one core."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="harness-bench-"))
    try:
        with open(base / "big", "wb") as file:
            for i in range(size >> 20):
                file.write(hashlib.sha512(str(i).encode()).digest() * (1 << 14))
        write(base / "a.exp", 'command c { run = ["true"], files = { big = "big" } }\n')
        rows = {"openssl": [], "one core": [], "all cores": [], "unchanged": [], "touched": [], "after touch": []}
        command = [harness, "run", "a.exp"]
        time.sleep(2.5)
        for _ in range(repeat):
            rows["openssl"].append(timed(["openssl", "dgst", "-sha256", "big"], base)[0])
            for name, prefix in [("one core", ["taskset", "-c", "0"]), ("all cores", [])]:
                shutil.rmtree(base / ".harness", ignore_errors=True)
                rows[name].append(timed(prefix + command + ["--dry-run"], base)[0])
            timed(command, base)
            rows["unchanged"].append(timed(command, base)[0])
            os.utime(base / "big", (time.time() - 10, time.time() - 10))
            time.sleep(2.5)
            rows["touched"].append(timed(command, base)[0])
            rows["after touch"].append(timed(command, base)[0])
        floor = statistics.median(rows["openssl"])
        for name, times in rows.items():
            median = statistics.median(times)
            print(f"  {name:12} {median:7.3f} s   {size / median / 1e9:6.2f} GB/s   {floor / median:6.2f} of openssl's speed")
    finally:
        shutil.rmtree(base, ignore_errors=True)


def main():
    here = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", default=here / "target/release/harness", type=pathlib.Path)
    parser.add_argument("--peers", type=pathlib.Path, help="virtual environment with dvc, snakemake and redun")
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--repeat", default=5, type=int)
    parser.add_argument("--only", default="fan,chain,files,hash")
    arguments = parser.parse_args()
    if not arguments.harness.is_file():
        sys.exit(f"{arguments.harness} is not built: make build")
    harness = arguments.harness.resolve()
    tools = [Harness(harness), Make()]
    for name, kind in [("dvc", Dvc), ("snakemake", Snakemake), ("redun", Redun)]:
        if arguments.peers and (arguments.peers / "bin" / name).exists():
            tools.append(kind(arguments.peers.resolve() / "bin"))
        else:
            print(f"{name}: skipped, not found (--peers DIR)")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    only = arguments.only.split(",")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; syncing 1,000 new files at once takes {sync_cost(1000):.3f} s here")
    for shape in [shape for shape in ["fan", "chain"] if shape in only]:
        for n in map(int, arguments.sizes.split(",")):
            print(f"{shape} of {n} steps")
            compare(tools, shape, n, arguments.repeat, 1 if n > 1000 else min(3, arguments.repeat))
    if "files" in only:
        print("small files")
        files(harness, 10_000, arguments.repeat)
    if "hash" in only:
        print("one input of 1 GiB")
        hashing(harness, 1 << 30, min(3, arguments.repeat))


if __name__ == "__main__":
    main()
