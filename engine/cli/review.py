"""`adapt review`: a person grades a sample of the generated tasks on a local page."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from engine.cli import settings
from engine.cli.status import chosen_run
from engine.diagnostics import Diagnostic, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.artifacts import Artifact
    from engine.cli.review_sample import Source
    from engine.cli.review_server import Server
    from engine.runtime.grades import Session
    from engine.runtime.runs import Run
    from engine.runtime.store import Store

NUM, SEED, GRADER = 50, 42, "anonymous"
SETS = ("mixed", "kept", "dropped", "generated")
MAX_NAME = 60


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "review",
        help="grade a sample of generated tasks on a local page",
        description="Show a seeded sample of generated tasks on a page of this machine, to be "
        "graded by keys. Every answer is kept at once; the same command goes on where it stopped.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run", nargs="?", metavar="RUN|RECIPE", help="a run, or a recipe's newest [the newest run]"
    )
    parser.add_argument(
        "--num", type=_num, default=NUM, metavar="N", help=f"tasks in the sample [{NUM}]"
    )
    parser.add_argument(
        "--set",
        dest="of_set",
        choices=SETS,
        default=SETS[0],
        help="which tasks: half kept and half dropped by the filters, or one of them, or all as "
        "they were generated; the page never tells which is which [mixed]",
    )
    parser.add_argument(
        "--repaired",
        action="store_true",
        help="tasks whose answers were written again [those generated]",
    )
    parser.add_argument("--arm", metavar="NAME", help="of a matrix [the first with tasks]")
    parser.add_argument(
        "--grader", type=_name, default=GRADER, metavar="NAME", help=f"who grades [{GRADER}]"
    )
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help=f"[{SEED}]")
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="[any free one]")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument(
        "--json", action="store_true", help="print the means of all grades so far; serve nothing"
    )
    settings.add_store_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the page until it is stopped, or print what the grades come to."""
    store = settings.open_store(args, os.environ)
    found = chosen_run(store, args.run)
    if args.json:
        _print_json(found, store)
    else:
        _review(found, store, args)
    return 0


def _print_json(found: Run, store: Store) -> None:
    from engine.cli import grades

    told = {"run": found.id, "recipe": found.facts()["recipe"]}
    told["grades"] = grades.of_run(found, store)
    print(json.dumps(told, indent=1, ensure_ascii=False))


def _review(found: Run, store: Store, args: argparse.Namespace) -> None:
    from engine.cli import review_sample
    from engine.runtime.grades import Session

    source = review_sample.source_of(found, args.arm, is_repaired=args.repaired)
    tasks = review_sample.filtered(found, source, store)
    session = Session(store, tasks.manifest.key, args.grader)
    with _held(session) as lock:
        server = _server(found, source, tasks, session, lock, args)
        try:
            _serve(server, args)
        finally:
            server.review.journal.close()
            server.server_close()
            _end(found, store, session, tasks)


@contextmanager
def _held(session: Session) -> Iterator[Any]:
    """Hold the lock of a session. Raise RequestError when somebody has it, or it cannot be had."""
    try:
        lock = session.lock()
        is_ours = lock.try_acquire()
    except OSError as error:
        message = f"the store `{session.store.root}` cannot be written: {error.strerror}"
        hint = (
            "grades are kept in the store: `adapt store export` and `import` make a copy of yours"
        )
        raise RequestError(Diagnostic("store-not-writable", message, hint=hint)) from error
    if not is_ours:
        message = f"another `adapt review` of these tasks is open for grader `{session.grader}`"
        hint = "go on there, or name another one: `--grader NAME`"
        raise RequestError(Diagnostic("review-open", message, hint=hint))
    try:
        yield lock
    finally:
        lock.release()


def _server(
    found: Run,
    source: Source,
    tasks: Artifact,
    session: Session,
    lock: Any,
    args: argparse.Namespace,
) -> Server:
    """Draw the sample and listen. Raise RequestError for no tasks, or a port that is taken."""
    from engine.cli import review_rows, review_sample
    from engine.cli.review_server import Server
    from engine.cli.review_sitting import Review
    from engine.runtime.grades import Journal

    sampling = review_sample.Sampling(args.num, args.of_set, args.seed)
    chosen = review_sample.draw(tasks, sampling)
    shown = review_rows.shown(chosen, source, session.store)
    pictures = review_rows.pictures(chosen, source, session.store)
    journal = Journal(session)
    review = Review(found.plan().recipe, args.grader, chosen, shown, pictures, journal)
    try:
        server = Server(review, lock, args.port)
    except OSError as error:
        journal.close()
        message = f"port {args.port} cannot be used: {error.strerror}"
        hint = "leave `--port` out: a free one is found"
        raise RequestError(Diagnostic("wrong-flag", message, hint=hint)) from error
    journal.note({"set": args.of_set, "num": args.num, "seed": args.seed})
    return server


def _serve(server: Server, args: argparse.Namespace) -> None:
    """Serve until the page says that it is finished, or somebody stops the process."""
    from engine.rendering import verdicts

    review = server.review
    print(f"review  {server.url}")
    print(f"        {verdicts.counted(len(review.tasks), 'task')} for grader `{review.grader}`")
    print("        Ctrl-C ends; the same command goes on from there", flush=True)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), _opened(server.url) if args.open else nullcontext():
        server.serve_forever()


@contextmanager
def _opened(url: str) -> Iterator[None]:
    """Open the page in a browser, by a file that leads there.

    Whoever else is on this machine may read the words of a command, and the address has the token.
    """
    import tempfile
    import webbrowser
    from pathlib import Path

    with tempfile.TemporaryDirectory(prefix="adapt-review-") as folder:  # for this user alone
        path = Path(folder) / "open.html"
        leads = f'<meta http-equiv="refresh" content="0; url={url}">'
        path.write_text(f"<!doctype html><title>adapt review</title>{leads}\n", encoding="utf-8")
        webbrowser.open(path.as_uri())
        yield


def _end(found: Run, store: Store, session: Session, tasks: Artifact) -> None:
    """Publish what was graded, and tell what it comes to."""
    from engine.cli import grades, grades_text

    artifact = session.publish(tasks, found.id)
    if artifact is None:
        print("nothing was graded")
        return
    print(f"\n{grades_text.text(grades.of_run(found, store))}\n")
    print(f"grades  {artifact.path}")
    print(f"        `adapt report {found.id}` shows them")
    sys.stdout.flush()


def _num(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("it is a number of tasks, 1 to 10000")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError("it is a port, 1 to 65535")
    return int(text)


def _name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise argparse.ArgumentTypeError(f"it is a name of 1 to {MAX_NAME} letters")
    return name
