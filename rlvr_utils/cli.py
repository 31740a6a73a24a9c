"""The command line ``rlvr``: profile, doctor, course, train, evaluate and export."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Sequence

from rlvr_utils import __version__
from rlvr_utils.course import CourseError, run_course
from rlvr_utils.profiles import PROFILES, Profile, get_profile, read_config
from rlvr_utils.system.paths import current_directory_last

EVALUATION = ("split", "shots", "decoding", "n_samples", "eval_batch")
WORDS = {"true": True, "false": False, "null": None}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand. Return 0, or 1 after printing an error to stderr."""
    arguments = command_line().parse_args(argv)
    current_directory_last()
    try:
        return arguments.run(arguments) or 0
    except (ValueError, OSError, CourseError) as error:
        print(f"rlvr {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nrlvr {arguments.command}: stopped. Run the same command again to continue.", file=sys.stderr)
        return 130


def command_line() -> argparse.ArgumentParser:
    """Build the argument parser with all subcommands."""
    top = argparse.ArgumentParser(
        "rlvr",
        description="Train and evaluate language models with verifiable rewards (RLVR), on a laptop or a GPU.",
        epilog="Start with `rlvr doctor`. `rlvr COMMAND --help` shows the options of a command.",
    )
    top.add_argument("--version", action="version", version=f"rlvr {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    profile_ = _add(
        commands, "profile", do_profile, "print a profile's configuration as YAML, with a comment per hyperparameter"
    )
    doctor_ = _add(commands, "doctor", do_doctor, "check whether a profile can run on this machine")
    course_ = _add(commands, "course", do_course, "run all notebooks in order and write a report")
    train_ = _add(commands, "train", do_train, "train with GRPO (run the same command again to resume)")
    evaluate_ = _add(commands, "evaluate", do_evaluate, "sample responses from a trained model and score them")

    export_ = _add(commands, "export", do_export, "merge the adapter of a run and save an ordinary model")

    profile_.add_argument("profile", nargs="?", metavar="NAME", help=f"{', '.join(PROFILES)} (default: mini)")
    for command in (doctor_, course_, train_):
        command.add_argument("--profile", help=f"{', '.join(PROFILES)} (default: mini)")
    for command in (profile_, doctor_, course_, train_):
        command.add_argument(
            "--config", metavar="FILE.yaml", help="a configuration file, as printed by `rlvr profile` (--set has priority)"
        )
    for command in (doctor_, course_, train_):
        command.add_argument("--seed", type=int, help="random seed (default: 0)")
    for command in (doctor_, course_, train_):
        command.add_argument("--output-dir", metavar="FOLDER", help="folder for the results")
    for command in (profile_, doctor_, course_, train_, evaluate_):
        command.add_argument(
            "--set",
            metavar="KEY=VALUE",
            type=setting,
            action="append",
            default=[],
            dest="settings",
            help="override one hyperparameter (repeatable)",
        )
    for command in (doctor_, train_):
        command.add_argument("--extend", action="store_true", help="continue an existing run up to a larger max_steps")
    doctor_.add_argument(
        "--trainability",
        action="store_true",
        help="sample the base model on training problems and report whether there is a learning signal",
    )
    doctor_.add_argument(
        "--timing", action="store_true", help="time three real steps and estimate the hours of the whole run"
    )
    doctor_.add_argument(
        "--dollars-per-hour", type=float, metavar="X", help="price of the machine: implies --timing and adds the cost"
    )
    evaluate_.epilog = f"--set accepts: {', '.join(EVALUATION)}."
    evaluate_.add_argument("path", metavar="RUN", help="folder of the run, such as runs/mini-seed0")
    export_.add_argument("path", metavar="RUN", help="folder of the run, such as runs/llama-8b-seed0")
    export_.add_argument("folder", metavar="FOLDER", help="new folder for the model (as large as the base model)")
    return top


def _add(commands, name: str, run, about: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=about, description=about)
    command.set_defaults(run=run)
    return command


def setting(text: str) -> tuple[str, object]:
    """Parse ``key=value``. The value is a Python literal or else a string, and is never evaluated."""
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE. Write it like max_steps=50")
    if value.lower() in WORDS:
        return key, WORDS[value.lower()]
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def profile_and_settings(arguments: argparse.Namespace) -> tuple[str, dict]:
    """Return the profile's name and the overrides: from the file, then --seed, then each --set."""
    seed = getattr(arguments, "seed", None)
    settings = read_config(arguments.config) if arguments.config else {}
    settings |= ({} if seed is None else {"seed": seed}) | dict(arguments.settings)
    named = settings.pop("profile", None)
    asked = getattr(arguments, "profile", None)
    if asked and named and asked != named:
        raise ValueError(f"--profile is {asked}, but {arguments.config} has profile {named}. Remove one of them.")
    return asked or named or "mini", settings


def do_profile(arguments: argparse.Namespace) -> None:
    name, settings = profile_and_settings(arguments)
    print(get_profile(name, **settings).to_yaml(), end="")


def do_course(arguments: argparse.Namespace) -> None:
    name, settings = profile_and_settings(arguments)
    where = {"output_dir": arguments.output_dir} if arguments.output_dir else {}
    run_course(name, parameters=settings, **where)


def do_train(arguments: argparse.Namespace) -> None:
    from rlvr_utils.training import train

    name, settings = profile_and_settings(arguments)
    run = train(name, arguments.output_dir, **{"extend": True} if arguments.extend else {}, **settings)
    print(f"The run is in {run.path}.")


def do_evaluate(arguments: argparse.Namespace) -> None:
    from rlvr_utils.training import evaluate_run

    settings = dict(arguments.settings)
    for name in settings:
        if name not in EVALUATION:
            raise ValueError(f"An evaluation has no setting {name!r}. Choose from {', '.join(EVALUATION)}.")
    evaluate_run(arguments.path, **settings)


def do_export(arguments: argparse.Namespace) -> None:
    from rlvr_utils.training import export_run

    print(f"The model is in {export_run(arguments.path, arguments.folder)}.")


def do_doctor(arguments: argparse.Namespace) -> int:
    name, settings = profile_and_settings(arguments)
    p = get_profile(name, **settings)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # an unreachable hub is reported by a check below
    from rlvr_utils.preflight import checkup, machine_table

    for what, value in machine_table():
        print(f"{what:<14}{value}", flush=True)
    print(f"\nProfile {name}:")
    checks = checkup(p, folder=arguments.output_dir or p.folder, extend=arguments.extend)
    for check in checks:
        print(check)
    ready = all(check.ok for check in checks)
    if ready:
        ready = sample_and_time(arguments, p)
    elif arguments.trainability or arguments.timing:
        print("Nothing was sampled or timed. Fix the checks marked !! first.")
    print(f"\nProfile {name} is {'ready' if ready else 'not ready'}.")
    return int(not ready)


def sample_and_time(arguments: argparse.Namespace, p: Profile) -> bool:
    """Run the checks that load the model: sample responses and time three steps."""
    from rlvr_utils.preflight import time_steps, trainability

    found = trainability(p) if arguments.trainability else None
    if found:
        print(found, flush=True)
    if arguments.timing or arguments.dollars_per_hour is not None:
        print(time_steps(p, dollars_per_hour=arguments.dollars_per_hour))
    return found is None or found.trainable
