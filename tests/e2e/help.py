"""Help, manual pages, completion and the reading of options say the same; what is mistyped is told
what it may have meant."""
import re
import shutil
import subprocess

from farm import BROKER, CLIENT, WORKER, Farm, check, equal, main, scenario, write
from kills import shot_farm

PROGRAMS = {"westlight": CLIENT, "westlight-broker": BROKER, "westlight-worker": WORKER}
OPTION = re.compile(r"  (?:-(\w), )?--([a-z-]+)(?: (\S+))?(?:  .*)?")
VALUES = {"N": "3", "DAYS": "0.5", "HOURS": "90s", "SIZE": "1G", "MIB": "1", "BYTES": "8388608", "FRAMES": "1-2", "FRAME": "1", "WxH": "4x4", "CxR": "2x2",
          "NAME=VALUE": "amount.a=1", "NAME=VERSION": "a=1", "auto|cpu|gpu": "cpu", "LEVEL": "info", "ROLE": "worker", "PATTERN": "a_#"}


def words_of(text, heading):
    """The first words of the indented lines below a heading."""
    part = text.split("\n" + heading + ":\n")[1] if "\n" + heading + ":\n" in text else ""
    return re.findall(r"^  (\S+)", part.split("\n\n")[0], re.M)


def options_of(text):
    """{name: (letter, argument)} of a help text."""
    return {m[2]: (m[1], m[3]) for m in map(OPTION.fullmatch, text.split("\n")) if m}


def narrow(text, what):
    for line in text.split("\n"):
        check(len(line) <= 80, what, "is wider than 80 columns:", repr(line))
    check(text.endswith("\n") and len(text.split("\n")) > 3, what, "says something")


def commands_of(farm, name):
    """(the command's words, its help) of each command of a program; the program's own options first."""
    program = PROGRAMS[name]
    overview = farm.run(program, "help").stdout
    equal(farm.run(program, "--help").stdout, overview, "--help")
    found = [([], overview)] if "usage:" in overview else []
    for command in words_of(overview, "commands"):
        text = farm.run(program, "help", command).stdout
        equal(farm.run(program, command, "--help").stdout, text, command + " --help")
        found.append(([command], text))
    return found


@scenario
def every_command_and_topic_has_help_within_80_columns():
    with Farm() as farm:
        for name, program in PROGRAMS.items():
            overview = farm.run(program, "help").stdout
            narrow(overview, name + " help")
            topics = words_of(overview, "topics")
            check("exit" in topics, name, "topics:", topics)
            for words, text in commands_of(farm, name):
                narrow(text, " ".join([name, "help", *words]))
                check("\nusage: %s" % " ".join([name, *words]) in text, "usage of", name, words)
                check("\nfor example:\n" in text, "an example of", name, words)
            for topic in topics:
                narrow(farm.run(program, "help", topic).stdout, "%s help %s" % (name, topic))
        states = farm.run(CLIENT, "help", "states").stdout
        for state in ("left out", "set aside", "worker lost", "paused"):
            check(re.search("^  %s  +[a-z]" % state, states, re.M), state, "is explained")


@scenario
def what_help_lists_is_what_is_read():
    with Farm() as farm:
        n = 0
        for name, program in PROGRAMS.items():
            for words, text in commands_of(farm, name):
                for option, (letter, argument) in options_of(text).items():
                    n += 1
                    spelled = ["--" + option] + (["-" + letter] if letter else [])
                    for one in spelled:
                        if argument:
                            error = farm.run(program, *words, one, code=2).stderr
                            check("--%s: it needs a value: write --%s %s" % (option, option, argument) in error, error)
                        # Taken: what is complained of is something else, and something is.
                        value = [VALUES.get(argument, "x")] if argument else []
                        error = farm.run(program, *words, one, *value, "--nothing-such", code=2).stderr
                        check("--nothing-such: there is no such option" in error, words, one, "was not taken:", error)
                    if not argument:
                        error = farm.run(program, *words, "--%s=x" % option, code=2).stderr
                        check("--%s: it takes no value" % option in error, error)
        check(n > 90, n, "options")


@scenario
def every_parameter_that_help_presets_lists_is_taken():
    with Farm() as farm:
        scenes = {"povray": "s.pov", "blender": "s.blend", "command": "s.txt"}
        text, preset, n = farm.run(CLIENT, "help", "presets").stdout, None, 0
        every = re.findall(r"^  -p ([a-z-]+)=", text.split("Every preset takes")[1], re.M)
        for line in text.split("Every preset takes")[0].split("\n"):
            head, own = re.match(r"(povray|blender|command): ", line), re.match(r"  -p ([a-z-]+)=", line)
            preset = head[1] if head else preset
            for name in every if head else [own[1]] if own else []:
                scene = write(farm.path("scenes", scenes[preset]), "")
                error = farm.run(CLIENT, "render", scene, "--preset", preset, "-p", name + "=x", "-p", "quux=x", code=2).stderr
                check("-p quux: the preset %s has no such parameter" % preset in error, name, error)
                n += 1
        check(n > 27, n, "parameters")
        error = farm.run(CLIENT, "render", scene, "--preset", "povray", "-p", "qualty=3", code=2).stderr
        check("did you mean quality? See westlight help presets" in error, error)


@scenario
def every_example_is_a_command_that_exists_with_options_it_has():
    with Farm() as farm:
        every = {(name, *words): options_of(text) for name in PROGRAMS for words, text in commands_of(farm, name)}
        texts = [text for name in PROGRAMS for _, text in commands_of(farm, name)]
        texts += [farm.run(CLIENT, "help", topic).stdout for topic in words_of(texts[0], "topics")]
        texts.append(farm.run(CLIENT, "help").stdout)
        n = 0
        for line in re.sub(r" \\\n +", " ", "\n".join(texts)).split("\n"):
            if not line.startswith("  westlight"):
                continue
            words = re.sub("'[^']*'", "TEXT", line).split()
            options = every.get(tuple(words[:2]))
            if options is None:
                options = every.get(tuple(words[:1]))
            check(options is not None, "no such command:", line)
            letters = {letter for letter, _ in options.values()}
            for word in words:
                if word.startswith("--"):
                    check(word[2:] in options, word, "is no option of:", line)
                elif re.fullmatch("-[a-z]", word):
                    check(word[1:] in letters, word, "is no option of:", line)
            n += 1
        check(n > 25, n, "examples")


@scenario
def a_mistyped_word_is_told_the_nearest():
    with Farm() as farm:
        for program, words, wanted in (
                (CLIENT, ["rendr"], "did you mean render? See westlight help"),
                (CLIENT, ["hlep"], "hlep: there is no such command: see westlight help"),
                (CLIENT, ["help", "frame"], "did you mean frames? See westlight help"),
                (CLIENT, ["help", "nothing"], "help nothing: there is no such command or topic: see westlight help"),
                (CLIENT, ["render", "--sizes", "1x1"], "--sizes: there is no such option: did you mean --size? See westlight help render"),
                (CLIENT, ["fetch", "last", "--ouptut=x"], "did you mean --output? See westlight help fetch"),
                (CLIENT, ["show", "--quux"], "--quux: there is no such option: see westlight help show"),
                (CLIENT, ["show", "-q"], "-q: there is no such option: see westlight help show"),
                (CLIENT, ["render", "--na", "x"], "--na: it could be each of --narrow, --name"),
                (CLIENT, ["workers", "--jsn"], "did you mean --json? See westlight help workers"),
                (CLIENT, ["key", "new", "--kye", "x"], "did you mean --key? See westlight help key"),
                (CLIENT, ["show", "a", "b"], "show: b is a word too many"),
                (BROKER, ["alow"], "did you mean allow? See westlight-broker help"),
                (BROKER, ["--sate", "x"], "did you mean --state? See westlight-broker help run"),
                (BROKER, ["forbid", "--role", "x"], "--role: there is no such option: see westlight-broker help forbid"),
                (WORKER, ["--server-kye", "x"], "did you mean --server-key? See westlight-worker help"),
                (WORKER, ["insepct"], "did you mean inspect? See westlight-worker help")):
            done = farm.run(program, *words, code=2)
            check(wanted in done.stderr, wanted, "is not in:", done.stderr)
            equal((done.stdout, done.stderr.count("\n")), ("", 1), "one line: %s" % done.stderr)


@scenario
def manual_pages_hold_every_option_and_groff_finds_no_fault():
    with Farm() as farm:
        groff = shutil.which("groff")
        for name, program in PROGRAMS.items():
            page = farm.run(program, "help", "--man").stdout
            plain = page.replace("\\-", "-")
            for words, text in commands_of(farm, name):
                part = plain.split('.SS "%s' % " ".join([name, *words]))[1].split(".SS")[0]
                for option in options_of(text):
                    check(re.search(r"--%s\b" % option, part), option, "is not said of", name, words)
            for topic in words_of(farm.run(program, "help").stdout, "topics"):
                last = farm.run(program, "help", topic).stdout.strip().split("\n")[-1].split()[-1]
                check(last in plain, topic, "is not in the page of", name)
            if not groff:
                print("groff is not installed (groff-base): the pages were not set")
                continue
            path = write(farm.path(name + ".man"), page)
            done = subprocess.run([groff, "-man", "-Kutf8", "-Tutf8", "-ww", "-rLL=80n", "-P-cbou", path],
                                  capture_output=True, text=True, check=True)
            equal(done.stderr, "", "what groff says of " + name)
            narrow(done.stdout, "the page of " + name)
            check(re.search(r"^NAME\n +%s - [a-z]" % name, done.stdout, re.M), "its NAME:", done.stdout[:500])


@scenario
def completion_knows_every_option_and_topic():
    with Farm() as farm:
        overview = farm.run(CLIENT, "help").stdout
        for shell, option in (("bash", "--%s"), ("zsh", "--%s"), ("fish", "-l %s")):
            script = farm.run(CLIENT, "completion", shell).stdout
            for words, text in commands_of(farm, "westlight"):
                line = "".join(line for line in script.split("\n") if re.search(r"(\*:| |from )%s(\)|')" % words[0], line))
                for name in options_of(text):
                    check(re.search(r"%s\b" % (option % name), line), shell, "does not complete", words, name)
            for topic in words_of(overview, "topics"):
                check(re.search(r"\b%s\b" % topic, script), shell, "does not complete help", topic)


@scenario
def one_of_a_thing_is_singular_and_a_refusal_stands_alone():
    with Farm() as farm:
        ann, _ = shot_farm(farm)
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-p", "run=true", "-p", "optional=yes")
        text = ann.ask("show", job, code=0).out
        check(re.search(r"^\S+ +1 task: ", text, re.M) and "1 tasks" not in text, text)
        refused = ann.ask("workers", code=3)
        equal(refused.out, "", "the head of a table that was refused")
        check("operator" in refused.err, refused)


if __name__ == "__main__":
    main()
