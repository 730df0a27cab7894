"""The program `fedui`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from fedui.supervisor.children import StartFailed
from fedui.supervisor.demo import DemoOptions, run_demo
from fedui.supervisor.folders import claimed
from fedui.supervisor.stack import BASE_DIR, Stack

EXIT_CANNOT_START = 2
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    for number in ENDING:
        under_nohup = number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
        if not under_nohup:
            signal.signal(number, _interrupt)
    options = _parser().parse_args()
    try:
        code = options.act(options)
    except StartFailed as error:
        print(f"fedui: {error}", file=sys.stderr)
        code = EXIT_CANNOT_START
    except KeyboardInterrupt:
        code = 0
    sys.exit(code)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Whatever asks this process to end, its children end first. An impatient second Ctrl-C must not keep it from that."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fedui", description="Run a FedUI server on this machine.")
    commands = parser.add_subparsers(required=True, metavar="command")
    up = commands.add_parser("up", help="web, worker and beat, with an embedded Redis unless REDIS_URL is set")
    _add_common(up, os.environ.get("FEDUI_DATA_DIR") or BASE_DIR / "var")
    up.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    up.set_defaults(act=_up)
    demo = commands.add_parser("demo", help="a server and five agents that train on real data")
    _add_common(demo, BASE_DIR / "var" / "demo")
    demo.add_argument("--rounds", type=_positive, default=20, help="rounds of the run (default: %(default)s)")
    demo.add_argument("--no-browser", action="store_true", help="don't open a browser")
    demo.add_argument("--exit", action="store_true", help="end with the run; succeed only if the model is good")
    demo.add_argument("--torch", action="store_true", help="two of the agents train in PyTorch")
    demo.set_defaults(act=_demo)
    return parser


def _add_common(parser: argparse.ArgumentParser, data_dir: str | Path) -> None:
    parser.add_argument("--port", type=_port, default=8000, help="of the web server; 0 for any (default: %(default)s)")
    parser.add_argument("--grpc-port", type=_port, help="for agents; 0 for any (default: FEDUI_GRPC_BIND's, or 50051)")
    parser.add_argument("--data-dir", type=Path, default=Path(data_dir), help="default: %(default)s")


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _up(options: argparse.Namespace) -> int:
    data_dir = options.data_dir.resolve()
    with (
        claimed(data_dir),
        Stack(data_dir, host=options.host, port=options.port, grpc_port=options.grpc_port) as stack,
    ):
        _say(f"FedUI runs at {stack.url}; agents connect to port {stack.grpc_port}. Logs: {data_dir / 'log'}")
        _say("The first user: manage.py createsuperuser, with the same FEDUI_DATA_DIR. Ctrl-C ends all.")
        stack.keep_alive(_say)
    return 0


def _demo(options: argparse.Namespace) -> int:
    if options.torch and importlib.util.find_spec("torch") is None:
        raise StartFailed("PyTorch is not installed here. Use: make demo TORCH=1")
    return run_demo(
        DemoOptions(
            data_dir=options.data_dir.resolve(),
            port=options.port,
            grpc_port=options.grpc_port,
            rounds=options.rounds,
            browser=not options.no_browser,
            exit=options.exit,
            torch=options.torch,
        ),
        _say,
    )


if __name__ == "__main__":
    main()
