"""Runs a program under the system-call filter of a systemd unit: unit_filter.py UNIT PROGRAM [ARGUMENT]...

systemd itself is not needed, but for saying which calls its groups are (systemd-analyze). What the filter refuses
fails with EPERM, as SystemCallErrorNumber= of the units has it, and a socket of another family than
RestrictAddressFamilies= names with EAFNOSUPPORT.
"""
import ctypes
import errno
import os
import re
import socket
import struct
import subprocess
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
AUDIT_ARCH_X86_64, X32_BIT = 0xC000003E, 0x40000000
LOAD, JUMP_EQUAL, JUMP_GREATER, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, REFUSE, NO_FAMILY = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.EAFNOSUPPORT
NUMBERS = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"


def group(name):
    """The calls of a group, those of the groups in it included."""
    listing = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    calls = set()
    for word in listing.stdout.split("\n")[1:]:
        word = word.strip()
        if word.startswith("@"):
            calls |= group(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def allowed(unit):
    """systemd takes @default for granted."""
    calls = group("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)$", open(unit, encoding="utf-8").read(), re.M):
        words = line.lstrip("~").split()
        named = set().union(*(group(word) if word.startswith("@") else {word} for word in words))
        calls = calls - named if line.startswith("~") else calls | named
    return calls


def families(unit):
    words = re.findall(r"^RestrictAddressFamilies=(.*)$", open(unit, encoding="utf-8").read(), re.M)
    return [int(getattr(socket, word)) for word in " ".join(words).split()]


def program(calls, domains):
    """Classic BPF: the architecture, then sockets, then each call that is allowed."""
    numbers = {name: int(number) for name, number in
               re.findall(r"^#define __NR_(\w+)\s+(\d+)", open(NUMBERS, encoding="utf-8").read(), re.M)}
    code = [(LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, 0),
            (JUMP_GREATER, 0, 1, X32_BIT), (RETURN, 0, 0, REFUSE)]
    code += [(JUMP_EQUAL, 0, 2 + 2 * len(domains), numbers["socket"]), (LOAD, 0, 0, 16)]
    for domain in domains:
        code += [(JUMP_EQUAL, 0, 1, domain), (RETURN, 0, 0, ALLOW)]
    code += [(RETURN, 0, 0, NO_FAMILY)]
    for call in sorted(calls & set(numbers)):
        code += [(JUMP_EQUAL, 0, 1, numbers[call]), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *one) for one in code + [(RETURN, 0, 0, REFUSE)])


def main():
    code = program(allowed(sys.argv[1]), families(sys.argv[1]))
    buffer = ctypes.create_string_buffer(code, len(code))
    filters = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
