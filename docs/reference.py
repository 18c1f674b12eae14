"""Write what the pages repeat from the code: `python -m docs.reference`, which `make docs` runs before it builds.

Each part stands in its page between two comments that name it. A test compares them with what is written here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer.main

import sagas
from sagas import Settings
from sagas.cli.app import app
from sagas.doctor import every_finding
from sagas.settings import PREFIX

DOCS = Path(__file__).parent
REPOSITORY = DOCS.parent
#: Units that the setting's name does not end in.
UNITS = {
    "database_url": "URL",
    "database_pool_size": "connections",
    "broker_url": "URL",
    "result_backend": "URL",
    "celery_app": "name",
    "modules": "names",
    "resolver": "name",
    "callback_secret": "secrets",
    "console_password": "password",
    "console_viewer_password": "password",
    "console_secret": "secret",
    "callback_url": "URL",
    "scan_limit": "sagas",
    "max_recovery_attempts": "attempts",
}


# -- settings ---------------------------------------------------------------------------------------------------------


def settings() -> str:
    """The table of the engine's settings."""
    rows = []
    for name, setting in Settings.model_fields.items():
        unit = UNITS.get(name) or name.rpartition("_")[2]
        rows.append(f"| `{PREFIX}{name.upper()}` | {_default(setting.default)} | {unit} | {setting.description} |")
    return "\n".join(["| Variable | Default | Unit | What it is for |", "|---|---|---|---|", *rows])


def _default(value: Any) -> str:
    if value in (None, ()):
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


# -- Celery's settings ------------------------------------------------------------------------------------------------


@dataclass
class _Reason:
    """A comment and the entries of the dictionary below it."""

    why: list[str] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)


def celery_settings() -> str:
    """Celery's settings of the sagas' own application, with their comments as reasons."""
    path = REPOSITORY / "sagas" / "celery" / "configuration.py"
    return "\n\n".join(
        [
            "With any broker:",
            _reasons(path, "_COMMON"),
            "With Redis, in `broker_transport_options`:",
            _reasons(path, "_REDIS_BROKER"),
            "For results in Redis:",
            _reasons(path, "_REDIS_RESULTS"),
        ]
    )


def task_options() -> str:
    """What the tasks of sagas say for themselves, with the comments as reasons."""
    return _reasons(REPOSITORY / "sagas" / "celery" / "tasks.py", "OPTIONS")


def _reasons(path: Path, dictionary: str) -> str:
    """A table of the entries of a dictionary in a module, with the comment above each group of entries."""
    body = re.search(rf"^{dictionary}: .*? = \{{\n(.*?)^\}}", path.read_text(), re.MULTILINE | re.DOTALL)
    assert body, f"{path} has no {dictionary}"
    reasons = [_Reason()]
    for line in body[1].splitlines():
        if comment := re.match(r"\s*# (.*)", line):
            if reasons[-1].entries:
                reasons.append(_Reason())
            reasons[-1].why.append(comment[1])
        elif entry := re.match(r'\s*"(\w+)": (.*),$', line):
            reasons[-1].entries.append(f"`{entry[1]} = {entry[2]}`")
    rows = [f"| {'<br>'.join(reason.entries)} | {' '.join(reason.why)} |" for reason in reasons]
    return "\n".join(["| Setting | Why |", "|---|---|", *rows])


# -- findings ---------------------------------------------------------------------------------------------------------


def findings() -> str:
    """Everything that the doctor can find."""
    rows = [
        f"| `{finding.id}` | {finding.severity} | {finding.what} | {finding.why} | {finding.cure} |"
        for finding in every_finding()
    ]
    return "\n".join(["| finding | is a | what is wrong | why it matters | cure |", "|---|---|---|---|---|", *rows])


# -- commands ---------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Each command of `sagas`: its usage, what it says of itself, its arguments and options."""
    root = typer.main.get_command(app)
    return "\n\n".join(_command(context) for context in _contexts(typer.Context(root, info_name="sagas")))


def _contexts(parent: typer.Context) -> Iterator[typer.Context]:
    for name, command in sorted(parent.command.commands.items()):  # type: ignore[attr-defined]
        context = typer.Context(command, info_name=name, parent=parent)
        if not command.hidden:
            yield from _contexts(context) if hasattr(command, "commands") else [context]


def _command(context: typer.Context) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    records = [parameter.get_help_record(context) for parameter in command.params]
    parts = [f"## {context.command_path}", f"`{usage}`", _paragraphs(command.help or "")]
    if rows := [f"| `{_cell(name)}` | {_told(told)} |" for name, told in filter(None, records)]:
        parts.append("\n".join(["| Argument or option | What it is for |", "|---|---|", *rows]))
    parts.append(_paragraphs(command.epilog or ""))
    return "\n\n".join(part for part in parts if part)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _told(text: str) -> str:
    return _cell(text).replace("[", "\\[")  # a pair of brackets may be taken for a link


def _paragraphs(text: str) -> str:
    """Help as it is written, without the terminal's marks."""
    paragraphs = re.split(r"\n\s*\n", text.replace("\b", "").replace("\f", "").strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


# -- the README -------------------------------------------------------------------------------------------------------


def one_saga() -> str:
    """The README's section of that name, up to where it leads to other pages."""
    text = (REPOSITORY / "README.md").read_text()
    section = re.search(r"^## One saga\n(.*?)^`install\(app\)`", text, re.MULTILINE | re.DOTALL)
    if section is None:
        raise SystemExit("README.md has no section 'One saga', which the quickstart repeats: mend either.")
    # Headings are one level up, and links are as from docs/.
    return section[1].replace("\n### ", "\n## ").replace("](docs/", "](").strip()


# -- the API ----------------------------------------------------------------------------------------------------------


def names() -> str:
    """The public names, each with the first sentence of its docstring."""
    rows = []
    for name in sorted(sagas.__all__):
        told = inspect.cleandoc(getattr(sagas, name).__doc__ or "").partition("\n\n")[0]
        rows.append(f"| `{name}` | {_cell(told)} |")
    return "\n".join(["| Name | What it is |", "|---|---|", *rows])


#: The page, the name of the part in its comments, and what writes it.
PARTS: list[tuple[Path, str, Callable[[], str]]] = [
    (DOCS / "settings.md", "settings", settings),
    (DOCS / "settings.md", "celery", celery_settings),
    (DOCS / "celery.md", "task options", task_options),
    (DOCS / "doctor.md", "findings", findings),
    (DOCS / "commands.md", "commands", commands),
    (DOCS / "api.md", "names", names),
    (DOCS / "quickstart.md", "one saga", one_saga),
]


def replaced(page: str, name: str, part: str) -> str:
    """Return the page with this part in its place.

    Raises:
        SystemExit: the page has no such place.
    """
    opening, closing = f"<!-- {name}: written by docs/reference.py -->\n", f"<!-- end of {name} -->"
    if closing not in page.partition(opening)[2]:
        raise SystemExit(f"a page lacks its comments {opening.strip()} and {closing.strip()}: put them back.")
    before, _, rest = page.partition(opening)
    return f"{before}{opening}\n{part}\n\n{closing}{rest.partition(closing)[2]}"


def main() -> None:
    """Bring every part up to date."""
    for path, name, write in PARTS:
        path.write_text(replaced(path.read_text(), name, write()))


if __name__ == "__main__":
    main()
