"""A headless Chromium that is driven over a pipe (DevTools protocol), with the standard library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PATH = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
WAIT_S = 60.0
NAMED = {"Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class Chromium:
    """One page in one browser; a context manager. A request that takes too long fails the test."""

    def __init__(self, folder: Path, width: int = 1400, height: int = 900, scheme: str = "light"):
        # Chromium reads commands from descriptor 3 and writes to 4, whatever ours are.
        their_in, our_out = (fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in os.pipe())
        our_in, their_out = (fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in os.pipe())
        flags = " ".join((*FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}"))
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", f"exec {PATH} {flags} about:blank 3<&{their_in} 4>&{their_out}"],
            pass_fds=(their_in, their_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )
        os.close(their_in)
        os.close(their_out)
        self._out, self._in = our_out, our_in
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.size(width, height)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)

    def ask(self, method: str, **params: Any) -> Any:
        """Send a command to the page; return its result."""
        return self._ask(method, self._session, **params)

    def open(self, url: str) -> None:
        self.ask("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """Return the value of an expression on the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Wait until an expression on the page is true."""
        end = time.monotonic() + WAIT_S
        while not self.value(script):
            assert time.monotonic() < end, f"never came true: {script}"
            time.sleep(0.05)

    def press(self, *names: str) -> None:
        """Press keys, as a person does."""
        for name in names:
            code = NAMED.get(name, ord(name[0].upper()))
            key: dict[str, Any] = {"key": name, "windowsVirtualKeyCode": code}
            text = {"text": "\r"} if name == "Enter" else {} if name in NAMED else {"text": name}
            self.ask("Input.dispatchKeyEvent", type="keyDown", **key, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **key)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def problems(self) -> list[str]:
        """Return what the page complained about: errors, and what its policy refused."""
        told = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        thrown = [e for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        return [entry["text"] for entry in told if entry["level"] == "error"] + [
            str(event["params"]["exceptionDetails"]) for event in thrown
        ]

    def asked_for(self) -> list[str]:
        """Return the address of every request."""
        sent = [e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def _ask(self, method: str, session: str | None = None, **params: Any) -> Any:
        self._number += 1
        said = {"id": self._number, "method": method, "params": params}
        os.write(self._out, json.dumps(said | ({"sessionId": session} if session else {})).encode())
        os.write(self._out, b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._number:
                assert "error" not in found, found["error"]
                return found["result"]
            self.events.append(found)

    def _message(self) -> Any:
        end = time.monotonic() + WAIT_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            block = os.read(self._in, 1 << 16)
            assert block, "Chromium has ended"
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._out)
        os.close(self._in)
        os.killpg(self._process.pid, 9)
        self._process.wait()
