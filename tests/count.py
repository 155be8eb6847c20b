#!/usr/bin/env python3
"""count.py - counts what meson's test logs say, over all the build folders named.

A skipped test is named with its reason, a failed one with the end of its output. A folder whose
log is missing counts as one failure: nothing ran there, and silence is no success.
"""
import json
import sys

PASSED = {"OK", "EXPECTEDFAIL"}
SKIPPED = {"SKIP", "IGNORED"}
LINES_SHOWN = 40


def tests_of(folder):
    try:
        with open(f"{folder}/meson-logs/testlog.json", encoding="utf-8") as log:
            return [json.loads(line) for line in log if line.strip()]
    except OSError as error:
        print(f"{folder}: no test ran: {error.strerror}")
        return [{"name": f"{folder}: no test log", "result": "FAIL"}]


def said(test):
    return (test.get("stdout", "") + test.get("stderr", "")).strip().splitlines()


def main():
    passed = failed = skipped = 0
    for folder in sys.argv[1:]:
        for test in tests_of(folder):
            if test["result"] in PASSED:
                passed += 1
            elif test["result"] in SKIPPED:
                skipped += 1
                print(f"skipped: {folder}: {test['name']}: {(said(test) or ['no reason given'])[-1]}")
            else:
                failed += 1
                print(f"failed: {folder}: {test['name']}: {test['result']}")
                for line in said(test)[-LINES_SHOWN:]:
                    print(f"    {line}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
