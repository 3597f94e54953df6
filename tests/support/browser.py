"""A headless Chromium that tests drive by its own protocol, over a pair of pipes.

MEMSYNC_TEST_CHROMIUM names the program, else it is looked for on PATH. Nothing is downloaded.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_WAIT_S = 60


def chromium() -> str | None:
    """The program, if there is one."""
    named = os.environ.get("MEMSYNC_TEST_CHROMIUM")
    return named or next((found for name in _NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page in a browser. `requests` are the URLs that it has asked for."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest, self._number, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def show(self, page: Path, *, width: int, scheme: str = "light") -> None:
        """Load a page at this width, in CSS pixels, in the light or the dark scheme."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", features=features)
        self._events.clear()
        self.requests.clear()
        self._call("Page.navigate", url=page.as_uri())
        self._until("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        given = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        found = self._call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, such as Tab."""
        for kind in ("keyDown", "keyUp"):
            code = {"Tab": 9, "Enter": 13}[key]
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self._call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
            )

    def picture(self, *, height: int = 2400) -> bytes:
        """The upper part of the page as PNG."""
        width = self.value("document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self._call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    @property
    def complaints(self) -> list[str]:
        """What the browser says in its console: what it refused, and what failed."""
        self.value("1")
        return [
            str(event["params"]["entry"]["text"])
            for event in self._events
            if event.get("method") == "Log.entryAdded"
        ]

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": params}
        if self._session:
            asked["sessionId"] = self._session
        self._write(json.dumps(asked).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                found: dict[str, Any] = answer["result"]
                return found

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._commands, data) :]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._answers, 1 << 16)
            assert chunk, "the browser has ended"
            self._rest += chunk
        message, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        self._events.append(found)
        if found.get("method") == "Network.requestWillBeSent":
            self.requests.append(found["params"]["request"]["url"])
        return found

    def _until(self, method: str) -> None:
        ends = time.monotonic() + _WAIT_S
        while not any(event.get("method") == method for event in self._events):
            assert time.monotonic() < ends, f"no {method}"
            self._read()


@contextlib.contextmanager
def opened(program: str, folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in `folder`, which ends with the block."""
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()

    def as_3_and_4() -> None:
        # Chromium reads from descriptor 3 and writes to 4. Copies first: either may be taken.
        ours = os.dup(to_browser), os.dup(from_browser)
        for descriptor, place in zip(ours, (3, 4), strict=True):
            os.dup2(descriptor, place)

    words = (
        *(program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"),
        *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
        f"--user-data-dir={folder}",
    )
    process = subprocess.Popen(
        words,
        preexec_fn=as_3_and_4,  # noqa: PLW1509
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Browser(commands, answers)
    finally:
        os.close(commands)
        os.close(answers)
        process.terminate()
        process.wait(_WAIT_S)
