"""Who is not known gets nothing, and learns why; who is known is not disturbed by them."""
import os
import socket
import subprocess

from farm import BROKER, HOSTILE, PATIENCE_S, Farm, check, equal, main, scenario, until, write


def render(person, farm, out):
    """A job that shows that the farm works."""
    write(farm.path("shot", "input"), "x")
    return person.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-2", "-o", farm.path(out),
                      "-p", 'run=echo $FRAME > "$OUT/f.$FRAME"', code=0)


@scenario
def an_unknown_key_is_refused_within_5_seconds_with_code_3_and_its_public_key_named():
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1")
        write(farm.path("shot", "input"), "x")
        stranger = farm.person("stranger", known=False)
        for argv in (("jobs",), ("submit", farm.path("shot"), "--preset", "command", "-p", "run=true")):
            answer = stranger.ask(*argv, code=3)
            check(answer.seconds < 5, "it took %.1f s:" % answer.seconds, answer)
            check(stranger.public in answer.err, "its public key is named:", answer)
        render(farm.person("ann"), farm, "out")
        farm.allow("studio", stranger.public, "stranger", "other")
        stranger.ask("jobs", code=0)


@scenario
def many_keys_are_let_in_at_once_or_none():
    with Farm() as farm:
        farm.start_broker()
        people = [farm.person(name, known=False) for name in ("ann", "bob", "eve")]
        allow = (BROKER, "allow", "--state", farm.state, "--role", "studio", "--studio", "Aurora", "--from")
        text = "%s ann\n\n%s\n" % (people[0].public, people[1].public)
        answer = farm.run(*allow, write(farm.path("keys"), text + "no key at all\n"), code=1)
        check("line 4" in answer.stderr and "nothing was changed" in answer.stderr, answer.stderr)
        empty = farm.run(*allow, write(farm.path("none"), "\n\n"), code=1)
        check("holds no key" in empty.stderr, empty.stderr)
        people[0].ask("jobs", code=3)
        check("2 keys" in farm.run(*allow, write(farm.path("keys"), text)).stdout, "how many are said")
        for person, code in zip(people, (0, 0, 3)):
            person.ask("jobs", code=code)
        equal(farm.rows("SELECT name FROM keys ORDER BY name"), [("",), ("ann",)], "names")
        farm.run(*allow, farm.path("keys"), people[2].public, code=2)


@scenario
def a_worker_with_an_unknown_key_gets_no_work_and_says_so():
    with Farm() as farm:
        farm.start_broker()
        public = farm.new_key(farm.path("stray.key"))
        stray = farm.worker("stray")
        until(lambda: public in stray.log(), lambda: "the worker names its key: " + stray.log(), 10)
        farm.worker("box1")
        render(farm.person("ann"), farm, "out")
        equal(farm.rows("SELECT count(DISTINCT worker) FROM attempts"), [(1,)], "workers that had work")
        check(stray.alive(), "it waits to be let in")
        farm.allow("worker", public, "stray")
        boss = farm.person("boss", role="operator")
        until(lambda: any(worker["name"] == "stray" and worker["connected"] for worker in boss.ask("workers", "--json", code=0).json),
              lambda: "once allowed it is there: " + stray.log(), 60)


@scenario
def a_wrong_server_key_is_a_refusal_not_a_long_wait():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        ann.configure(server_key=ann.public)
        answer = ann.ask("jobs", code=3)
        check(answer.seconds < 5 and farm.control in answer.err and "server_key" in answer.err, answer)


@scenario
def a_key_is_registered_where_a_broker_is_and_used_for_what_it_is():
    with Farm() as farm:
        farm.start_broker()
        public, typo = farm.new_key(farm.path("node.key")), farm.path("brokr")
        argv = ("--role", "worker", "--name", "node", public)
        refused = farm.run(BROKER, "allow", "--state", typo, *argv, code=2)
        check(typo in refused.stderr and "westlight-broker key" in refused.stderr and not os.path.exists(typo), refused)
        equal(farm.run(BROKER, "allow", "--state", farm.state, *argv).stdout, "allowed: %s, worker node\n" % public, "what it says")
        ann = farm.person("ann")
        os.rename(farm.path("node.key"), ann.key)
        check("registered as a worker's" in ann.ask("jobs", code=3).err, "a worker's key is not a person's")
        equal(farm.run(BROKER, "forbid", "--state", farm.state, public).stdout, "forbidden: %s\n" % public, "what it says")


@scenario
def a_peer_without_curve_gets_nothing_on_either_port():
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1")
        for endpoint in (farm.control, farm.bulk):
            equal(farm.run(HOSTILE, "null", endpoint).stdout, "nothing\n", endpoint)
        render(farm.person("ann"), farm, "out")


@scenario
def garbage_on_the_ports_hurts_nobody():
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1")
        ann, held = farm.person("ann"), []
        for endpoint in (farm.control, farm.bulk):
            host, port = endpoint[len("tcp://"):].rsplit(":", 1)
            for content in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" + b"\0" * 8 + b"\x7f" + os.urandom(4000), os.urandom(300000),
                            b"\xff" * 64, b""):
                peer = socket.create_connection((host, int(port)), timeout=10)
                held.append(peer)
                try:
                    peer.sendall(content)
                except OSError:
                    pass  # hung up on, as it deserves
        render(ann, farm, "out")
        for peer in held:
            peer.close()
        check(farm.broker.alive(), "the broker lives")


@scenario
def where_nobody_answers_for_keys_everybody_is_refused():
    with Farm() as farm:
        equal(farm.run(HOSTILE, "zap-stopped").stdout, "refused\n", "a right key")


@scenario
def a_forged_and_a_foreign_ticket_are_refused_and_the_right_one_is_not():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        write(farm.path("shot", "input"), "x")
        for name in ("liar1", "liar2"):
            farm.allow("worker", farm.new_key(farm.path(name)), name)
        liar = subprocess.Popen([HOSTILE, "tickets", farm.control, farm.server_key, farm.path("liar1"), farm.path("liar2")],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=farm.env)
        try:
            job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-p", "run=true", "-o", farm.path("out"))
            equal([liar.stdout.readline(), liar.stdout.readline()], ["forged: refused\n", "foreign: refused\n"], "answers")
            equal((farm.results(job), ann.counts(job)["done"]), ({}, 0), "what they brought about")
            equal(liar.communicate("\n", timeout=PATIENCE_S)[0], "own: ok\n", "its own ticket")
            equal(farm.results(job), {(0, 0): 1}, "what that brought about")
        finally:
            liar.kill()
            liar.wait()


@scenario
def another_studios_job_is_as_unknown_as_no_job():
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1")
        job = render(farm.person("ann"), farm, "out").id
        bob = farm.person("bob", studio="other")
        nowhere = "0123456789abcdef" * 2
        for verb in ("show", "cancel", "retry", "pause", "fetch", "log"):
            foreign, unknown = bob.ask(verb, job, code=2), bob.ask(verb, nowhere, code=2)
            equal(foreign.err.replace(job, "").replace(job[:8], ""), unknown.err.replace(nowhere, "").replace(nowhere[:8], ""),
                  "what %s says" % verb)
        answer = bob.ask("workers", code=3)
        check("operator" in answer.err, "who may is named:", answer)


if __name__ == "__main__":
    main()
