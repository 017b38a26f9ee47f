"""The strict reader of cloud-config documents: bytes in, files out. Pure.

Like the reference's guest it knows `write_files[].path` and `write_files[].content` and refuses everything else: user
data comes from an untrusted host, so the less is understood the better. Anchors and aliases are refused as well.
"""

import re
from collections.abc import Iterator

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from caa.errors import InvalidInput
from caa.userdata.cloudconfig import File

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where the wheel has it: ten times as fast
_MOST_FILES = 1000  # of which six are taken; a megabyte of paths alone would keep a booting VM busy for minutes
_DEEPEST = 8  # the document, write_files and one file are 3; the rest is for an error that says more
_KEY = re.compile(r"[ -]*[\"']?(write_files|path|content)\b")
_NULL = "tag:yaml.org,2002:null"


def parse(document: bytes) -> list[File]:
    """The files of a document, in its order. Raises `InvalidInput` with the line and the key, never with a content."""
    root = _composed(document)
    if root is None:
        return []
    files = []
    for key, value in _entries(root, "the document"):
        if key.value != "write_files":
            raise _refused(key, f"unknown key {_short(key)}, allowed is write_files")
        if not _is_null(value):
            files = [_file(item) for item in _items(value)]
    paths = [file.path for file in files]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise InvalidInput(f"user data: {twice[0]!r} comes twice")
    return files


def _composed(document: bytes) -> Node | None:
    try:
        text = document.decode()
        _refuse_hostile(text)
        root: Node | None = yaml.compose(text, Loader=_LOADER)
    except UnicodeDecodeError:
        raise InvalidInput("user data is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise InvalidInput(f"user data is not YAML: line {line}{_key_near(text, line)}: {error.problem}") from None
    except yaml.YAMLError:
        raise InvalidInput("user data is not YAML: it holds a character that YAML does not allow") from None
    return None if root is None or _is_null(root) else root


def _key_near(text: str, line: int) -> str:
    """The last of the known keys that begins at or before a line: where to look for a quote that is never closed."""
    for before in reversed(text.splitlines()[:line]):
        if key := _KEY.match(before):
            return f", key {key[1]!r}"
    return ""


def _refuse_hostile(text: str) -> None:
    """Walk over the events, which needs no stack: composing 50 000 nested lists crashes the interpreter."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1 if event.start_mark else 0
        if depth > _DEEPEST:
            raise InvalidInput(f"user data line {line}: nested deeper than anything that is allowed")
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            raise InvalidInput(f"user data line {line}: anchors and aliases are not allowed")


def _file(item: Node) -> File:
    found: dict[str, str] = {}
    for key, value in _entries(item, "an item of write_files"):
        if key.value not in ("path", "content"):
            raise _refused(key, f"unknown key {_short(key)} in write_files, allowed are path and content")
        if not isinstance(value, ScalarNode):
            raise _refused(value, f"{key.value} in write_files has to be text")
        found[key.value] = "" if _is_null(value) else _unicode(value)
    if not found.get("path", "").startswith("/"):
        raise _refused(item, "an item of write_files needs an absolute path")
    return File(found["path"], found.get("content", ""))


def _entries(node: Node, what: str) -> Iterator[tuple[ScalarNode, Node]]:
    if not isinstance(node, MappingNode):
        raise _refused(node, f"{what} has to be a mapping")
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, ScalarNode) or key.value in seen:
            raise _refused(key, f"a key of {what} is not text or comes twice")
        seen.add(key.value)
        yield key, value


def _items(node: Node) -> list[Node]:
    if not isinstance(node, SequenceNode):
        raise _refused(node, "write_files has to be a list")
    if len(node.value) > _MOST_FILES:
        raise _refused(node, f"write_files has {len(node.value)} items, allowed are {_MOST_FILES}")
    return list(node.value)


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == _NULL


def _unicode(node: ScalarNode) -> str:
    text: str = node.value
    try:
        text.encode()
    except UnicodeEncodeError:  # an escaped lone surrogate, which libyaml refuses itself
        raise _refused(node, "text that is not Unicode") from None
    return text


def _short(key: ScalarNode) -> str:
    return repr(key.value[:40])


def _refused(node: Node, problem: str) -> InvalidInput:
    return InvalidInput(f"user data line {node.start_mark.line + 1}: {problem}")
