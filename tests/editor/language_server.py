"""Talks to a language server as an editor does: JSON-RPC over its standard input and output."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

# What an editor answers when the server asks for its settings: validate, hover, complete.
SETTINGS = {
    "validate": True,
    "hover": True,
    "completion": True,
    "yamlVersion": "1.2",
    "schemaStore": {"enable": False},
    "format": {"enable": False},
}


class LanguageServer:
    """A running server; a context manager."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._number = 0

    def __enter__(self) -> LanguageServer:
        root = self._folder.as_uri()
        capabilities = {
            "workspace": {"configuration": True},
            "textDocument": {
                "completion": {"completionItem": {"documentationFormat": ["markdown"]}},
                "hover": {"contentFormat": ["markdown"]},
            },
        }
        folders = [{"uri": root, "name": "folder"}]
        self.ask(
            "initialize",
            {
                "processId": None,
                "rootUri": root,
                "workspaceFolders": folders,
                "capabilities": capabilities,
            },
        )
        self._send({"method": "initialized", "params": {}})
        changed = {"settings": {"yaml": SETTINGS}}
        self._send({"method": "workspace/didChangeConfiguration", "params": changed})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def open(self, name: str, text: str) -> list[dict[str, Any]]:
        """Open a text as a file of the folder; return what is marked in it."""
        uri = (self._folder / name).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        while True:
            message = self._receive()
            if message.get("method") == "textDocument/publishDiagnostics":
                params = message["params"]
                if params["uri"] == uri:
                    found: list[dict[str, Any]] = params["diagnostics"]
                    return found

    def completions(self, name: str, line: int, column: int) -> dict[str, dict[str, Any]]:
        """Return what is offered at a place (from 0), by label."""
        answer = self.ask("textDocument/completion", self._at(name, line, column))
        items = answer["items"] if isinstance(answer, dict) else answer
        return {item["label"]: item for item in items}

    def hover(self, name: str, line: int, column: int) -> str:
        """Return the text that is shown for a place (from 0); empty if there is none."""
        answer = self.ask("textDocument/hover", self._at(name, line, column))
        return str(answer["contents"]["value"]) if answer else ""

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Send a request and return its result."""
        self._number += 1
        number = self._number
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._receive()
            if message.get("id") == number and "method" not in message:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]

    def _at(self, name: str, line: int, column: int) -> dict[str, Any]:
        return {
            "textDocument": {"uri": (self._folder / name).as_uri()},
            "position": {"line": line, "character": column},
        }

    def _receive(self) -> dict[str, Any]:
        """Return the next message; answer those in which the server asks."""
        stream = self._process.stdout
        assert stream is not None
        length = 0
        while header := stream.readline().strip():
            name, _, value = header.decode().partition(": ")
            length = int(value) if name == "Content-Length" else length
        if not length:
            raise EOFError("the language server ended")
        message: dict[str, Any] = json.loads(stream.read(length))
        if "method" in message and "id" in message:
            self._send({"id": message["id"], "result": _answer(message)})
        return message

    def _send(self, message: dict[str, Any]) -> None:
        stream = self._process.stdin
        assert stream is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        stream.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        stream.flush()


def _answer(message: dict[str, Any]) -> Any:
    if message["method"] != "workspace/configuration":
        return None
    sections = [item.get("section") for item in message["params"]["items"]]
    return [SETTINGS if section == "yaml" else {} for section in sections]
