"""
Reading YAML that people write: taken apart node by node, so that whatever is wrong is refused with its line.
"""

from __future__ import annotations

import difflib
import re
import warnings

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn

from celery_obs.exceptions import ConfigurationError, MissingExtraError


__all__ = ["Reader", "compose", "did_you_mean"]


class Reader:
    """
    Takes YAML's nodes apart, and refuses with the line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def refuse(self, node: Any, problem: str) -> NoReturn:
        """
        Say what is wrong at *node*.
        """
        message = f"{self._path}, line {node.start_mark.line + 1}: {problem}"
        raise ConfigurationError(message)

    def checked(self, node: Any, make: Callable[[], Any]) -> Any:
        """
        Return what *make* makes of *node*; what it refuses is refused with the line.
        """
        try:
            return make()
        except (ConfigurationError, ValueError) as error:
            message = f"{self._path}, line {node.start_mark.line + 1}: {error}"
        raise ConfigurationError(message)

    def mapping(
        self, node: Any, keys: tuple[str, ...], *, needed: tuple[str, ...] = (), renamed: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """
        Return what stands under each of *keys*, of which those *needed* have to be there and no other may.

        Args:
            renamed: Deprecated keys, each with the one of *keys* that it is now; reading one warns.
        """
        found = {}
        for key, value in self.pairs(node):
            name = self._current(key, renamed or {})
            if name in found:
                self.refuse(key, f"The key {name} is there twice, once under its old name. Remove one of them.")
            if name not in keys:
                self.refuse(key, f"There is no key {name!r} here. Expected {', '.join(keys)}.{did_you_mean(name, keys)}")
            found[name] = value
        for name in needed:
            if name not in found:
                self.refuse(node, f"The key {name} is missing. Expected {', '.join(needed)}.")
        return found

    def _current(self, key: Any, renamed: Mapping[str, str]) -> str:
        name = self.text(key)
        if name not in renamed:
            return name
        message = f"{self._path}, line {key.start_mark.line + 1}: The key {name} is deprecated. Write {renamed[name]} instead."
        # Of those that are for users of a command, who do not see a DeprecationWarning.
        warnings.warn(message, FutureWarning, stacklevel=2)
        return renamed[name]

    def pairs(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """
        Go through the keys and values of a mapping.
        """
        if getattr(node, "id", None) != "mapping":
            self.refuse(node, "Expected keys and values here.")
        seen = set()
        for key, value in node.value:
            name = self.text(key)
            if name in seen:
                self.refuse(key, f"The key {name} is there twice. Remove one of them.")
            seen.add(name)
            yield key, value

    def sequence(self, node: Any) -> list[Any]:
        """
        Return the items of a list.
        """
        if node.id != "sequence":
            self.refuse(node, "Expected a list here.")
        return list(node.value)

    def text(self, node: Any) -> str:
        """
        Return a text, whatever YAML takes it for.
        """
        if node.id != "scalar" or not node.value:
            self.refuse(node, "Expected a text here.")
        return str(node.value)

    def number(self, node: Any) -> Decimal:
        """
        Return a number that is not negative.
        """
        text = self.text(node)
        try:
            number = Decimal(text)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or number < 0:
            self.refuse(node, f"There is {text!r}. Expected a number that is not negative.")
        return number

    def whole_number(self, node: Any) -> int:
        """
        Return a whole number that is not negative.
        """
        number = self.number(node)
        if number != int(number):
            self.refuse(node, f"There is {self.text(node)!r}. Expected a whole number.")
        return int(number)

    def switch(self, node: Any) -> bool:
        """
        Return whether something is switched on.
        """
        text = self.text(node).lower()
        if text not in _ON | _OFF:
            self.refuse(node, f"There is {text!r}. Expected true or false.")
        return text in _ON


_ON = frozenset({"true", "on", "yes"})
_OFF = frozenset({"false", "off", "no"})


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """
    Return a question with the nearest of those *known*, or nothing.
    """
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def compose(path: Path, *, what: str, option: str, expected: str) -> Any:
    """
    Read the file at *path* into YAML's nodes.

    Args:
        what: What it is a file of, for messages.

        option: With which option it was given.

        expected: What ought to stand in it.

    Raises:
        ConfigurationError: if it cannot be read, is no YAML, or is empty.

        MissingExtraError: if what reads YAML is not installed.
    """
    try:
        import yaml  # noqa: PLC0415 -- of an extra; who generates nothing does not need it.
    except ImportError as error:
        feature = f"Reading a file of {what}"
        raise MissingExtraError(feature, extra="exporter") from error
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        message = f"The {what} {path} cannot be read: {reason}. Expected a YAML file; check {option}."
        raise ConfigurationError(message) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        # Without what it quotes: a password that begins with * is an alias to YAML.
        problem = re.sub(r" ?'[^'\n]{2,}'.*", "", getattr(error, "problem", None) or "it cannot be parsed")
        message = f"{path}{place}: this is not YAML: {problem}."
        raise ConfigurationError(message) from None
    if node is None:
        message = f"The {what} {path} are empty. Expected {expected}."
        raise ConfigurationError(message)
    return node
