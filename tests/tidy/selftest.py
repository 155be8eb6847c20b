#!/usr/bin/env python3
"""selftest.py - every rule of tidy.py can fail.

The tree is copied, one fault is planted, and the rule must name it; the copy without the fault
must be clean under the same rule, or seeing it fail would prove nothing.

    selftest.py TREE --core libwestlight-core.a --generated DIR [--cc gcc]
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

import tidy


def append(name, text):
    def plant(copy):
        with open(os.path.join(copy, name), "a", encoding="utf-8") as file:
            file.write(text)
    return plant


def write(name, text):
    def plant(copy):
        path = os.path.join(copy, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    return plant


HOME_PATH = "/".join(("", "home", "somebody", "farm"))

# rule, what is planted, how, and what the fault must name
PLANTS = (
    ("layers", "the core includes SQLite", append("broker/core/job.c", "#include <sqlite3.h>\n"),
     "broker/core/job.c: <sqlite3.h>"),
    ("layers", "the core includes the store", append("broker/core/core.c", "#include <broker/store/store.h>\n"),
     "broker/core/core.c: <broker/store/store.h>"),
    ("layers", "the core reads the clock", append("broker/core/timer.c", "#include <proto/base/clock.h>\n"),
     "broker/core/timer.c: <proto/base/clock.h>"),
    ("layers", "the worker includes the broker", append("worker/agent.c", "#include <broker/broker.h>\n"),
     "worker/agent.c: <broker/broker.h>"),
    ("layers", "the client includes the worker", append("client/job.c", "# include <worker/agent.h>\n"),
     "client/job.c: <worker/agent.h>"),
    ("layers", "proto includes the broker", append("proto/wire.h", "#include <broker/gateway.h>\n"),
     "proto/wire.h: <broker/gateway.h>"),
    ("layers", "proto/base includes proto", append("proto/base/log.c", "#include <proto/limits.h>\n"),
     "proto/base/log.c: <proto/limits.h>"),
    ("layers", "a header by its neighbour's name", append("worker/cache.c", '#include "spool.h"\n'),
     'worker/cache.c: "spool.h"'),
    ("layers", "the public header asks for libzmq", append("client/westlight.h", "#include <zmq.h>\n"),
     "client/westlight.h: <zmq.h>"),
    ("places", "a socket option outside proto/link", append(
        "broker/bulk.c", "int f(void *s) { return zmq_setsockopt(s, 1, 0, 0); }\n"), "zmq_setsockopt"),
    ("places", "a digest outside proto/seal", append(
        "worker/spool.c", "void *f(void) { return EVP_MD_CTX_new(); }\n"), "worker/spool.c"),
    ("places", "proto/base speaks of leases", append("proto/base/list.h", "/* of leases */\n"), "'leases'"),
    ("headers", "a header that leans on its includer", write(
        "worker/leaning.h", "#pragma once\nsize_t leaning(void);\n"), "worker/leaning.h"),
    ("headers", "a header without a guard", write(
        "client/twice.h", "struct twice { int value; };\n"), "client/twice.h"),
    ("recursion", "a message that holds itself", append(
        "proto/westlight.proto", "message Loop { repeated Loop more = 1; }\n"), "Loop -> Loop"),
    ("recursion", "three messages in a ring", append(
        "proto/westlight.proto", "message A1 { B1 b = 1; }\nmessage B1 { oneof x { C1 c = 1; } }\n"
        "message C1 { map<string, A1> a = 1; }\n"), "A1 -> B1 -> C1 -> A1"),
    ("readmes", "a file nobody tells of", write("client/secretly.c", "int secretly;\n"), "secretly.c"),
    ("top", "a folder for everything", write("utils/everything.c", "int everything;\n"), "utils"),
    ("paths", "somebody's home folder", append("README.md", f"see {HOME_PATH}\n"), HOME_PATH[:14]),
)


def copy_tree(tree, target):
    for name in tree.files:
        path = os.path.join(target, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(os.path.join(tree.root, name), path)


def faults(root, rule, args, core=None):
    return list(tidy.RULES[rule](tidy.Tree(root, core or args.core, args.generated, args.cc)))


def plant_and_look(copy, args):
    failures = 0
    clean = {rule: faults(copy, rule, args) for rule in {plant[0] for plant in PLANTS}}
    for rule, what, plant, named in PLANTS:
        before = {name: open(os.path.join(copy, name), "rb").read()
                  for name in tidy.Tree(copy).files}
        plant(copy)
        found = [fault for fault in faults(copy, rule, args) if fault not in clean[rule]]
        seen = any(named in fault for fault in found)
        print(f"{'ok' if seen else 'NOT SEEN'}: {rule}: {what}")
        failures += not seen
        for name in tidy.Tree(copy).files:
            path = os.path.join(copy, name)
            if name not in before:
                os.remove(path)
            elif open(path, "rb").read() != before[name]:
                with open(path, "wb") as file:
                    file.write(before[name])
    for rule, left in clean.items():
        if left:
            print(f"NOT CLEAN: {rule}: {left[0]}")
            failures += 1
    return failures


def symbol_and_look(folder, args):
    """An archive like the core's with one member more, which writes to a file."""
    archive, source = os.path.join(folder, "core.a"), os.path.join(folder, "io.c")
    with open(source, "w", encoding="utf-8") as file:
        file.write("#include <unistd.h>\nlong io(void) { return write(1, \"\", 0); }\n")
    subprocess.run([args.cc, "-c", "-o", source[:-1] + "o", source], check=True)
    # meson's archive may be a thin one: take its members by path, as ar lists them.
    members = subprocess.run(["ar", "tP", args.core], capture_output=True, text=True, check=True)
    objects = [os.path.join(os.path.dirname(args.core), line) if not os.path.exists(line) else line
               for line in members.stdout.split()]
    objects = [path for path in objects if os.path.exists(path)]
    subprocess.run(["ar", "cr", archive, *objects, source[:-1] + "o"], check=True)
    seen = any(": write:" in fault for fault in faults(args.tree, "symbols", args, archive))
    print(f"{'ok' if seen else 'NOT SEEN'}: symbols: a member that writes")
    return not seen


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tree")
    parser.add_argument("--core", required=True)
    parser.add_argument("--generated")
    parser.add_argument("--cc", default="gcc")
    args = parser.parse_args()
    args.tree = os.path.abspath(args.tree)
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "tree")
        copy_tree(tidy.Tree(args.tree), copy)
        failures = plant_and_look(copy, args) + symbol_and_look(folder, args)
    print(f"selftest: {failures} faults")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
