"""A hub on the loopback device: what the real clients ask of huggingface.co, and its failures."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".safetensors", ".parquet", ".bin")


def commit(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


@dataclass
class Repo:
    """A model or dataset: files by commit, commits by branch, and who may read them."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    token: str | None = None  # gated: the one whose owner accepted the terms
    is_private: bool = False

    def at(self, revision: str) -> str | None:
        found = self.branches.get(revision, revision)
        return found if found in self.commits else None


@dataclass
class Hub:
    """The server, its repositories, and what goes wrong with each."""

    repos: dict[str, Repo] = field(default_factory=dict)  # "models/a/b", "datasets/a/b"
    faults: dict[str, Callable[[Handler], bool]] = field(default_factory=dict)  # by part of a path
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, name: str, files: dict[str, bytes], number: int = 1, **more: Any) -> Repo:
        """Add a repository, or a commit that its branch `main` moves to."""
        repo = self.repos.setdefault(name, Repo({}, {}, **more))
        repo.commits[commit(number)] = files
        repo.branches["main"] = commit(number)
        return repo


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        split = urlsplit(self.path)
        path = unquote(split.path).strip("/")
        self.hub.asked.append(f"{self.command} {path}")
        for part, fault in self.hub.faults.items():
            if part in path and fault(self):
                return
        words = path.split("/")
        if words[0] == "api" and len(words) >= 4:
            self._api(words[1], "/".join(words[2:4]), words[4:], parse_qs(split.query))
        elif "resolve" in words:
            at = words.index("resolve")
            kind = words[0] if at == 3 else "models"
            self._file(kind, "/".join(words[at - 2 : at]), words[at + 1], "/".join(words[at + 2 :]))
        else:
            self.refuse(404, "EntryNotFound")

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None or (repo.is_private and not self._may_read(repo)):
            known = self.headers.get("Authorization") is not None
            self.refuse(404 if known else 401, "RepoNotFound")
            return None
        return repo

    def _may_read(self, repo: Repo) -> bool:
        return repo.token is None or self.headers.get("Authorization") == f"Bearer {repo.token}"

    def _api(self, kind: str, name: str, rest: list[str], query: dict[str, list[str]]) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        if rest[:1] == ["auth-check"]:
            if self._may_read(repo):
                self.send(b"{}")
            else:
                self._refuse_gated()
            return
        revision = rest[1] if len(rest) > 1 else "main"
        at = repo.at(revision)
        if at is None:
            self.refuse(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            self.send_json(_tree(repo.commits[at], "/".join(rest[2:])))
        elif rest[:1] == ["paths-info"]:
            form = parse_qs(self.body.decode())
            wanted = form.get("paths") or json.loads(self.body).get("paths", [])
            self.send_json([e for e in _tree(repo.commits[at], "") if e["path"] in wanted])
        else:
            self.send_json(_info(name, repo, at, with_blobs="blobs" in query))

    def _file(self, kind: str, name: str, revision: str, file: str) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        at = repo.at(revision)
        if at is None:
            self.refuse(404, "RevisionNotFound")
        elif not self._may_read(repo):
            self._refuse_gated()
        elif file not in repo.commits[at]:
            self.refuse(404, "EntryNotFound", commit=at)
        else:
            content = repo.commits[at][file]
            self.send(content, {"ETag": f'"{_digest(file, content)[1]}"', "X-Repo-Commit": at})

    def _refuse_gated(self) -> None:
        known = self.headers.get("Authorization") is not None
        self.refuse(403 if known else 401, "GatedRepo")

    def refuse(self, status: int, code: str = "", commit: str | None = None, **more: str) -> None:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        headers |= {"X-Error-Code": code, "X-Error-Message": "no"} if code else {}
        headers |= {"X-Repo-Commit": commit} if commit else {}
        self.send(b'{"error":"no"}', headers, status)

    def send_json(self, value: Any) -> None:
        self.send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(
        self,
        content: bytes,
        headers: dict[str, str] | None = None,
        status: int = 200,
        cut: int | None = None,
    ) -> None:
        """Send an answer; with `cut`, close the line after so many bytes of it."""
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        body = content[start:]
        self.send_response(206 if start else status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


def _digest(name: str, content: bytes) -> tuple[str, str]:
    if name.endswith(LFS):
        return "sha256", hashlib.sha256(content).hexdigest()
    header = b"blob %d\0" % len(content)
    return "git", hashlib.sha1(header + content).hexdigest()


def digest(name: str, content: bytes) -> str:
    """Return the digest of a file as a lock has it."""
    return ":".join(_digest(name, content))


def _blob(name: str, content: bytes) -> tuple[str, dict[str, Any] | None]:
    kind, found = _digest(name, content)
    if kind == "git":
        return found, None
    return "e" * 40, {"size": len(content), "sha256": found, "oid": found, "pointerSize": 130}


def _info(name: str, repo: Repo, at: str, *, with_blobs: bool) -> dict[str, Any]:
    siblings = []
    for file, content in repo.commits[at].items():
        sibling: dict[str, Any] = {"rfilename": file}
        if with_blobs:
            blob, lfs = _blob(file, content)
            sibling |= {"blobId": blob, "size": len(content)} | ({"lfs": lfs} if lfs else {})
        siblings.append(sibling)
    gated = "auto" if repo.token is not None else False
    return {"id": name, "sha": at, "gated": gated, "private": False, "siblings": siblings}


def _tree(files: dict[str, bytes], under: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    folders = {f.rpartition("/")[0] for f in files if "/" in f}
    found += [{"type": "directory", "path": f, "oid": "f" * 40, "size": 0} for f in sorted(folders)]
    for name, content in files.items():
        blob, lfs = _blob(name, content)
        entry = {"type": "file", "path": name, "oid": blob, "size": len(content)}
        found.append(entry | ({"lfs": lfs} if lfs else {}))
    return [e for e in found if not under or e["path"].startswith(f"{under}/")]


def times(number: int, fault: Callable[[Handler], Any]) -> Callable[[Handler], bool]:
    """Return a fault of the first requests only."""
    left = [number]

    def once(handler: Handler) -> bool:
        if left[0] == 0:
            return False
        left[0] -= 1
        fault(handler)
        return True

    return once


def always(fault: Callable[[Handler], Any]) -> Callable[[Handler], bool]:
    """Return a fault of every request."""
    return times(-1, fault)


def slow(seconds: float) -> Callable[[Handler], bool]:
    """Return a fault that says nothing for so long, and then closes the line."""

    def wait(handler: Handler) -> bool:
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return wait


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty hub."""
    hub = Hub()
    kind = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
