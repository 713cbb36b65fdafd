"""The program in the process of the embedded model: one order a line in, one answer a line out.

It is run as a file, apart from the package, with nothing of ours imported: it is there in half the
time. Native code may write what it likes to standard output: that leads nowhere by then.
"""

import importlib
import json
import os
import resource
import secrets
import sys
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["main"]

_CONTEXT: Final = 2048
"""Tokens that a prompt and what follows it can have."""


def main() -> None:
    """Loads the model that the first line names, then does as it is told until there is no more."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (it is a device)
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    model: Any = None
    for line in sys.stdin.buffer:
        order = json.loads(line)
        try:
            if model is None:
                model = _load(order)
                answer: dict[str, object] = {}
            elif "schema" in order:
                answer = _written(model, order)
            else:
                answer = _next(model, order)
        except Exception as exc:  # noqa: BLE001 (whatever it is, it is told and raised there)
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        out.write(json.dumps({**answer, "memory": _memory()}) + "\n")
        out.flush()
    os._exit(0)  # native threads may not end


def _load(order: Mapping[str, Any]) -> Any:
    sys.path[:] = order["search"]
    native = importlib.import_module("xllamacpp")
    params = native.CommonParams()
    params.model.path = order["path"]
    params.n_ctx = _CONTEXT
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = order["threads"]
    params.warmup = params.fit_params = False
    params.cache_ram_mib = 0
    params.verbosity = -1
    # It listens, whether wanted or not: where nobody else comes in, and with a key nobody has.
    params.hostnames = [f"{order['place']}/model.sock"]
    params.api_keys = [secrets.token_hex()]
    params.ui = params.endpoint_slots = False
    return native.Server(params)


def _next(model: Any, order: Mapping[str, Any]) -> dict[str, object]:
    """The likeliest next words, and the logarithms of their chances."""
    said = _complete(model, {"prompt": order["prompt"], "n_predict": 1, "n_probs": order["most"]})
    place = said["choices"][0]["logprobs"]["content"][0]
    words = {one["token"]: one["logprob"] for one in place["top_logprobs"]}
    return {"words": words, "read": said["usage"]["prompt_tokens"], "wrote": 1}


def _written(model: Any, order: Mapping[str, Any]) -> dict[str, object]:
    """How the prompt goes on, in JSON after a schema."""
    request = {
        "prompt": order["prompt"],
        "json_schema": order["schema"],
        "n_predict": order["most"],
    }
    said = _complete(model, request)
    usage = said["usage"]
    return {
        "text": said["choices"][0]["text"],
        "read": usage["prompt_tokens"],
        "wrote": usage["completion_tokens"],
    }


def _complete(model: Any, request: Mapping[str, object]) -> dict[str, Any]:
    said = model.handle_completions(
        {**request, "temperature": 0.0, "seed": 1, "cache_prompt": True}
    )
    if "choices" not in said:
        raise ValueError(str(said)[:500])
    return dict(said)


def _memory() -> int:
    """Bytes that it has taken at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
