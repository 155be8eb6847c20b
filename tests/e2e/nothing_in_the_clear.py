"""What a studio sends and gets back is on no wire and on no disk of the broker in the clear.

The canary is random bytes, so that compression leaves it as it is: unencrypted it would be found.
"""
import os
import socket
import threading

from farm import RELAY, Farm, check, equal, main, scan, scenario, tree, until, write

CANARY = os.urandom(32).replace(b"\n", b"n").replace(b"\0", b"0") + b"-canary-of-the-scene"
OUTPUT = os.urandom(32).replace(b"\n", b"n").replace(b"\0", b"0") + b"-canary-of-the-output"
WORD = "canary" + os.urandom(12).hex()


def relay(farm, name, *targets):
    """Starts one; the ports, and the folder of what it writes down."""
    record = farm.path(name)
    os.makedirs(record)
    process = farm.start(name, [RELAY, "--record", record, *targets])
    line = until(lambda: process.log().endswith("\n") and process.log(), "the relay listens")
    return [int(port) for port in line.split()[1:]], record


def recorded(record):
    return sum(os.path.getsize(os.path.join(record, name)) for name in os.listdir(record))


@scenario
def a_canary_in_scene_output_and_log_is_neither_on_the_wire_nor_in_the_brokers_folder():
    with Farm() as farm:
        farm.start_broker()
        (control, bulk), record = relay(farm, "wire", farm.control[len("tcp://"):], farm.bulk[len("tcp://"):])
        control, bulk = "tcp://127.0.0.1:%d" % control, "tcp://127.0.0.1:%d" % bulk
        for name in ("box1", "box2"):
            farm.worker(name, "--slots", "1", control=control, bulk=bulk)
        ann, out = farm.person("ann").configure(control, bulk), farm.path("out")
        write(farm.path("shot", "scene.dat"), CANARY + os.urandom(3000000))
        write(farm.path("shot", "output.dat"), OUTPUT)
        job = ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-4", "-o", out, "--env", "WORD=" + WORD, "-p",
                      'run=cat scene.dat output.dat > "$OUT/f.$FRAME"; head -c 2000000 /dev/urandom >> "$OUT/f.$FRAME"; '
                      'echo $WORD; echo "%s" > "$OUT/word.$FRAME"; cat output.dat' % WORD, code=0).id
        check(WORD in ann.ask("log", job, "-f", "2", code=0).out, "the log says the word at home")
        home = tree(out)
        equal(len(home), 8, "files home")
        for frame in range(1, 5):
            check(home["f.%d" % frame].startswith(CANARY) and OUTPUT in home["f.%d" % frame], "frame", frame, "is not what was sent")
        check(recorded(record) > 15000000, "the relay saw everything: %d bytes" % recorded(record))
        for needle in (CANARY, OUTPUT, WORD.encode(), CANARY[-20:], OUTPUT[-20:]):
            equal(scan(record, needle), [], "the wire holds %r in the clear" % needle)
            equal(scan(farm.state, needle), [], "the broker's folder holds %r in the clear" % needle)
        check(sum(map(len, tree(farm.state + "/vault").values())) > 10000000, "the vault holds what was sent")
        check(scan(farm.folder + "/out", CANARY), "the scan would have found it")


@scenario
def the_same_scan_finds_a_canary_planted_in_plain_in_a_stream_and_in_a_folder():
    with Farm() as farm:
        sink = socket.create_server(("127.0.0.1", 0))
        got = []

        def swallow():
            connection, _ = sink.accept()
            with connection:
                connection.sendall(b"answer " + OUTPUT)
                while data := connection.recv(65536):
                    got.append(data)

        thread = threading.Thread(target=swallow, daemon=True)
        thread.start()
        (port,), record = relay(farm, "plain", "127.0.0.1:%d" % sink.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            for piece in (os.urandom(100000), CANARY[:15], CANARY[15:], os.urandom(1000)):
                peer.sendall(piece)
            answer = b""
            while len(answer) < len(OUTPUT) + 7:
                answer += peer.recv(65536)
        thread.join(10)
        sink.close()
        check(CANARY in b"".join(got), "the relay passes on what it is given")
        equal(scan(record, CANARY), ["0.up"], "found in the stream")
        equal(scan(record, OUTPUT), ["0.down"], "found in the answer")
        write(farm.path("broker", "vault", "planted"), os.urandom(70000) + CANARY + b"x")
        equal(scan(farm.path("broker"), CANARY), ["vault/planted"], "found in the folder")


if __name__ == "__main__":
    main()
