"""Cards: found, leased to one task at a time, seen by it and by no other, free again when it is killed.

Where NVIDIA's driver has a card it is that one, and tasks use it through the driver itself; elsewhere
the stand-in's first, its second being lost. A task holds its card until the scenario opens its gate.
"""
import json
import os
import signal
import subprocess
import sys

from farm import NVML, Farm, alive, check, equal, main, read, scenario, until, write

# Run by a task: takes three quarters of every card it sees, so that no two tasks fit, fills and reads it, tells what it saw,
# and holds on.
HOLDER = '''
import ctypes, json, os, sys, time
witness, mark, real = sys.argv[1], sys.argv[2], sys.argv[3] == "real"
saw = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LD_LIBRARY_PATH")}
saw.update(pid=os.getpid(), began=time.monotonic(), cards=[], wrong=0)

def call(name, *arguments):
    code = getattr(cuda, name)(*arguments)
    if code:
        sys.exit("%s: CUDA error %d" % (name, code))

def use(index):
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    uuid, total = (ctypes.c_ubyte * 16)(), ctypes.c_size_t()
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDeviceGetUuid_v2", uuid, device)
    call("cuDeviceTotalMem_v2", ctypes.byref(total), device)
    words = total.value // 16 * 3
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(4 * words))
    call("cuMemsetD32_v2", memory, 0x5eed, ctypes.c_size_t(words))
    back = (ctypes.c_uint32 * 4096)()
    call("cuMemcpyDtoH_v2", back, ctypes.c_uint64(memory.value + 4 * words - 4 * 4096), ctypes.c_size_t(4 * 4096))
    saw["wrong"] += sum(word != 0x5eed for word in back)
    text = bytes(uuid).hex()
    saw["cards"].append(["GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])), total.value >> 20])

if real:
    n = ctypes.c_int()
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        saw["init"] = cuda.cuInit(0)
    except OSError as error:
        saw["init"] = str(error)
    if saw["init"] == 0:
        call("cuDeviceGetCount", ctypes.byref(n))
    for index in range(n.value):
        use(index)
saw["took"] = time.monotonic() - saw["began"]
path = os.path.join(witness, mark)
with open(path + ".new", "w") as file:
    json.dump(saw, file)
os.rename(path + ".new", path)
while not os.path.exists(os.path.join(witness, "gate")) and not os.path.exists(path + ".gate"):
    time.sleep(0.02)
with open(path + ".ended", "w") as file:
    json.dump(time.monotonic(), file)
'''
CUDA_NO_DEVICE = 100
DONE, RENDERER, WORKER_LOST = 0, 1, 7  # classes of attempts


def asked(*names):
    """What NVIDIA's own tool says of each card, by bus; None without one."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=" + ",".join(names), "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.split(", ") for line in done.stdout.splitlines() if line.strip()]


REAL = asked("name", "uuid", "memory.total")
CARDS = [(name, uuid, int(mib)) for name, uuid, mib in REAL] if REAL else [
    ("Stand-in H100", "GPU-00000000-0000-0000-0000-000000000000", 80 << 10)]
SLOTS = len(CARDS) + 1


class Bench:
    """A farm of one node with the cards and a slot more; tasks that hold one."""

    def __init__(self, farm):
        self.farm, self.witness = farm, farm.path("witness")
        os.makedirs(self.witness)
        self.holder = write(farm.path("holder.py"), HOLDER)
        write(farm.path("shot", "input"), "x")
        farm.start_broker()
        self.ann, self.node = farm.person("ann"), self.start()

    def start(self):
        stand_in = {} if REAL else {"WESTLIGHT_NVML": NVML, "WESTLIGHT_STANDIN_CARDS": "2"}
        return self.farm.worker("box1", "--slots", str(SLOTS), "--cores", str(SLOTS), environment=stand_in)

    def submit(self, name, frames, *params):
        command = "run=exec %s %s %s %s.$FRAME %s" % (sys.executable, self.holder, self.witness, name, "real" if REAL else "none")
        return self.ann.submit(self.farm.path("shot"), "--preset", "command", "-f", frames, "-o", self.farm.path("out"),
                               "-p", "optional=yes", "-p", command, *params)

    def saw(self, mark):
        def told():
            data = read(os.path.join(self.witness, mark), b"")
            return data and json.loads(data)
        return until(told, lambda: "%s has started\n%s" % (mark, self.farm.logs()))

    def marks(self, name):
        return [mark for mark in sorted(os.listdir(self.witness)) if mark.startswith(name + ".") and mark.count(".") == 1]

    def open(self, mark=None):
        write(os.path.join(self.witness, mark + ".gate" if mark else "gate"), "")

    def forget(self, mark):
        os.unlink(os.path.join(self.witness, mark))


def used_mib():
    return [int(row[0]) for row in asked("memory.used")]


def sees_one(saw):
    """That a task with a card sees that one, as it is; its uuid."""
    equal(saw["CUDA_DEVICE_ORDER"], "PCI_BUS_ID", "the order of cards")
    uuid = saw["CUDA_VISIBLE_DEVICES"]
    known = {card[1]: card[2] for card in CARDS}
    check(uuid in known, "a card of this node is leased:", saw)
    if REAL:
        equal([card[0] for card in saw["cards"]], [uuid], "what CUDA sees")
        check(0.9 * known[uuid] < saw["cards"][0][1] <= known[uuid], "its memory:", saw)
        equal(saw["wrong"], 0, "words that the card changed")
    return uuid


@scenario
def cards_are_offered_as_their_driver_names_them():
    with Farm() as farm:
        bench = Bench(farm)
        operator = farm.person("ops", role="operator", studio=None)
        offered = until(lambda: [row["gpus"] for row in operator.ask("workers", "--json", code=0).json if row["connected"]], "it is there")
        equal(offered, [["%s, %d MiB" % (name, mib) for name, uuid, mib in CARDS]], "what is offered")
        for i, card in enumerate(CARDS):
            check('index=%d model="%s" uuid=%s memory_mib=%d' % (i, *card) in bench.node.log(), bench.node.log())
        if not REAL:
            check("lost=1" in bench.node.log(), "the lost card is named:", bench.node.log())


@scenario
def a_task_sees_the_card_it_asks_for_and_without_asking_none():
    with Farm() as farm:
        bench = Bench(farm)
        one, none = bench.submit("one", "1", "-p", "gpus=1"), bench.submit("none", "1")
        sees_one(bench.saw("one.1"))
        saw = bench.saw("none.1")
        equal(saw["CUDA_VISIBLE_DEVICES"], "", "cards of a task that asks for none")
        if REAL:
            check(saw["init"] == CUDA_NO_DEVICE or "cannot open" in str(saw["init"]), "what CUDA says there:", saw)
            equal(saw["cards"], [], "what CUDA sees there")
        else:  # by its path, where no renderer's linker looks
            equal((bench.saw("one.1")["LD_LIBRARY_PATH"], saw["LD_LIBRARY_PATH"]), (os.path.dirname(NVML), None), "the driver's folder")
        bench.open()
        for job in (one, none):
            bench.ann.wait_counts(job, done=1)
            usage = bench.ann.show(job)["usage"]
            equal(usage["card_seconds"], usage["wall_seconds"] if job == one else 0, "card-seconds")
            check(usage["wall_seconds"] > 0, usage)


@scenario
def more_cards_or_larger_ones_than_there_are_wait_and_say_why():
    with Farm() as farm:
        bench = Bench(farm)
        n, mib = len(CARDS), max(card[2] for card in CARDS)
        for params, wanted in ((("-p", "gpus=%d" % (n + 1)), "amount.worker.gpu of %d (the most is %d): ask for less" % (n + 1, n)),
                               (("-p", "gpus=1", "-p", "gpu-memory=%d" % (mib + 1)),
                                "amount.worker.gpu.memory of %d MiB (the most is %d MiB): ask for less" % (mib + 1, mib))):
            job = bench.submit("much", "1", *params)
            until(lambda job=job, wanted=wanted: "no connected worker offers " + wanted in bench.ann.ask("show", job).out,
                  lambda job=job: bench.ann.ask("show", job))
        equal(bench.marks("much"), [], "tasks that run")
        sees_one((bench.submit("all", "1", "-p", "gpus=1", "-p", "gpu-memory=%d" % mib), bench.saw("all.1"))[1])


@scenario
def a_card_is_never_two_tasks_card():
    with Farm() as farm:
        bench = Bench(farm)
        n = len(CARDS)
        job = bench.submit("hold", "1-%d" % (n + 1), "-p", "gpus=1")
        first = {mark: sees_one(bench.saw(mark)) for mark in ("hold.%d" % frame for frame in range(1, n + 1))}
        equal(sorted(first.values()), sorted(card[1] for card in CARDS), "leased, each once")
        if REAL:
            check(all(used > card[2] // 2 for used, card in zip(used_mib(), CARDS)), "what nvidia-smi says is used:", used_mib())
        bench.submit("free", "1")
        bench.saw("free.1")  # a slot was free all the while
        equal(bench.ann.counts(job)["running"], n, "tasks with a card")
        bench.open("hold.1")
        last = "hold.%d" % (n + 1)
        equal(sees_one(bench.saw(last)), first["hold.1"], "the card that was free again")
        ended = json.loads(read(os.path.join(bench.witness, "hold.1.ended")))
        check(bench.saw(last)["began"] >= ended, "the one begins when the other has ended:", bench.saw(last), ended)
        bench.open()
        bench.ann.wait_counts(job, done=n + 1)


@scenario
def a_card_is_free_again_when_its_task_or_its_worker_is_killed():
    with Farm() as farm:
        bench = Bench(farm)
        before = used_mib() if REAL else None
        job = bench.submit("hold", "1", "-p", "gpus=1")
        for victim in ("task", "worker", None):
            saw = bench.saw("hold.1")
            sees_one(saw)
            bench.forget("hold.1")
            if victim == "task":
                os.kill(saw["pid"], signal.SIGKILL)
            elif victim == "worker":
                bench.node.kill()
                bench.node = bench.start()  # the card is free before that one runs anything
            else:
                bench.open()
        bench.ann.wait_counts(job, done=1)
        equal([row[5] for row in farm.attempts(job)], [RENDERER, WORKER_LOST, DONE], "how the attempts ended")
        if REAL:
            equal(used_mib(), before, "memory in use")


if __name__ == "__main__":
    print("cards: %s" % (REAL or "none here, the stand-in's"))
    main()
