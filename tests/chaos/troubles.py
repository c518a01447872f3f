"""What can happen to a run. Each takes a round, makes it happen for real and notes what it did."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from engine.diagnostics import ExitCode
from tests.chaos import clock, damage, disk, miniature, processes, rounds
from tests.chaos.clock import Clock
from tests.chaos.rounds import Moment, Round

GONE_S = 10.0  # after the engine was killed, nothing of the run may live longer
DAY_S = 86400
ALL = tuple(damage.PLACES)
DONE = ("artifact", "manifest", "realised", "digests", "events", "run", "user cache")


def kill(round_: Round) -> None:
    """Kill one process of the run: the engine, a worker, or what a worker started."""
    run, moment, in_time = _start_and_wait(round_)
    found = processes.marked(round_.mark)
    if not in_time or not found:
        round_.done.append(f"nothing to kill {moment}")
        round_.end(run)
        return
    engine = next((process for process in found if process.pid == run.pid), found[0])
    others = [process for process in found if process is not engine]
    victim = round_.rng.choice(others) if others and round_.rng.random() < 0.6 else engine
    victim.kill()
    round_.done.append(f"killed {victim.name()} {moment}")
    round_.end(run, [-signal.SIGKILL])
    _nothing_may_live(round_)


def power_cut(round_: Round) -> None:
    """Kill every process of the run at once."""
    run, moment, _ = _start_and_wait(round_)
    found = processes.marked(round_.mark)
    for process in found:
        process.kill()
    round_.done.append(f"killed all {len(found)} processes {moment}")
    round_.end(run, [-signal.SIGKILL])
    _nothing_may_live(round_)


def stop(round_: Round) -> None:
    """Ask the run to stop, as a scheduler or a person would."""
    number, code = round_.rng.choice([(signal.SIGTERM, 75), (signal.SIGINT, 130)])
    run, moment, in_time = _start_and_wait(round_)
    run.send_signal(number)
    start = time.monotonic()
    # Before Python has set its handlers the signal just ends it, which costs nothing.
    round_.end(run, [code, -number])
    took_s = time.monotonic() - start
    if in_time and took_s > 10:
        round_.problem(f"{number.name} took {took_s:.1f} s")
    round_.done.append(f"{number.name} {moment}")
    _nothing_may_live(round_)


def flip(round_: Round) -> None:
    """Damage files of the store while nothing runs, then look for damage."""
    round_.rng.choice([kill, power_cut, stop])(round_)
    damaged = set()
    for _ in range(round_.rng.choice([1, 1, 2, 4])):
        damaged.add(_damage_one(round_, ALL, is_silent=round_.rng.random() < 0.5))
    keys = {key for key in damaged if key}
    code = _verify(round_, keys)
    expected = ExitCode.GATE_SAID_NO if keys else ExitCode.DONE
    if code != expected:
        round_.problem(f"verify ended with {code}, not {expected}")


def write_over(round_: Round) -> None:
    """Change a file of the store while a run goes on, as a wrong program would.

    What is still being made is left alone: nobody can know yet what should be in it.
    """
    run, moment, _ = _start_and_wait(round_)
    round_.done.append(str(moment))
    key = _damage_one(round_, DONE, is_silent=False)
    round_.end(run)
    code = _verify(round_, set())
    round_.done.append(f"verify: {code}, damaged {key and key[:8]}")


def full_disk(round_: Round) -> None:
    """Let the disk be full at some moment of the run: of bytes, or of files."""
    small, rng = round_.disk, round_.rng
    assert small is not None
    if rng.random() < 0.75:
        # Some 100 kB are for plan, events and logs; the rest is of the artifacts.
        room = rng.choice([rng.randrange(1 << 17), int(rng.random() * round_.missing_bytes())])
        small.resize(small.used_bytes() + room)
        what = f"{room} bytes"
    else:
        room = rng.randrange(60)
        small.limit_files(room)
        what = f"{room} files"
    code = round_.end(round_.start())
    round_.done.append(f"room for {what}: exit {code}")
    told = round_.told()
    is_said = "No space left on device" in told or "or more are to be written" in told
    if code and not (is_said and "--store" in told):
        round_.problem(f"run {round_.num_runs} on a full disk does not say so")
    small.limit_files(disk.MANY_FILES)
    small.resize(small.used_bytes() + (1 << 30))


def clock_jump(round_: Round) -> None:
    """Let the time of day jump in the middle of a run, and kill it there or let it end."""
    watch = Clock(round_.folder / "clock")
    round_.more |= watch.environment()
    watch.shift(_some_time(round_))
    run, moment, _ = _start_and_wait(round_)
    watch.shift(seconds := _some_time(round_))
    round_.done.append(f"clock {seconds:+d} s {moment}")
    if round_.rng.random() < 0.5:
        run.kill()
        round_.done.append("killed")
    round_.end(run, [-signal.SIGKILL])
    watch.tidy(run.pid)
    watch.shift(_some_time(round_))


def two_runs(round_: Round) -> None:
    """Start the same command twice, and perhaps kill one of the two."""
    first, second = round_.start(), round_.start()
    if round_.rng.random() < 0.5:
        moment = rounds.choose_moment(round_.rng, round_.seconds_left())
        rounds.wait_for(moment, round_.store.root, first)
        first.kill()
        round_.done.append(f"two at once, one killed {moment}")
    else:
        round_.done.append("two at once")
    for run in (first, second):
        round_.end(run, [-signal.SIGKILL])


def _some_time(round_: Round) -> int:
    return round_.rng.choice([-DAY_S, DAY_S, -400 * DAY_S, 3600, -3600, 30, 0])


def _damage_one(round_: Round, places: Sequence[str], *, is_silent: bool) -> str | None:
    """Damage a file; return the key of the artifact that it belongs to, if it does."""
    rng = round_.rng
    place = rng.choice([place for place in places if damage.files(round_.folder, place)])
    path = rng.choice(damage.files(round_.folder, place))
    try:
        text = damage.do(path, rng.choice(list(damage.HOW)), rng, is_silent=is_silent)
    except FileNotFoundError:  # the run that goes on has just removed it
        return None
    name = path.relative_to(round_.folder)
    shown = re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1", str(name))
    round_.done.append(f"{shown}: {text}")
    if name.parts[:2] != ("store", "artifacts"):
        return None
    round_.excuse(name.parts[3])
    return name.parts[3]


def _verify(round_: Round, damaged: set[str]) -> int:
    """Look for damage, as a person who has doubts would; return the exit code.

    Every damaged artifact must be named.
    """
    done = subprocess.run(
        [*miniature.adapt(), "store", "verify", "--store", str(round_.store.root)],
        cwd=round_.folder,
        env=miniature.environment(round_.folder, round_.mark),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == ExitCode.ENGINE_BUG:
        round_.problem(f"verify failed: {done.stderr[-300:]}")
    for key in sorted(damaged):
        if key[:12] not in done.stdout:
            round_.problem(f"verify does not name {key[:12]}")
    return done.returncode


def _start_and_wait(round_: Round) -> tuple[subprocess.Popen[bytes], Moment, bool]:
    moment = rounds.choose_moment(round_.rng, round_.seconds_left())
    run = round_.start()
    return run, moment, rounds.wait_for(moment, round_.store.root, run)


def _nothing_may_live(round_: Round) -> None:
    left = processes.wait_until_gone(round_.mark, GONE_S)
    if left:
        round_.problem(f"still alive: {', '.join(process.name() for process in left)}")
        for process in left:
            process.kill()


TROUBLES: dict[str, tuple[int, Callable[[Round], None]]] = {  # name -> weight, what happens
    "kill": (6, kill),
    "power-cut": (4, power_cut),
    "stop": (3, stop),
    "flip": (5, flip),
    "write": (2, write_over),
    "full-disk": (4, full_disk),
    "clock": (3, clock_jump),
    "two-runs": (2, two_runs),
}


def impossible() -> dict[str, str]:
    """Return the troubles that cannot be made here, each with the reason."""
    found = {}
    if not disk.can_mount():
        found["full-disk"] = "no right to mount"
    if clock.library() is None:
        found["clock"] = "libfaketime is not installed (`pip install libfaketime`)"
    return found
