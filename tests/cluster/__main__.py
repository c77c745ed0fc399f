"""python -m tests.cluster: the contract suite, the main job, and its failures by real means; a table of what was seen.

With --kubeconfig on that cluster, in namespaces that are made and removed: NAMESPACE has the trainings,
NAMESPACE-system the dispatcher with the production overlay, Azurite and a portal, NAMESPACE-contracts the contract
suite. Without it on a stand-in cluster of this machine, as far as that goes. What the target cannot do is skipped, and
the table says why.

Exit code: 0 all as expected, 1 something else was seen, 2 it could not begin or go on, 3 something is left behind,
130 interrupted.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local_stack.azurite import AzuriteMissing
from local_stack.processes import ServiceFailed, interrupted_once
from tests.cluster.installed import Installed, Occupied, clean
from tests.cluster.kubectl import CommandFailed, Kubectl
from tests.cluster.scenarios import SCENARIOS, Scenario, configuration
from tests.cluster.stand_in import StandIn
from tests.cluster.trial import Ground, Trial, Unexpected
from tests.world.repository import ROOT

FOLDER = ROOT / ".local" / "cluster-test"
EXIT_OK, EXIT_UNEXPECTED, EXIT_NOT_BEGUN, EXIT_LEFT, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
_MARKS = {True: "ok", False: "NOT OK", None: "skipped"}


@dataclass(frozen=True)
class Row:
    """What became of one scenario. ok: None where it was skipped."""

    name: str
    expected: str
    seen: str
    seconds: float
    ok: bool | None

    def __str__(self) -> str:
        first = (self.seen.splitlines() or [""])[0].replace("|", "\\|")
        shown = first if len(first) <= 160 else f"{first[:159]}…"
        return f"| {self.name} | {self.expected} | {shown} | {self.seconds:.0f} | {_MARKS[self.ok]} |"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parsed(arguments)
    chosen = [s for s in SCENARIOS if not options.only or s.name in options.only]
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    rows: list[Row] = []
    code = EXIT_OK
    with interrupted_once():
        try:
            if options.clean:
                return _left(clean(Kubectl(options.kubeconfig, options.folder), options.namespace))
            ground = _ground(options)
            try:
                _try_all(ground, chosen, options.patience, rows)
            finally:
                ground.keep_logs()
                code = _left(ground.stop())
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            code = code or EXIT_INTERRUPTED
        except (Occupied, CommandFailed, ServiceFailed, AzuriteMissing) as error:
            print(f"error: {error}", file=sys.stderr)
            code = code or EXIT_NOT_BEGUN
    if rows:
        _show(rows, options.folder)
    return code or (EXIT_UNEXPECTED if any(row.ok is False for row in rows) else EXIT_OK)


def _try_all(ground: Ground, scenarios: list[Scenario], patience: float, rows: list[Row]) -> None:
    """Add a row for each; under Kueue those that are for it once more."""
    ground.start()
    trial = Trial(ground, secrets.token_hex(2), patience)
    try:
        trial.prepare()
        for kueue in (False, True):
            chosen = [s for s in scenarios if (s.kueue or s.needs == "kueue" if kueue else s.needs != "kueue")]
            for row in _tried(trial, chosen, kueue=kueue):
                rows.append(row)
    finally:
        trial.close()


def _tried(trial: Trial, scenarios: list[Scenario], *, kueue: bool) -> Iterator[Row]:
    configured = None
    for scenario in scenarios:
        name = f"{scenario.name}, under Kueue" if kueue else scenario.name
        missing = ("kueue",) if kueue else (scenario.needs,)
        if why := next((trial.ground.cannot[need] for need in missing if need in trial.ground.cannot), ""):
            yield Row(name, scenario.expected, why, 0.0, None)
            continue
        if scenario.needs != "contracts" and (settings := configuration(trial.ground, scenario)) != configured:
            trial.ground.configure(*settings, kueue=kueue)
            configured = settings
        print(f"{time.strftime('%H:%M:%S')} {name} ...", flush=True)
        began = time.monotonic()
        try:
            seen, ok = scenario.run(trial), True
        # Whatever it is, the next one may go well: a connection that broke, or an answer that nobody foresaw.
        except Exception as why:
            name_of_it = "" if isinstance(why, Unexpected | CommandFailed) else f"{type(why).__name__}: "
            seen, ok = f"{name_of_it}{why}", False
            print(f"not as expected: {seen}\n{_explained(trial)}", file=sys.stderr, flush=True)
        yield Row(name, scenario.expected, seen, time.monotonic() - began, ok)


def _explained(trial: Trial) -> str:
    """What the dispatcher says of the newest model."""
    return trial.ground.command("explain", trial.models[-1])[1] if trial.models else ""


def _ground(options: argparse.Namespace) -> Ground:
    if options.kubeconfig is None:
        return StandIn(options.folder)
    return Installed(
        options.kubeconfig,
        options.namespace,
        options.dispatcher_image,
        options.trainer_image,
        options.folder,
        gpus=options.gpus,
        drain=options.drain,
        portal=options.portal,
        portal_key=options.portal_key,
        storage=options.storage,
        azurite_image=options.azurite_image,
        pull_secret=options.pull_secret,
    )


def _left(names: list[str]) -> int:
    if not names:
        return EXIT_OK
    print(f"error: still there: {', '.join(names)}; ARGS=--clean tries once more", file=sys.stderr)
    return EXIT_LEFT


def _show(rows: list[Row], folder: Path) -> None:
    """The table, also as a file."""
    head = "| scenario | expected | what was seen | seconds | |\n|---|---|---|---:|---|"
    table = "\n".join([head, *map(str, rows)])
    (folder / "table.md").write_text(f"{table}\n")
    print(f"\n{table}\n")
    counted = {mark: len([row for row in rows if row.ok is ok]) for ok, mark in _MARKS.items()}
    print(f"{', '.join(f'{count} {mark}' for mark, count in counted.items())}; logs: {folder}")


def _path(text: str) -> Path:
    """Whatever a child's working folder is."""
    return Path(text).absolute()


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make cluster-test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kubeconfig", type=_path, help="of the cluster; without: the stand-in")
    parser.add_argument("--namespace", help="that does not exist yet; needed with --kubeconfig")
    parser.add_argument("--dispatcher-image", default="training-dispatcher/dispatcher:local")
    parser.add_argument("--trainer-image", default="training-dispatcher/trainer:local")
    parser.add_argument("--gpus", type=int, default=0, help="1: with production's Job template, which asks for one")
    parser.add_argument("--drain", action="store_true", help="also drain a node of one training, and give it back")
    parser.add_argument("--portal", default="", metavar="URL", help="of `python -m tests.cluster.portal`; else a pod")
    parser.add_argument("--portal-key", default="cluster-test", metavar="KEY", help="its API_KEY (cluster-test)")
    text = "connection string of an account, which keeps nothing; else Azurite is a pod"
    parser.add_argument("--storage", default="", metavar="CONNECTION", help=text)
    parser.add_argument("--azurite-image", default="", metavar="IMAGE", help="another than that of overlays/local")
    parser.add_argument("--pull-secret", default="", metavar="NAMESPACE/NAME", help="the registry's login to copy")
    text = "seconds to wait for one thing, the first pull of an image included (600)"
    parser.add_argument("--patience", type=float, default=600, help=text)
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser.add_argument("--only", action="append", metavar="SCENARIO", help=f"one of: {names}")
    parser.add_argument("--clean", action="store_true", help="only remove what an earlier run has left")
    parser.add_argument("--folder", type=_path, default=FOLDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.only or ()) - {scenario.name for scenario in SCENARIOS}:
        parser.error(f"there is no scenario {unknown.pop()!r}; there are: {names}")
    if options.clean and options.kubeconfig is None:
        parser.error("--clean is for a cluster: name it with KUBECONFIG=...")
    if options.kubeconfig is not None:
        # KUBECONFIG may be that of the caller's shell: nobody is to find his cluster used by accident.
        if not options.namespace:
            parser.error("KUBECONFIG is set, NAMESPACE is not: name one to make; without KUBECONFIG it is the stand-in")
        if not options.kubeconfig.is_file():
            parser.error(f"there is no kubeconfig {options.kubeconfig}")
        if "/" not in options.trainer_image:
            parser.error(f"{options.trainer_image}: the admission policy takes images with a slash in their name alone")
        if shutil.which("kubectl") is None:
            parser.error("kubectl is needed, and is not installed")
    return options


if __name__ == "__main__":
    sys.exit(main())
