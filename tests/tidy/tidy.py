#!/usr/bin/env python3
"""tidy.py - the rules of the house, checked on the source tree itself.

Each rule is a function that yields what breaks it, as "where: what: why". A rule reads files and
nothing else, so a copy of the tree with a fault planted in it is checked like the tree
(selftest.py does that for every rule).

    tidy.py TREE RULE [--core libwestlight-core.a] [--generated DIR] [--cc gcc]
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

FOLDERS = ("proto", "broker", "worker", "client")
GENERATED = "proto/westlight.pb-c.h"

# Everything that may stand at the top; what git ignores is not the tree.
TOP = {
    "proto", "broker", "worker", "client", "tests", "meson.build", "README.md", "LICENSE",
    "CHANGELOG.md", "SECURITY.md", ".gitignore", ".editorconfig", ".clang-format", ".ci",
}

# What the core may stand on. limits.h of the C library is <limits.h>; proto/limits.h is ours.
CORE_PROJECT = {"proto/state.h", "proto/limits.h", "proto/space.h", "proto/base/check.h"}
CORE_C = {"stdbool.h", "stddef.h", "stdint.h", "stdlib.h", "string.h", "limits.h"}
CORE_SYMBOLS = {
    "malloc", "calloc", "realloc", "free", "qsort", "bsearch",
    "memcmp", "memcpy", "memmove", "memset", "memchr",
    "strcmp", "strncmp", "strlen", "strnlen", "strchr",
    "check_failed", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_",
    "__memcpy_chk", "__memmove_chk", "__memset_chk",
}
CORE_SYMBOL_PREFIXES = ("space_", "range_", "__asan_", "__ubsan_", "__sanitizer_")

# Headers of the C language itself: all that a program linking libwestlight must have.
C_HEADERS = {
    "assert.h", "ctype.h", "errno.h", "inttypes.h", "limits.h", "stdarg.h", "stdbool.h",
    "stddef.h", "stdint.h", "stdio.h", "stdlib.h", "string.h", "time.h",
}

# A word of dispatching in proto/base means that a file there knows too much.
JOB_WORDS = re.compile(r"\b(jobs?|leases?|tasks?|frames?|studios?|workers?|brokers?|renders?)\b",
                       re.I)
HOME = re.compile(r"(?<![\w.$~{}/])/(?:home|Users)/[A-Za-z0-9_.-]+|(?<![\w.$~{}/])/root/")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


class Tree:
    def __init__(self, root, core=None, generated=None, cc="gcc"):
        self.root, self.core, self.generated, self.cc = root, core, generated, cc
        self.files = sorted(self._list())

    def _list(self):
        """What git would carry; in a copy without git, every file."""
        if os.path.exists(os.path.join(self.root, ".git")):
            listed = subprocess.run(
                ["git", "-c", "safe.directory=*", "-C", self.root, "ls-files", "-z", "--cached",
                 "--others", "--exclude-standard"], capture_output=True, text=True, check=False)
            if listed.returncode == 0:
                return {name for name in listed.stdout.split("\0")
                        if name and os.path.isfile(os.path.join(self.root, name))}
        found = set()
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders
                          if name not in {".git", "__pycache__", "demo-out"}
                          and not name.startswith("build")]
            found.update(os.path.relpath(os.path.join(folder, name), self.root) for name in names)
        return found

    def sources(self, *folders, endings=(".c", ".h")):
        return [name for name in self.files
                if name.endswith(endings) and name.startswith(tuple(f + "/" for f in folders))]

    def read(self, name):
        with open(os.path.join(self.root, name), encoding="utf-8", errors="replace") as file:
            return file.read()

    def includes(self, name):
        return INCLUDE.findall(strip_comments(self.read(name)))

    def flags(self, name):
        """As meson compiles it: from the root, with the generated schema beside it."""
        flags = ["-std=gnu17", "-D_GNU_SOURCE", '-DWESTLIGHT_VERSION="0"', "-I" + self.root]
        if self.generated:
            flags.append("-I" + self.generated)
        return flags


def strip_comments(text):
    """Without comments; strings and line numbers stay."""
    def keep(match):
        return match.group(0) if match.group(0)[0] in "\"'" else re.sub(r"[^\n]", "", match.group(0))
    return re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', keep, text,
                  flags=re.S)


def layer_of(path):
    if path.startswith("proto/base/"):
        return "proto/base"
    if path.startswith("broker/core/"):
        return "broker/core"
    return path.split("/")[0]


MAY_KNOW = {
    "proto/base": {"proto/base"},
    "proto": {"proto/base", "proto"},
    "broker/core": {"broker/core"},
    "broker": {"proto/base", "proto", "broker/core", "broker"},
    "worker": {"proto/base", "proto", "worker"},
    "client": {"proto/base", "proto", "client"},
}


def rule_layers(tree):
    """Who may know whom: proto/base <- proto <- broker | worker | client, never sideways."""
    ours = set(tree.sources(*FOLDERS)) | {GENERATED}
    for name in tree.sources(*FOLDERS):
        layer = layer_of(name)
        for mark, target in tree.includes(name):
            if mark == '"':
                yield f'{name}: "{target}": a project header is included as <folder/name.h>'
            elif target in ours:
                allowed = layer_of(target) in MAY_KNOW[layer]
                if layer == "broker/core" and target in CORE_PROJECT:
                    allowed = True
                if not allowed:
                    yield f"{name}: <{target}>: {layer} may not know {layer_of(target)}"
            elif target.split("/")[0] in FOLDERS + ("tests",):
                yield f"{name}: <{target}>: there is no such header"
            elif layer == "broker/core" and target not in CORE_C:
                yield f"{name}: <{target}>: the core knows only memory and strings of the C library"
            elif name == "client/westlight.h" and target not in C_HEADERS:
                yield f"{name}: <{target}>: the public header asks for the C library only"
        if name == "client/westlight.h":
            for _, target in tree.includes(name):
                if target in ours:
                    yield f"{name}: <{target}>: the public header stands alone"


def rule_places(tree):
    """One place sets libzmq's options, one holds the cipher and digest code."""
    places = (
        (re.compile(r"\bzmq_setsockopt\s*\("), re.compile(r"proto/link\w*\.c$"),
         "zmq_setsockopt", "only proto/link.c hardens sockets"),
        (re.compile(r"\bEVP_\w+|\bHMAC\s*\(|<openssl/"), re.compile(r"proto/(seal|identity)\.c$"),
         "OpenSSL", "only proto/seal.c holds cipher and digest code"),
    )
    for name in tree.sources(*FOLDERS):
        text = strip_comments(tree.read(name))
        for pattern, home, what, why in places:
            match = pattern.search(text)
            if match and not home.match(name):
                line = text.count("\n", 0, match.start()) + 1
                yield f"{name}:{line}: {what}: {why}"
    for name in tree.sources("proto/base"):
        match = JOB_WORDS.search(tree.read(name))
        if match:
            yield f"{name}: '{match.group(0)}': proto/base knows nothing of the farm"


def rule_symbols(tree):
    """What the core's archive asks of the world: `nm -u` against a short list."""
    if not tree.core:
        yield "symbols: --core is missing: give the path of libwestlight-core.a"
        return
    wanted, defined = {}, set()
    member = ""
    listing = subprocess.run(["nm", tree.core], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        if line.endswith(":"):
            member = line[:-1]
            continue
        words = line.split()
        if len(words) == 2 and words[0] in "Uw":
            wanted.setdefault(words[1], member)
        elif len(words) == 3:
            defined.add(words[2])
    if not defined:
        yield f"{tree.core}: it defines nothing: this check would pass on anything"
    for symbol in sorted(set(wanted) - defined):
        if symbol not in CORE_SYMBOLS and not symbol.startswith(CORE_SYMBOL_PREFIXES):
            yield f"{wanted[symbol]}: {symbol}: the core is sans-IO; its list is short on purpose"


def compile_alone(tree, name):
    with tempfile.NamedTemporaryFile("w", suffix=".c") as unit:
        unit.write(f"#include <{name}>\n#include <{name}>\n")
        unit.flush()
        ran = subprocess.run([tree.cc, "-fsyntax-only", *tree.flags(name), unit.name],
                             capture_output=True, text=True, check=False)
    if ran.returncode == 0:
        return None
    errors = [line for line in ran.stderr.splitlines() if "error" in line] or ran.stderr.splitlines()
    return f"{name}: it does not compile alone: {errors[0] if errors else 'no reason given'}"


def rule_headers(tree):
    """Every header compiles alone, and twice."""
    names = tree.sources(*FOLDERS, endings=(".h",))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from filter(None, pool.map(lambda name: compile_alone(tree, name), names))


def messages_of(text):
    """Message name -> the type names its fields have. Nested messages are named by their path."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/|\"[^\"\n]*\"", "", text, flags=re.S)
    tokens = re.findall(r"[A-Za-z_][\w.]*|\d+|[{}=;<>,]", text)
    messages, open_blocks, i = {}, [], 0
    while i < len(tokens):
        token = tokens[i]
        if token in ("message", "enum", "oneof", "service", "extend") and tokens[i + 2:i + 3] == ["{"]:
            scope = [name for kind, name in open_blocks if kind == "message"]
            open_blocks.append((token, ".".join(scope + [tokens[i + 1]])
                                if token == "message" else tokens[i + 1]))
            if token == "message":
                messages[open_blocks[-1][1].split(".")[-1] if not scope else open_blocks[-1][1]] = set()
            i += 3
            continue
        if token == "}" and open_blocks:
            open_blocks.pop()
        elif token == "=" and open_blocks and open_blocks[-1][0] in ("message", "oneof"):
            owner = [name for kind, name in open_blocks if kind == "message"][-1]
            start = i
            while tokens[start - 1] not in ("{", "}", ";"):
                start -= 1
            field = tokens[start:i - 1]
            messages[owner].update(word.split(".")[-1] for word in field
                                   if word not in ("repeated", "optional", "map", "<", ">", ","))
        i += 1
    return messages


def rule_recursion(tree):
    """No message type reaches itself: protobuf-c unpacks by recursion without a limit."""
    schemas = [name for name in tree.files if name.endswith(".proto") and not name.startswith("tests/")]
    messages = {}
    for name in schemas:
        messages.update(messages_of(tree.read(name)))
    if len(messages) < 2:
        yield "proto: no messages were found: this check would pass on anything"
    short = {name.split(".")[-1]: name for name in messages}
    for start in messages:
        todo, seen = [(start, (start,))], set()
        while todo:
            here, path = todo.pop()
            for field in sorted(messages[here]):
                there = short.get(field)
                if there == start:
                    yield f"{schemas[0]}: {' -> '.join(path + (start,))}: a message reaches itself"
                    todo = []
                    break
                if there and there not in seen:
                    seen.add(there)
                    todo.append((there, path + (there,)))


def rule_readmes(tree):
    """Every folder has a README that names each of its source files."""
    for folder in FOLDERS + ("tests",):
        readme = f"{folder}/README.md"
        if readme not in tree.files:
            yield f"{readme}: it is missing"
            continue
        text = tree.read(readme)
        words = set(re.findall(r"[\w.-]+", text))
        words |= {word.rstrip(".") for word in words}
        for name in tree.sources(folder, endings=(".c", ".h", ".proto", ".py", ".sh", ".pov", ".inc")):
            base = os.path.basename(name)
            stem = base.rsplit(".", 1)[0]
            named = base in words or any(
                f"{stem}{ending}" in words for ending in (".c", ".h", ".py", ".sh", ".pov"))
            if folder == "tests" and not named:
                named = os.path.dirname(name).split("/")[1:2] != [] and stem in words
            if not named:
                yield f"{readme}: {base}: one line for each file, and this one has none"


def rule_top(tree):
    """The house has five folders and no more."""
    for entry in sorted({name.split("/")[0] for name in tree.files} - TOP):
        yield f"{entry}: it does not belong at the top"
    for name in tree.files:
        for part in name.split("/")[:-1]:
            if part in ("common", "utils", "src"):
                yield f"{name}: there is no {part}/ in this house"
                break


def rule_paths(tree):
    """Nobody's home folder in what is public."""
    for name in tree.files:
        if name == "tests/tidy/tidy.py" or name.endswith((".png", ".blend")):
            continue
        for number, line in enumerate(tree.read(name).splitlines(), 1):
            match = HOME.search(line)
            if match and not name.startswith(("tests/unit/", "tests/e2e/", "tests/tidy/")):
                yield f"{name}:{number}: {match.group(0)}: a home folder of some machine"


RULES = {name[5:]: rule for name, rule in globals().items() if name.startswith("rule_")}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tree")
    parser.add_argument("rule", choices=sorted(RULES))
    parser.add_argument("--core")
    parser.add_argument("--generated")
    parser.add_argument("--cc", default="gcc")
    args = parser.parse_args()
    faults = list(RULES[args.rule](
        Tree(os.path.abspath(args.tree), args.core, args.generated, args.cc)))
    for fault in faults:
        print(fault)
    print(f"{args.rule}: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
