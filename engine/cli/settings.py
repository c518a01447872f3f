"""Machine settings from flags, then `ADAPT_*` variables, then the user file, then defaults.

The user file is `~/.config/adapt/config.yaml`, with the names of the flags:

    store: /data/adapt
    threads: 16
    offline: true
    python: {vllm: /opt/vllm/bin/python}
    trackers: [tensorboard]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.again import STORE
from engine.diagnostics import Diagnostic, RequestError, nearest

if TYPE_CHECKING:
    from engine.runtime.machine import Settings
    from engine.runtime.store import Store

NUM_RETRIES = 3
_NAMES = (
    "store", "executor", "ray_address", "threads", "retries", "device", "offline", "python",
    "trackers",
)  # fmt: skip
_CHOICES = {"executor": ("local", "ray", "slurm", "skypilot"), "device": ("auto", "cpu", "cuda")}
_BOOLS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def add_store_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--store`, which every verb that looks at runs has."""
    group = parser.add_argument_group("machine settings (never in a recipe)")
    group.add_argument(
        "--store", metavar="FOLDER|URL", help="where artifacts are: a folder or s3://... [.adapt]"
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all machine settings."""
    add_store_flag(parser)
    group = parser.add_argument_group("machine settings of a run")
    group.add_argument(
        "--executor",
        choices=_CHOICES["executor"],
        help="what runs the nodes [local]; slurm and skypilot: write a job file, run nothing",
    )
    group.add_argument(
        "--ray-address", metavar="HOST:PORT", help="of a Ray cluster; or `local`: start one [auto]"
    )
    group.add_argument("--threads", metavar="N", help="cores to use [all]")
    group.add_argument(
        "--retries", metavar="N", help="tries of a node after a lost connection or process [3]"
    )
    group.add_argument("--device", choices=_CHOICES["device"], help="what models run on [auto]")
    network = group.add_mutually_exclusive_group()
    network.add_argument("--offline", dest="offline", action="store_true", default=None)
    network.add_argument("--online", dest="offline", action="store_false", default=None)
    group.add_argument(
        "--python",
        metavar="BACKEND=PATH",
        action="append",
        help="the interpreter of a backend that lives in an environment of its own",
    )
    group.add_argument(
        "--tracker",
        dest="trackers",
        action="append",
        metavar="NAME",
        help="also tell a tracker of the run: tensorboard, wandb, mlflow, trackio; repeatable",
    )


def store_path(args: argparse.Namespace, environ: Mapping[str, str]) -> Path:
    """Return the folder of the store; of a shared store, the one before it on this machine."""
    named = _named_store(args, environ)
    if not is_url(named):
        return Path(named).expanduser()
    import hashlib

    home = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "~")) / ".cache")
    digest = hashlib.sha256(named.rstrip("/").encode()).hexdigest()[:16]
    return Path(home).expanduser() / "adapt" / "stores" / digest


def open_store(args: argparse.Namespace, environ: Mapping[str, str]) -> Store:
    """Return the store that was named, for verbs that need nothing else."""
    from engine.runtime import opening

    return opening.open_store(store_path(args, environ), remote_url(args, environ))


def remote_url(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Return the URL of a shared store, or nothing."""
    named = _named_store(args, environ)
    return named if is_url(named) else ""


def is_url(named: str) -> bool:
    """Tell whether a store is named by a URL, such as `s3://bucket/folder`."""
    return "://" in named


def _named_store(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    named = args.store or environ.get("ADAPT_STORE")
    return str(named or _user_file(environ).get("store", STORE))


def interpreter(backend: str, args: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    """Return the interpreter of a backend's own environment, for verbs that need nothing else."""
    flags = getattr(args, "python", None) or ()
    return _pythons(flags, environ, _user_file(environ).get("python") or {}, []).get(backend)


def resolve(args: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Return the machine settings. Raise RequestError with every wrong one."""
    from engine.runtime import machine
    from engine.runtime.machine import Settings

    user = _user_file(environ)
    problems: list[Diagnostic] = []
    pythons = _pythons(args.python or (), environ, user.get("python") or {}, problems)
    given = {name: _first(name, args, environ, user) for name in _NAMES if name != "python"}
    for name, choices in _CHOICES.items():
        _check_choice(name, given[name], choices, problems)
    executor = given["executor"] or "local"
    threads = _threads(given["threads"], problems, unset=None if executor == "local" else 0)
    retries = _retries(given["retries"], problems)
    is_offline = _is_true(given["offline"], problems)
    trackers = _trackers(given["trackers"], problems)
    gpus = machine.num_gpus(environ.get("CUDA_VISIBLE_DEVICES")) if given["device"] != "cpu" else 0
    # Elsewhere than here there may be GPUs, and other cores.
    has_gpus = bool(gpus) or (executor != "local" and given["device"] != "cpu")
    if given["device"] == "cuda" and not has_gpus:
        problems.append(_wrong("device", "this machine has no NVIDIA GPU", "use `--device cpu`"))
    if problems:
        raise RequestError(*problems)
    return Settings(
        store=store_path(args, environ),
        remote=remote_url(args, environ),
        executor=executor,
        ray_address=str(given["ray_address"] or "auto"),
        threads=threads,
        retries=retries,
        device="cuda" if has_gpus else "cpu",
        num_gpus=gpus,
        is_offline=is_offline,
        pythons=pythons,
        trackers=trackers,
    )


def _first(
    name: str, args: argparse.Namespace, environ: Mapping[str, str], user: Mapping[str, Any]
) -> Any:
    flag = getattr(args, name, None)
    if flag is not None:
        return flag
    return environ.get(f"ADAPT_{name.upper()}") or user.get(name)


def _threads(value: Any, problems: list[Diagnostic], *, unset: int | None) -> int:
    if value is None and unset is not None:
        return unset
    if value is None:
        from engine.runtime import machine

        return machine.num_cores()
    if not str(value).isdigit() or int(value) < 1:
        problems.append(_wrong("threads", f"'{value}' is not a number of cores", "use 1 or more"))
        return 1
    return int(value)


def _retries(value: Any, problems: list[Diagnostic]) -> int:
    if value is not None and not str(value).isdigit():
        problems.append(_wrong("retries", f"'{value}' is not a number", "use 0 or more"))
        return 0
    return NUM_RETRIES if value is None else int(value)


def _trackers(value: Any, problems: list[Diagnostic]) -> tuple[str, ...]:
    if not value:
        return ()
    from engine.cli.trackers import NAMES

    words = ",".join([value] if isinstance(value, str) else map(str, value)).split(",")
    found = tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
    for name in found:
        if name not in NAMES:
            close = nearest(name, NAMES)
            hint = f"did you mean `{close}`?" if close else f"use one of {', '.join(NAMES)}"
            problems.append(_wrong("tracker", f"'{name}' is not known", hint))
    return found


def _is_true(value: Any, problems: list[Diagnostic]) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if str(value).lower() not in _BOOLS:
        problems.append(_wrong("offline", f"'{value}' is neither true nor false", "use 1 or 0"))
        return False
    return _BOOLS[str(value).lower()]


def _pythons(
    flags: list[str] | tuple[str, ...],
    environ: Mapping[str, str],
    user: Mapping[str, str],
    problems: list[Diagnostic],
) -> dict[str, str]:
    prefix = "ADAPT_PYTHON_"
    found = {name: str(Path(path).expanduser()) for name, path in user.items()}
    found |= {k.removeprefix(prefix).lower(): v for k, v in environ.items() if k.startswith(prefix)}
    for flag in flags:
        name, equals, path = flag.partition("=")
        if not (name and equals and path):
            problems.append(_wrong("python", f"'{flag}' is not BACKEND=PATH", "vllm=/opt/x/python"))
        found[name] = path
    for name, path in found.items():
        if path and not Path(path).is_file():
            problems.append(_wrong("python", f"backend {name}: there is no '{path}'", None))
    return found


def _check_choice(
    name: str, value: Any, choices: tuple[str, ...], problems: list[Diagnostic]
) -> None:
    if value is not None and value not in choices:
        problems.append(_wrong(name, f"'{value}' is not known", f"use one of {', '.join(choices)}"))


def _wrong(name: str, what: str, hint: str | None) -> Diagnostic:
    return Diagnostic("wrong-setting", f"machine setting `{name}`: {what}", hint=hint)


def user_file_path(environ: Mapping[str, str]) -> Path:
    """Return where the user's machine settings are, if there are any."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")) / ".config")
    return Path(home).expanduser() / "adapt" / "config.yaml"


def _user_file(environ: Mapping[str, str]) -> dict[str, Any]:
    path = user_file_path(environ)
    if not path.is_file():
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise RequestError(_wrong("user file", f"{path} is not YAML: {error}", None)) from error
    if not isinstance(found, dict):
        raise RequestError(_wrong("user file", f"{path} holds no names and values", None))
    unknown = [name for name in found if name not in _NAMES]
    if unknown:
        close = nearest(str(unknown[0]), _NAMES)
        hint = f"`{close}` is close" if close else f"known: {', '.join(_NAMES)}"
        raise RequestError(_wrong(str(unknown[0]), f"{path} has an unknown name", hint))
    return found
