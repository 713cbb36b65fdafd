"""A server that speaks the Model Context Protocol as badly as it is told to, for the tests: what it
does at a call is the name of the tool."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

TOOLS = (
    "echo",
    "nonsense",
    "long",
    "endless",
    "wrong",
    "die",
    "change",
    "refuse",
    "slow",
    "misfit",
)
DEEP = 40
OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"pattern": "^(a+)+$"},
        "m": {"$ref": "#/$defs/d0"},
        "p": {"type": "string"},
    },
    "patternProperties": {"^(b+)+$": {}},
    "additionalProperties": {"pattern": "^(c|c)*$"},
    "$defs": {
        **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(DEEP)},
        f"d{DEEP}": {},
    },
}
"""To check data by it as it stands takes for ever."""


def answer(number: object, result: object) -> None:
    """One answer, on a line of its own."""
    say(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def listed(cursor: str | None) -> dict[str, object]:
    """The list of tools, in two pages."""
    names, after = (TOOLS[:3], "more") if cursor is None else (TOOLS[3:], None)
    if len(sys.argv) > 2 and sys.argv[2] == "endless list":
        after = "more"
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    tools: list[object] = [
        {"name": name, "inputSchema": schema}
        | ({"outputSchema": OUTPUT} if name in {"slow", "misfit"} else {})
        for name in names
    ]
    schema = {"type": "object", "properties": {"n": {"type": "no type"}}}
    tools.append({"name": "unusable", "inputSchema": schema})
    return {"tools": tools} | ({"nextCursor": after} if after else {})


def call(number: object, name: str, arguments: dict[str, object]) -> None:
    text = {"type": "text", "text": json.dumps(arguments)}
    if name == "nonsense":
        say("Traceback: \x1b[2Jsecret-value")
        say("{}" + "]" * 5)
        say('{"jsonrpc": "2.0", "id": 9999, "result": {}}')
    elif name == "long":
        text["text"] = "x" * 100_000
    elif name == "endless":
        say('"' + "x" * 100_000)
        return
    elif name == "slow":
        data = {"n": "a" * 60 + "!", "m": 1, "b" * 60 + "!": "c" * 60 + "!"}
        answer(number, {"content": [], "structuredContent": data})
        return
    elif name == "misfit":
        answer(number, {"content": [], "structuredContent": {"p": 1}})
        return
    elif name == "change":
        say('{"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}')
    elif name == "wrong":
        answer(number, {"content": "no list"})
        return
    elif name == "refuse":
        error = {"code": -32602, "message": "n is unlucky"}
        say(json.dumps({"jsonrpc": "2.0", "id": number, "error": error}))
        return
    elif name == "die":
        sys.stderr.write("x" * 9000 + " last words\n")
        sys.stderr.flush()
        os._exit(7)
    answer(number, {"content": [text]})


def take(message: dict[str, Any]) -> None:
    """One message of the client."""
    method, number = message["method"], message.get("id")
    params = message.get("params") or {}
    if "silent" in sys.argv:
        say("still starting")
    elif method == "initialize":
        told = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {"listChanged": True}},
        }
        answer(number, told | {"serverInfo": {"name": "bad", "version": "0"}})
    elif method == "tools/list":
        answer(number, listed(params.get("cursor")))
    elif method == "tools/call":
        call(number, params["name"], params["arguments"])
    elif method == "notifications/cancelled":
        Path(sys.argv[1]).with_name("cancelled").write_text(str(params["requestId"]))
    elif number is not None:
        error = {"code": -32601, "message": "no such method"}
        say(json.dumps({"jsonrpc": "2.0", "id": number, "error": error}))


def main() -> None:
    """Reads requests until its input ends. The first argument is a file that each start is noted in,
    the second what it does instead of its work."""
    with Path(sys.argv[1]).open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(sys.argv[1]).with_name("child").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    if "fail at once" in sys.argv:
        sys.stderr.write("no licence\n")
        sys.exit(2)
    for line in sys.stdin:
        take(json.loads(line))
    if "stubborn" in sys.argv:
        threading.Event().wait()


if __name__ == "__main__":
    main()
