"""The commands as one cyclopts app."""

import inspect

from cyclopts import App, Group, Parameter

from selfdistill import __version__
from selfdistill.cli.compare import compare
from selfdistill.cli.demo import demo
from selfdistill.cli.detect import detect
from selfdistill.cli.evaluate import evaluate
from selfdistill.cli.export import export
from selfdistill.cli.help import TextHelp
from selfdistill.cli.methods import methods
from selfdistill.cli.options import ARGUMENTS, OPTIONS, Command, default_text
from selfdistill.cli.predict import predict
from selfdistill.cli.report import report
from selfdistill.cli.reproduce import reproduce
from selfdistill.cli.train import train

COMMANDS: dict[str, Command] = {
    command.__name__: command
    for command in (demo, compare, train, evaluate, detect, reproduce, report, predict, export, methods)
}


def _usage(command: Command) -> str:
    """Return ``selfdistill predict RUN PATHS... [OPTIONS]``."""
    words = ["selfdistill", command.__name__]
    for name, one in inspect.signature(command).parameters.items():
        if one.kind is one.VAR_POSITIONAL:
            words.append(f"{name.upper()}...")
        elif one.kind is one.POSITIONAL_ONLY:
            words.append(name.upper() if one.default is one.empty else f"[{name.upper()}]")
    return " ".join([*words, "[OPTIONS]"])


app = App(
    name="selfdistill",
    help="Train a better image classifier with the network you have: self-knowledge distillation.",
    usage="selfdistill COMMAND [OPTIONS]",
    version=__version__,
    version_flags=("--version", "-V"),
    group_commands=Group("Commands", sort_key=0),
    group_arguments=ARGUMENTS,
    group_parameters=OPTIONS,
    default_parameter=Parameter(negative="", json_list=False, show_default=default_text),
    help_format="plaintext",
    help_formatter=TextHelp(),
    result_action="return_none",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)
for _position, _command in enumerate(COMMANDS.values()):
    app.command(_command, sort_key=_position, usage=_usage(_command))
app.register_install_completion_command(help="Install completion for this shell (bash, zsh, fish).", group=OPTIONS)
for _flag, _help in (("--help", "Show this page; after a command, its options."), ("--version", "Show the version.")):
    app[_flag].group, app[_flag].help = (OPTIONS,), _help
