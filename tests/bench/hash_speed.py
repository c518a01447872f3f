"""What fingerprints cost: two gigabytes in 20,000 files and in one; cold, warm, after one change.

    python -m tests.bench.hash_speed --work /tmp/bench [--gigabytes 2] [--repeat 3]

In turns, in one run: the digest alone, over as much memory, in one thread a core; a walk that asks
for `stat` of every file; the fingerprint of the folder with an empty cache, with a warm one and
after one file has changed; one file of half the size; and an artifact of the same files as `publish`
seals it. Pages are warm: what is measured is us, not the disk.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.plan import keys
from engine.plan.stage import Node
from engine.runtime.digests import DigestCache
from engine.runtime.store import Store
from engine.sources import image_folder
from tests.bench.measure import seconds, spread

NUM_FILES = 20_000
FOLDERS = 20


def made(folder: Path, num_bytes: int) -> Path:
    """Write the files, once."""
    size = num_bytes // NUM_FILES
    stamp = folder / f".{num_bytes}"
    if stamp.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    block = os.urandom(size)
    for number in range(NUM_FILES):
        path = folder / f"{number % FOLDERS:03d}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(8, "little") + block[8:])
    stamp.write_text("")
    os.sync()
    time.sleep(2.5)  # older than what is called racy
    return folder


def digest_alone(num_bytes: int) -> None:
    """Hash as many bytes of memory, in a thread for each core."""
    cores = len(os.sched_getaffinity(0))
    block = bytes(1 << 20)

    def work(_: int) -> None:
        sha256 = hashlib.sha256()
        for _ in range(num_bytes // cores // len(block)):
            sha256.update(block)

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(work, range(cores)))


def stat_walk(folder: str) -> int:
    """Ask for `stat` of every file below a folder."""
    num = 0
    for entry in os.scandir(folder):
        if entry.is_dir():
            num += stat_walk(entry.path)
        else:
            num += entry.stat().st_size > 0
    return num


class Bench:
    """The measured actions over one folder of files."""

    def __init__(self, work: Path, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.small = made(work / "hash" / "small", num_bytes)
        self.large = work / "hash" / "large.bin"
        if not self.large.exists() or self.large.stat().st_size != num_bytes // 2:
            self.large.write_bytes(os.urandom(1 << 20) * (num_bytes // 2 >> 20))
            time.sleep(2.5)
        self.cache = work / "hash" / "cache" / "digests"
        self.store = Store(work / "hash" / "store")

    def fingerprint(self) -> None:
        """Take the fingerprint of the folder, as a plan does."""
        digests = DigestCache(self.cache)
        params = image_folder.Params(path=str(self.small))
        image_folder.fingerprint(params, Path, digests)
        digests.save()

    def forget(self) -> None:
        """Empty the cache."""
        shutil.rmtree(self.cache.parent, ignore_errors=True)

    def change_one(self) -> None:
        """Change one file, long enough ago."""
        path = self.small / "007" / "00007.png"
        path.write_bytes(os.urandom(8) + path.read_bytes()[8:])
        time.sleep(2.5)

    def hash_large(self) -> None:
        """Hash the large file."""
        DigestCache(self.cache).digest_file(self.large)

    def stage(self) -> None:
        """Put the small files where a stage would have written them."""
        shutil.rmtree(self.store.root, ignore_errors=True)
        self.node = _node()
        self.staging = self.store.staging(self.node.key)
        for path in self.small.rglob("*.png"):
            target = self.staging / path.relative_to(self.small)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
        os.sync()

    def publish(self) -> None:
        """Publish them."""
        self.store.publish(self.node, self.staging, {}, {})


def _node() -> Node:
    preimage = {"stage": "bench"}
    return Node("bench", "bench", {}, {}, keys.digest(preimage), preimage, 0, {}, {})


def measure(work: Callable[[], object], before: Callable[[], object] | None) -> tuple[float, float]:
    """Return wall and processor time of one call."""
    if before is not None:
        before()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the files are kept")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the files [2]")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each [3]")
    args = parser.parse_args()
    bench = Bench(args.work.resolve(), int(args.gigabytes * 1e9))
    alone, walk = "the digest alone, on all cores", "stat of every file"
    cases: dict[str, tuple[Callable[[], object], Callable[[], object] | None, str]] = {
        alone: (lambda: digest_alone(bench.num_bytes), None, alone),
        walk: (lambda: stat_walk(str(bench.small)), None, walk),
        "fingerprint, empty cache": (bench.fingerprint, bench.forget, alone),
        "fingerprint, warm": (bench.fingerprint, None, walk),
        "fingerprint, one file changed": (bench.fingerprint, bench.change_one, walk),
        "one file of half the size": (bench.hash_large, bench.forget, alone),
        "publish": (bench.publish, bench.stage, alone),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(args.repeat):
        for name, (work, before, _) in cases.items():
            if name == "fingerprint, warm":
                bench.fingerprint()
            found[name].append(measure(work, before))
    print("| what | wall (range) | processor time | wall and processor time, in times |")
    print("|---|---|---|---|")
    walls = {name: spread([wall for wall, _ in of]).median for name, of in found.items()}
    cpus = {name: spread([cpu for _, cpu in of]).median for name, of in found.items()}
    for name, of in found.items():
        wall = spread([wall for wall, _ in of])
        reach = f"{seconds(wall.low)} - {seconds(wall.high)}"
        against = cases[name][2]
        times = ""
        if against != name:
            wall_ratio, cpu_ratio = walls[name] / walls[against], cpus[name] / cpus[against]
            times = f"{wall_ratio:.2f}, {cpu_ratio:.2f} of {against}"
        print(
            f"| {name} | **{seconds(wall.median)}** ({reach}) | {seconds(cpus[name])} | {times} |"
        )


if __name__ == "__main__":
    main()
