/* main.c - the sub-commands of westlight-bench. */
#include <tests/bench/bench.h>

#include <stdio.h>
#include <string.h>
#include <proto/base/bytes.h>

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
        const char *summary;
    } benches[] = {
        {"bulk", bench_bulk, "sealed blocks through a broker, against a bare CURVE stream"},
        {"core", bench_core, "events a second through the core alone"},
        {"dispatch", bench_dispatch, "frames a second through a broker, against a bare CURVE echo"},
        {"latency", bench_latency, "submit to task start on an idle farm"},
        {"recover", bench_recover, "how long a broker with a long history is away"},
        {"scale", bench_scale, "what changes with the frames, the jobs, the workers"},
        {"spawn", bench_spawn, "real processes through a real worker, against a bare loop"},
        {"store", bench_store, "results a second through the store, beside bare SQLite"},
    };

    memory_keep();
    for (size_t i = 0; argc > 1 && i < sizeof(benches) / sizeof(benches[0]); i++)
        if (strcmp(argv[1], benches[i].name) == 0)
            return benches[i].run(argc - 1, argv + 1);

    fprintf(stderr, "usage: westlight-bench NAME [--json] ...\n");
    for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++)
        fprintf(stderr, "  %-8s %s\n", benches[i].name, benches[i].summary);
    return 2;
}
