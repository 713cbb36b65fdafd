"""Figures of this machine: processor, memory, disk, processes, uptime."""

import platform
import time

import psutil

DESCRIPTION = (
    "Figures of this machine: `cpu`, `memory`, `disk`, `processes`, `uptime`, `os` or `all`."
)
EFFECT = "read"
SCOPE = "global"
CACHE_TTL = 30
CAPABILITIES = ["system"]
TIMEOUT = 10
TTL_RULES = {"os": 3600, "disk": 60, "processes": 10, "uptime": 0}

_GIB = 1024**3


def cpu() -> dict[str, object]:
    """Load of the processors, measured over a quarter of a second."""
    return {
        "cores": psutil.cpu_count(),
        "percent": psutil.cpu_percent(interval=0.25),
        "load": list(psutil.getloadavg()),
    }


def memory() -> dict[str, object]:
    """Main memory."""
    figures = psutil.virtual_memory()
    return {
        "total_gib": round(figures.total / _GIB, 2),
        "available_gib": round(figures.available / _GIB, 2),
        "percent": figures.percent,
    }


def disk() -> dict[str, object]:
    """The file system at the root."""
    figures = psutil.disk_usage("/")
    return {
        "total_gib": round(figures.total / _GIB, 2),
        "free_gib": round(figures.free / _GIB, 2),
        "percent": figures.percent,
    }


def processes() -> dict[str, object]:
    """How many processes there are, and the five with the most memory."""
    all_of_them = [p.info for p in psutil.process_iter(["pid", "name", "memory_percent"])]
    largest = sorted(all_of_them, key=lambda p: p["memory_percent"] or 0, reverse=True)
    return {"count": len(all_of_them), "largest": largest[:5]}


def uptime() -> dict[str, object]:
    """How long the machine has been up."""
    return {"hours": round((time.time() - psutil.boot_time()) / 3600, 1)}


def os() -> dict[str, object]:
    """The operating system."""
    system = platform.uname()
    return {"system": system.system, "release": system.release, "machine": system.machine}


tools = {tool.__name__: tool for tool in (cpu, memory, disk, processes, uptime, os)}


def run(query: str, **_context: object) -> dict[str, object]:
    """The figures that are asked for, by the names of the tools."""
    wanted = list(tools) if query.strip() == "all" else query.split()
    unknown = [word for word in wanted if word not in tools]
    if unknown:
        raise ValueError(f"no figure {', '.join(unknown)}; there are: {', '.join(tools)}, all")
    return {name: tools[name]() for name in wanted}
