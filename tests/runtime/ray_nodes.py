"""A Ray cluster on this machine whose nodes come and go, for tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Of Ray's own sockets, logs and options.
WARNINGS = tuple(f"ignore::{kind}Warning" for kind in ("Resource", "Deprecation", "Future"))


class Nodes:
    """A head that runs nothing, and nodes. Nothing is written outside the temporary folder."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster

        # A lost node is to be noticed in seconds, not in a quarter of a minute.
        quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        head = {"num_cpus": 0, "object_store_memory": 10**8, "include_dashboard": False}
        self._cluster = Cluster(True, head_node_args={**head, "_system_config": quick})
        self.address = self._cluster.address
        self.nodes = []

    def add(self, num_cpus: int = 1, **more: int):
        self.nodes.append(
            self._cluster.add_node(num_cpus=num_cpus, object_store_memory=10**8, **more)
        )
        return self.nodes[-1]

    def kill(self, node) -> None:
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def host_of(self, worker: int):
        """Return the node that runs a process; None if none of these does."""
        ancestors = set(_ancestors(worker))
        for node in self.nodes:
            if any(process.pid in ancestors for _, process in node.live_processes()):
                return node
        return None

    def close(self) -> None:
        self._cluster.shutdown()


def workers(root: Path) -> dict[int, str]:
    """Return the processes that work for a store below a folder, orphans as well; and on what."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError, ValueError):
            words = path.read_bytes().decode().split("\0")
            jobs = [word for word in words if "/adapt-ray-" in word and word.endswith("job.json")]
            job = json.loads(Path(jobs[0]).read_text()) if jobs else {"store": ""}
            if Path(job["store"]).is_relative_to(root):
                found[int(path.parent.name)] = job["node"]["id"]
    return found


def _ancestors(pid: int) -> Iterator[int]:
    with suppress(OSError):
        while pid > 1:
            yield pid
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pid = int(fields[1])
