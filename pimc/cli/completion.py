"""``pimc completion``: scripts by which shells complete commands and options, made from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pimc.cli import console


@dataclass(frozen=True)
class Option:
    """An option of a command: its names, what it does, whether a value follows, and the values it may have."""

    names: tuple[str, ...]
    summary: str
    takes_value: bool
    choices: tuple[str, ...] = ()


def execute(arguments: argparse.Namespace) -> None:
    """Print the script for a shell."""
    console.write(SHELLS[arguments.shell](commands()))


def commands() -> dict[str, tuple[str, list[Option]]]:
    """Every command with its summary, its options, and (nameless) the values that its arguments may have."""
    from pimc.cli.parser import COMMANDS, build_parser
    from pimc.targets import list_targets

    values = {"--target": tuple(list_targets())}
    _, parsers = build_parser()
    return {
        name: (COMMANDS[name][0], [_option(action, values) for action in parsers[name].options_and_arguments()])
        for name in COMMANDS
    }


def _option(action: argparse.Action, values: Mapping[str, tuple[str, ...]]) -> Option:
    names = tuple(action.option_strings)
    known = next((values[name] for name in names if name in values), ())
    choices = tuple(str(choice) for choice in action.choices or known)
    summary = " ".join((action.help or "").replace("%%", "%").split())
    return Option(names, summary, action.nargs != 0, choices)


def _bash(known: Mapping[str, tuple[str, list[Option]]]) -> str:
    return "".join(f"{line}\n" for line in _bash_lines(known))


def _bash_lines(known: Mapping[str, tuple[str, list[Option]]]) -> Iterator[str]:
    yield "# bash completion of pimc: source <(pimc completion bash)"
    yield "_pimc() {"
    yield '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"'
    yield '    local command="" word words=""'
    yield '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield '        if [[ $word != -* ]]; then command="$word"; break; fi'
    yield "    done"
    yield "    COMPREPLY=()"
    yield '    case "$command $previous" in'
    for name, (_, options) in known.items():
        for option in options:
            for text in option.names if option.choices else ():
                values = " ".join(option.choices)
                yield f'        "{name} {text}") COMPREPLY=($(compgen -W "{values}" -- "$current")); return ;;'
    yield "    esac"
    yield '    case "$command" in'
    yield f'        "") words="{" ".join(known)} --help --version --debug" ;;'
    for name, (_, options) in known.items():
        positional = [choice for option in options if not option.names for choice in option.choices]
        flags = [text for option in options for text in option.names]
        yield f'        {name}) words="{" ".join(positional)}"; [[ $current == -* ]] && words="{" ".join(flags)}" ;;'
    yield "    esac"
    yield '    if [[ -n $words ]]; then COMPREPLY=($(compgen -W "$words" -- "$current")); fi'
    yield "}"
    yield "complete -o default -F _pimc pimc  # files where nothing else fits"


def _zsh(known: Mapping[str, tuple[str, list[Option]]]) -> str:
    lines = [
        "#compdef pimc",
        "# zsh completion of pimc: source <(pimc completion zsh)",
        "_pimc() {",
        "    local -a commands",
    ]
    lines.append("    commands=(")
    lines += [f"        {_single(f'{name}:{_zsh_text(summary)}')}" for name, (summary, _) in known.items()]
    lines += [
        "    )",
        "    if (( CURRENT == 2 )); then _describe command commands; return; fi",
        '    case "$words[2]" in',
    ]
    for name, (_, options) in known.items():
        specs = [_single(spec) for option in options for spec in _zsh_specs(option)]
        lines.append(f"        {name}) shift words; (( CURRENT-- )); _arguments {' '.join(specs)} ;;")
    lines += ["    esac", "}", "compdef _pimc pimc"]
    return "".join(f"{line}\n" for line in lines)


def _zsh_specs(option: Option) -> Iterator[str]:
    action = f"({' '.join(option.choices)})" if option.choices else "_files"
    if not option.names:
        yield f"*:value:{action}"
    for text in option.names:
        yield f"*{text}[{_zsh_text(option.summary)}]{f':value:{action}' if option.takes_value else ''}"


def _zsh_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def _fish(known: Mapping[str, tuple[str, list[Option]]]) -> str:
    lines = ["# fish completion of pimc: pimc completion fish | source"]
    for name, (summary, options) in known.items():
        lines.append(f"complete -c pimc -n __fish_use_subcommand -f -a {name} -d {_single(summary)}")
        here = f"complete -c pimc -n {_single(f'__fish_seen_subcommand_from {name}')}"
        for option in options:
            values = (
                f" -x -a {_single(' '.join(option.choices))}" if option.choices else " -r" if option.takes_value else ""
            )
            if not option.names:
                lines += [f"{here}{values.replace(' -x', ' -f')}"] if option.choices else []
                continue
            flags = " ".join(f"-l {text[2:]}" if text.startswith("--") else f"-s {text[1:]}" for text in option.names)
            lines.append(f"{here} {flags}{values} -d {_single(option.summary)}")
    return "".join(f"{line}\n" for line in lines)


def _single(text: str) -> str:
    """``text`` in single quotes, as all three shells read it."""
    return "'" + text.replace("'", "'\\''") + "'"


SHELLS: Mapping[str, Callable[[Mapping[str, tuple[str, list[Option]]]], str]] = MappingProxyType(
    {"bash": _bash, "zsh": _zsh, "fish": _fish}
)
